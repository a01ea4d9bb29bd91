"""The node's own network namespace: the one that the thread which makes the Kernel is in."""

from typing import Self

from knitter_agent.netlink.conversation import Conversation


class Kernel:
    """The node's side of every wiring, over one long-lived socket `talk`. Not thread-safe: it belongs to one worker thread."""

    def __init__(self) -> None:
        """Opens the socket in the network namespace of the calling thread, which must be the one that uses it."""
        self.talk = Conversation.open("on the node")

    def close(self) -> None:
        """Closes the socket; twice is harmless."""
        self.talk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
