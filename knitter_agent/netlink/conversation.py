"""One netlink socket and the exchange on it: requests out in one datagram, answers in by number, refusals as errors."""

import socket


class Conversation:
    """One rtnetlink socket."""

    def __init__(self, opened: socket.socket, place: str) -> None:
        self._socket = opened
        self._place = place

    def cookie(self) -> int:
        """SO_NETNS_COOKIE of the socket's namespace."""
        return int.from_bytes(self._socket.getsockopt(socket.SOL_SOCKET, 71, 8), "little")

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()
