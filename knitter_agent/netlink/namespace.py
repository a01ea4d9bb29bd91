"""A sandbox's network namespace, opened for the time of one call.

A descriptor or a socket inside a namespace keeps it alive after its pod is gone, so a Namespace is a context manager and nothing of it
outlives the `with` block. Its identity is SO_NETNS_COOKIE, which the kernel never gives twice in one boot; a path or an inode may come again.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Self, TypeVar

from knitter_agent.netlink.conversation import Conversation
from knitter_common.errors import Internal, Invalid, KnitterError, NotFound

T = TypeVar("T")

SO_NETNS_COOKIE = 71
NS_GET_NSTYPE = 0xB703
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """An opened network namespace other than the agent's own.

    `path` is where the runtime keeps it, `fd` its descriptor, `cookie` its identity, `talk` a netlink socket inside.
    """

    def __init__(self, path: str) -> None:
        """Opens it. Raises NotFound(CNI_CONTAINER_UNKNOWN) where nothing is at `path`, Invalid(CNI_ENVIRONMENT_INVALID) where something
        else than a network namespace, or the node's own one, is there."""
        self.path = path
        self.fd = _open(path)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self.fd)
            self.talk = Conversation(inside(self.fd, _netlink_socket), f"in {path}")
            self.cookie = self.talk.cookie()
            undo.pop_all()

    def close(self) -> None:
        """Lets go of the namespace; twice is harmless."""
        if self.fd >= 0:
            self.talk.close()
            os.close(self.fd)
            self.fd = -1

    def run(self, work: Callable[[], T]) -> T:
        """Runs `work` in a thread that is in the namespace (for files below /proc/sys/net; about 0.2 ms)."""
        return inside(self.fd, work)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def cookie_of(path: str) -> int | None:
    """The identity of the namespace at `path` now, None where none is (any more). About 0.3 ms."""
    try:
        with Namespace(path) as sandbox:
            return sandbox.cookie
    except (NotFound, Invalid):
        return None


def inside(fd: int, work: Callable[[], T]) -> T:
    """Runs `work` in a thread of its own that has entered the namespace `fd`, and ends with it.

    A thread that enters a namespace and comes back could fail to come back; one that ends cannot.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            if _libc.setns(fd, CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise Internal("WIRING_FAILED", f"entering the network namespace failed: {os.strerror(number)}")
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            errors.append(error)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _netlink_socket() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


def _open(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError) as error:
        raise NotFound("CNI_CONTAINER_UNKNOWN", f"CNI_NETNS {path!r}: there is no network namespace", netns=path) from error
    except (OSError, ValueError) as error:
        raise Invalid("CNI_ENVIRONMENT_INVALID", f"CNI_NETNS {path!r} cannot be opened: {error}", netns=path) from error
    try:
        _require_sandbox(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_sandbox(fd: int, path: str) -> None:
    try:
        kind = fcntl.ioctl(fd, NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != CLONE_NEWNET:
        raise Invalid("CNI_ENVIRONMENT_INVALID", f"CNI_NETNS {path!r} is not a network namespace", netns=path)
    if os.path.sameopenfile(fd, fd) and os.fstat(fd).st_ino == os.stat("/proc/thread-self/ns/net").st_ino:
        raise Invalid("CNI_ENVIRONMENT_INVALID", f"CNI_NETNS {path!r} is the node's own network namespace; a sandbox needs its own", netns=path)
