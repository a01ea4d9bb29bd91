"""A sandbox's network namespace, opened for the time of one call.

A descriptor or a socket inside a namespace keeps it alive after its pod is gone, so a Namespace is a context manager and nothing
of it outlives the `with` block. Its identity is SO_NETNS_COOKIE, which the kernel never gives twice in one boot; a path or an inode
may come again.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
from collections.abc import Callable
from typing import Self, TypeVar

import structlog

from knitter_agent.netlink.conversation import Conversation, open_socket
from knitter_common.errors import Internal, Invalid, NotFound, Unavailable

T = TypeVar("T")

NS_GET_NSTYPE = 0xB703
CLONE_NEWNET = 0x40000000
OWN = "/proc/thread-self/ns/net"

_MISSING = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ESRCH))
_SCARCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))

_libc = ctypes.CDLL(None, use_errno=True)

log = structlog.get_logger()


class Namespace:
    """An opened network namespace other than the agent's own.

    `path` is where the runtime keeps it, `fd` its descriptor, `cookie` its identity, `talk` a netlink socket inside.
    """

    def __init__(self, path: str) -> None:
        """Opens it, in about 0.1 ms.

        Raises NotFound(CNI_CONTAINER_UNKNOWN) where nothing is at `path`; Invalid(CNI_ENVIRONMENT_INVALID) where something else is
        than a network namespace, or the node's own one; Unavailable(AGENT_BUSY) where descriptors have run out.
        """
        self.path = path
        with contextlib.ExitStack() as undo:
            self.fd, self._own = _open(path, undo), _open_own(undo)
            _require_sandbox(self.fd, self._own, path)
            self.talk = Conversation(self.run(open_socket), f"in {path}")
            undo.callback(self.talk.close)
            self.cookie = self.talk.cookie()
            undo.pop_all()

    def close(self) -> None:
        """Lets go of the namespace; twice is harmless."""
        if self.fd >= 0:
            self.talk.close()
            os.close(self.fd)
            os.close(self._own)
            self.fd = -1

    def run(self, work: Callable[[], T]) -> T:
        """Runs `work` in the calling thread while that is in the namespace, for settings below /proc/sys/net, and comes back; about
        10 µs. The thread must be in the namespace that it was opened from.

        A thread that cannot come back would take a pod's namespace for the node's, so that ends the process as `kill -9` would: the
        journal has what is under way.
        """
        if _libc.setns(self.fd, CLONE_NEWNET) != 0:
            raise Internal("WIRING_FAILED", f"entering a network namespace failed: {os.strerror(ctypes.get_errno())}")
        try:
            return work()
        finally:
            if _libc.setns(self._own, CLONE_NEWNET) != 0:
                why = os.strerror(ctypes.get_errno())
                log.critical("the node's own network namespace cannot be entered again; the agent ends at once", error=why)
                os.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def cookie_of(path: str) -> int | None:
    """The identity of the namespace at `path` now; None where there is no network namespace (any more). About 0.1 ms.

    None means that the sandbox is gone, so what merely could not be found out (no descriptors, no permission) raises.
    """
    try:
        with Namespace(path) as sandbox:
            return sandbox.cookie
    except (NotFound, Invalid):
        return None


def _open(path: str, undo: contextlib.ExitStack) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise _not_opened(path, error) from error
    undo.callback(os.close, fd)
    return fd


def _open_own(undo: contextlib.ExitStack) -> int:
    """The calling thread's own."""
    try:
        fd = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable("AGENT_BUSY", f"the node's own network namespace cannot be opened now: {error}") from error
    undo.callback(os.close, fd)
    return fd


def _not_opened(path: str, error: OSError | ValueError) -> NotFound | Invalid | Unavailable | Internal:
    number = error.errno if isinstance(error, OSError) else errno.EINVAL
    if number in _MISSING:
        return NotFound("CNI_CONTAINER_UNKNOWN", f"CNI_NETNS {path!r}: there is no such network namespace", netns=path)
    if number in _SCARCE:
        return Unavailable("AGENT_BUSY", f"CNI_NETNS {path!r} cannot be opened now: {error}", netns=path)
    if number in (errno.EACCES, errno.EPERM):
        return Internal("WIRING_FAILED", f"CNI_NETNS {path!r}: the agent is not allowed to open it: {error}", netns=path)
    return Invalid("CNI_ENVIRONMENT_INVALID", f"CNI_NETNS {path!r} cannot be opened: {error}", netns=path)


def _require_sandbox(fd: int, own: int, path: str) -> None:
    try:
        kind = fcntl.ioctl(fd, NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != CLONE_NEWNET:
        raise Invalid("CNI_ENVIRONMENT_INVALID", f"CNI_NETNS {path!r} is not a network namespace", netns=path)
    if os.path.samestat(os.fstat(fd), os.fstat(own)):
        raise Invalid(
            "CNI_ENVIRONMENT_INVALID", f"CNI_NETNS {path!r} is the node's own network namespace; a sandbox has its own", netns=path
        )
