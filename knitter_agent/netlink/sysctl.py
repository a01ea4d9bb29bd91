"""Kernel settings below /proc/sys/net. They belong to the network namespace of the thread that opens them."""

import errno
import os

from knitter_common.errors import Internal, Refused

ROOT = "/proc/sys/net/"
_NOT_WRITABLE = frozenset((errno.EROFS, errno.EACCES, errno.EPERM))


def ensure(name: str, value: str, *, optional: bool = False) -> None:
    """Sets `name` ("ipv6/conf/eth0/accept_ra") unless it has the value already.

    Raises Refused(DATA_PLANE_UNSUPPORTED) where the kernel has no such setting (unless that is `optional`), Internal(WIRING_FAILED)
    where it cannot be written.
    """
    path = ROOT + name
    try:
        _ensure(path, value.encode())
    except FileNotFoundError as error:
        if optional:
            return
        raise Refused("DATA_PLANE_UNSUPPORTED", f"{path}: this node's kernel has no such setting", step=name) from error
    except OSError as error:
        raise Internal("WIRING_FAILED", f"{path}: setting it to {value} failed: {error.strerror}", step=name) from error


def _ensure(path: str, value: bytes) -> None:
    """Opens it once where it may be written: finding it takes longer than reading and writing it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as refused:
        if refused.errno not in _NOT_WRITABLE:
            raise
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.read(fd, 64).strip() != value:
                raise
        finally:
            os.close(fd)
        return
    try:
        if os.read(fd, 64).strip() != value:
            os.pwrite(fd, value, 0)
    finally:
        os.close(fd)
