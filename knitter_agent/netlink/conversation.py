"""One netlink socket and the exchange on it: many requests out in one datagram, answers in by number, refusals as errors.

The kernel handles requests in the order of the datagram, before `send` returns, and goes on after one that it refuses. So only the
last one of a batch asks for an acknowledgement: what went wrong before it is told before it.
"""

import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from knitter_agent.netlink.wire import (
    HEADER,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    Request,
    attributes,
)
from knitter_common.errors import Internal, KnitterError, Refused, Unavailable

SO_NETNS_COOKIE = 71
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
NLMSGERR_ATTR_MSG = 1

BATCH = 32  # requests in one datagram: their answers, 1-2 kB each, must fit the socket's buffer together
DEADLINE = 10.0  # seconds that one answer may take; the kernel answers at once, so only a defect takes longer
DUMPS = 5  # how often a listing is begun anew when the kernel says that it changed meanwhile
RECEIVE = 65536  # bytes; the kernel sends at most 32 kB in one datagram

_UNSUPPORTED = frozenset((errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT))


class Answer(NamedTuple):
    """What came of a request: 0 or a tolerated errno, and the body of the message it asked for."""

    errno: int = 0
    body: bytes = b""


class Conversation:
    """One rtnetlink socket. `place` names it in errors ("in /run/netns/x"). Not thread-safe."""

    def __init__(self, opened: socket.socket, place: str) -> None:
        """Takes the socket over."""
        self._socket = opened
        self._place = place
        self._sequence = 0
        opened.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        opened.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        opened.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(DEADLINE), 0))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(DEADLINE), 0))

    @classmethod
    def open(cls, place: str) -> "Conversation":
        """A socket in the network namespace of the calling thread."""
        return cls(open_socket(), place)

    def cookie(self) -> int:
        """SO_NETNS_COOKIE of the socket's namespace."""
        return int.from_bytes(self._socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")

    def close(self) -> None:
        """Closes the socket; twice is harmless."""
        self._socket.close()

    def ask(self, *requests: Request) -> list[Answer]:
        """Sends the requests and returns their answers in order. Raises the first refusal that is not tolerated, after all were
        tried: Internal(WIRING_FAILED) or Refused(DATA_PLANE_UNSUPPORTED), with the step and the kernel's own words."""
        answers: list[Answer] = []
        first: KnitterError | None = None
        for start in range(0, len(requests), BATCH):
            batch = requests[start : start + BATCH]
            for request, (number, words, body) in zip(batch, self._exchange(batch), strict=True):
                if number and number not in request.tolerated and first is None:
                    first = refusal(number, words, request.step, self._place)
                answers.append(Answer(number, body))
        if first is not None:
            raise first
        return answers

    def dump(self, request: Request) -> list[bytes]:
        """The bodies of a listing; begun anew if the kernel says that it changed while being read."""
        for _ in range(DUMPS):
            bodies = self._dump_once(request)
            if bodies is not None:
                return bodies
        raise Unavailable("AGENT_BUSY", f"{request.step} {self._place} failed: it changed {DUMPS} times while being read")

    def _exchange(self, batch: Sequence[Request]) -> list[tuple[int, str, bytes]]:
        first = self._sequence + 1
        self._sequence = last = self._sequence + len(batch)
        parts: list[bytes] = []
        for number, request in enumerate(batch, first):
            flags = request.flags | NLM_F_REQUEST | (NLM_F_ACK if number == last else 0)
            parts += (HEADER.pack(len(request.payload) + HEADER.size, request.kind, flags, number, 0), request.payload)
        self._send(b"".join(parts), batch[0].step)
        outcomes = [(0, "", b"")] * len(batch)
        while True:
            for kind, flags, number, body in _messages(self._receive(batch[-1].step)):
                if not first <= number <= last:
                    continue  # an answer to an earlier exchange that was given up
                if kind != NLMSG_ERROR:
                    outcomes[number - first] = (0, "", body)
                    continue
                code = -int.from_bytes(body[:4], "little", signed=True)
                if code:
                    outcomes[number - first] = (code, _words(flags, body), b"")
                if number == last:
                    return outcomes

    def _dump_once(self, request: Request) -> list[bytes] | None:
        self._sequence += 1
        header = HEADER.pack(len(request.payload) + HEADER.size, request.kind, request.flags | NLM_F_REQUEST, self._sequence, 0)
        self._send(header + request.payload, request.step)
        bodies: list[bytes] = []
        changed = False
        while True:
            for kind, flags, number, body in _messages(self._receive(request.step)):
                if number != self._sequence:
                    continue
                changed = changed or bool(flags & NLM_F_DUMP_INTR)
                if kind not in (NLMSG_DONE, NLMSG_ERROR):
                    bodies.append(body)
                    continue
                code = -int.from_bytes(body[:4], "little", signed=True)
                if code and code not in request.tolerated:
                    raise refusal(code, _words(flags, body), request.step, self._place)
                return None if changed else bodies

    def _send(self, data: bytes, step: str) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise self._broken(step, error) from error

    def _receive(self, step: str) -> bytes:
        try:
            return self._socket.recv(RECEIVE)
        except OSError as error:
            raise self._broken(step, error) from error

    def _broken(self, step: str, error: OSError) -> KnitterError:
        if isinstance(error, BlockingIOError):
            return Unavailable("DEADLINE_EXCEEDED", f"{step} {self._place}: no answer within {DEADLINE:g} s", step=step)
        return Internal("WIRING_FAILED", f"{step} {self._place} failed: {error}", step=step)


def open_socket() -> socket.socket:
    """An rtnetlink socket in the network namespace of the calling thread."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


def refusal(number: int, words: str, step: str, place: str) -> KnitterError:
    """The error for what the kernel refused."""
    said = f"{os.strerror(number)} ({words})" if words else os.strerror(number)
    facts = {"step": step, "errno": errno.errorcode.get(number, str(number))}
    if number in _UNSUPPORTED:
        return Refused("DATA_PLANE_UNSUPPORTED", f"{step} {place}: this node's kernel cannot do it: {said}", **facts)
    return Internal("WIRING_FAILED", f"{step} {place} failed: the kernel says: {said}", **facts)


def _messages(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    offset, end = 0, len(data)
    while offset + HEADER.size <= end:
        length, kind, flags, number, _ = HEADER.unpack_from(data, offset)
        if length < HEADER.size:
            break
        found.append((kind, flags, number, data[offset + HEADER.size : offset + length]))
        offset += (length + 3) & ~3
    return found


def _words(flags: int, body: bytes) -> str:
    """The kernel's own words about a refusal (NETLINK_EXT_ACK), "" where it has none."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    start = 4 + HEADER.size
    if not flags & NLM_F_CAPPED and len(body) >= start:
        start = 4 + (HEADER.unpack_from(body, 4)[0] + 3 & ~3)
    words = dict(attributes(body, start)).get(NLMSGERR_ATTR_MSG, b"")
    return words.rstrip(b"\0").decode(errors="replace")
