"""The node's own network namespace: the one the agent's process is in when the Kernel is made."""

import socket
from typing import Self

from knitter_agent.netlink.conversation import Conversation


class Kernel:
    """The node's side of every wiring, over one long-lived socket `talk`. Not thread-safe: it belongs to one worker thread."""

    def __init__(self) -> None:
        """Opens the socket in the network namespace of the calling thread."""
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self.talk = Conversation(opened, "on the node")

    def close(self) -> None:
        """Closes the socket; twice is harmless."""
        self.talk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
