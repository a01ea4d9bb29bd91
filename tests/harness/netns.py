"""Network namespaces for tests and the demo: made without a process, left without a trace.

    with network_namespace("a") as path:        # bound below /run/netns, so that `ip -n` knows it too
        rtt = ping(path, "10.1.1.1")            # ICMP by a raw socket inside; no ping binary is needed

Names hold the process id and a random part, so that any number of runs can go side by side.
"""

import contextlib
import ctypes
import fcntl
import ipaddress
import json
import os
import secrets
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

T = TypeVar("T")

ROOT = Path("/run/netns")
CLONE_NEWNET, MS_BIND, MNT_DETACH = 0x40000000, 0x1000, 2
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2
IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO = 23, 2

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def network_namespace(label: str = "ns") -> Iterator[str]:
    """A new namespace with its loopback up; yields its path. Nothing of it is left afterwards."""
    ROOT.mkdir(mode=0o755, exist_ok=True)
    path = ROOT / f"kt-{label}-{os.getpid()}-{secrets.token_hex(3)}"
    path.touch(mode=0o444, exist_ok=False)
    try:
        _in_thread(lambda: _unshare_and_bind(path))
        inside(str(path), bring_up_loopback)
        yield str(path)
    finally:
        _libc.umount2(str(path).encode(), MNT_DETACH)
        path.unlink()


@contextlib.contextmanager
def entered(path: str) -> Iterator[None]:
    """The calling thread, and the threads and processes it starts, are in the namespace as long as the block runs."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(path)
        try:
            yield
        finally:
            _checked(_libc.setns(home, CLONE_NEWNET), "return to the namespace before")
    finally:
        os.close(home)


def inside(path: str, work: Callable[[], T]) -> T:
    """Runs `work` in a thread of its own inside the namespace."""

    def body() -> T:
        _setns(path)
        return work()

    return _in_thread(body)


def bring_up_loopback() -> None:
    """Sets `lo` up in the calling thread's namespace, by ioctl: no program is needed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        fcntl.ioctl(channel, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def ip(path: str | None, *arguments: str) -> Any:
    """What `ip -json` says, inside the namespace or (None) where the caller is; None for a command without output."""
    where = ["-n", Path(path).name] if path else []
    done = subprocess.run(["ip", "-json", "-details", *where, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return json.loads(done.stdout) if done.stdout.strip() else None


def tc(path: str | None, *arguments: str) -> Any:
    """What `tc -json -statistics` says, inside the namespace or (None) where the caller is; None for a command without output."""
    where = ["-n", Path(path).name] if path else []
    done = subprocess.run(["tc", "-json", "-statistics", *where, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"tc {' '.join(arguments)}: {done.stderr.strip()}")
    return json.loads(done.stdout) if done.stdout.strip() else None


def ping(
    path: str | None, address: str, *, timeout: float = 3.0, interval: float = 0.2, size: int = 56, fragment: bool = True
) -> float:
    """Sends ICMP echo requests from the namespace (None: from where the caller is) until one is answered, and returns that round
    trip in milliseconds. `size` is the payload in bytes; without `fragment` a packet too large for a link fails with OSError.
    Raises TimeoutError where nothing answers within `timeout` seconds."""

    def work() -> float:
        return _echo(address, timeout, interval, size, fragment)

    return work() if path is None else inside(path, work)


class Traffic:
    """Echo requests from a namespace to an address, one after the other while the block runs.

    with Traffic(path, "10.1.0.2") as traffic:
        ...
    assert traffic.lost == 0 < traffic.answered
    """

    PAUSE, PATIENCE = 0.02, 2.0  # seconds between two requests, and until one counts as lost

    def __init__(self, path: str, address: str) -> None:
        self._path, self._address = path, address
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.answered = self.lost = 0

    def _send(self) -> None:
        while not self._end.wait(self.PAUSE):
            try:
                ping(self._path, self._address, timeout=self.PATIENCE, interval=self.PATIENCE)
                self.answered += 1
            except TimeoutError:
                self.lost += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def _echo(address: str, timeout: float, interval: float, size: int, fragment: bool) -> float:
    version = ipaddress.ip_address(address).version
    family, protocol = (socket.AF_INET, socket.IPPROTO_ICMP) if version == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as channel:
        if not fragment:
            level, option = (socket.IPPROTO_IP, IP_MTU_DISCOVER) if version == 4 else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
            channel.setsockopt(level, option, IP_PMTUDISC_DO)
        identity = secrets.randbelow(0x10000)
        end = time.monotonic() + timeout
        sent: dict[int, float] = {}
        while (now := time.monotonic()) < end:
            number = len(sent)
            sent[number] = now
            channel.sendto(_echo_request(version, identity, number, size), (address, 0))
            found = _await_reply(channel, version, identity, min(now + interval, end))
            if found is not None and found in sent:
                return (time.monotonic() - sent[found]) * 1000
    raise TimeoutError(f"{address} does not answer: {len(sent)} echo requests in {timeout:g} s")


def _await_reply(channel: socket.socket, version: int, identity: int, until: float) -> int | None:
    while (left := until - time.monotonic()) > 0:
        if not select.select([channel], [], [], left)[0]:
            return None
        data = channel.recv(65536)
        if version == 4:
            data = data[(data[0] & 15) * 4 :]
        kind, _, _, found, number = struct.unpack_from("!BBHHH", data)
        if kind == (0 if version == 4 else 129) and found == identity:
            return int(number)
    return None


def _echo_request(version: int, identity: int, number: int, size: int) -> bytes:
    body = bytes(size)
    head = struct.pack("!BBHHH", 8 if version == 4 else 128, 0, 0, identity, number)
    if version == 6:
        return head + body  # the kernel fills in the checksum of ICMPv6
    return struct.pack("!BBHHH", 8, 0, _checksum(head + body), identity, number) + body


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) & 1:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _unshare_and_bind(path: Path) -> None:
    _checked(_libc.unshare(CLONE_NEWNET), "make a network namespace")
    source = f"/proc/self/task/{threading.get_native_id()}/ns/net"
    _checked(_libc.mount(source.encode(), str(path).encode(), b"none", MS_BIND, None), f"bind {path}")


def _setns(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.setns(fd, CLONE_NEWNET), f"enter {path}")
    finally:
        os.close(fd)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot {what}: {os.strerror(number)}")


def _in_thread(work: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread, below
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
