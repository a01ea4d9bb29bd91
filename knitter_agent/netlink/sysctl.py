"""Kernel settings below /proc/sys/net. They belong to the network namespace of the thread that opens them."""

import os

from knitter_common.errors import Internal, Refused

ROOT = "/proc/sys/net/"


def ensure(name: str, value: str, *, optional: bool = False) -> None:
    """Sets `name` ("ipv6/conf/eth0/accept_ra") unless it has the value already.

    Raises Refused(DATA_PLANE_UNSUPPORTED) where the kernel has no such setting (unless that is `optional`), Internal(WIRING_FAILED)
    where it cannot be written.
    """
    path = ROOT + name
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.read(fd, 64).strip() == value.encode():
                return
        finally:
            os.close(fd)
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except FileNotFoundError as error:
        if optional:
            return
        raise Refused("DATA_PLANE_UNSUPPORTED", f"{path}: this node's kernel has no such setting", step=name) from error
    except OSError as error:
        raise Internal("WIRING_FAILED", f"{path}: setting it to {value} failed: {error.strerror}", step=name) from error
