"""inotify(7) on the event loop: directories whose entries change wake whoever waits. Standard library alone (ctypes).

    async with Inotify() as inotify:
        inotify.watch(Path("/var/lib/knitter/queue"))
        while True:
            for event in await inotify.read():
                ...

Watch first and list afterwards: what happens in between is then an event, and nothing is missed.
"""

import asyncio
import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

MODIFY = 0x2
ATTRIB = 0x4
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
OVERFLOW = 0x4000
IGNORED = 0x8000

# An entry appears, is written completely, is replaced or goes; or the directory itself does.
ENTRIES = CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
_ONLYDIR = 0x01000000

_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Event:
    """What happened. `name` is the entry, "" for the directory itself. `directory` None: OVERFLOW, events were lost, look again."""

    directory: Path | None
    name: str
    mask: int


class Inotify:
    """One inotify instance; use it from one task of the loop it was made in. Raises OSError where the kernel refuses."""

    def __init__(self) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")
        self._directories: dict[int, Path] = {}
        self._readable = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._wake)

    def _wake(self) -> None:
        self._loop.remove_reader(self._fd)  # level-triggered: silent until the next read
        self._readable.set()

    def watch(self, directory: Path, mask: int = ENTRIES) -> None:
        """Watches a directory; again is no error. Raises OSError: FileNotFoundError, NotADirectoryError, ENOSPC (watch limit)."""
        number = _checked(_libc.inotify_add_watch(self._fd, os.fsencode(directory), mask | _ONLYDIR), str(directory))
        self._directories[number] = directory

    def unwatch(self, directory: Path) -> None:
        """Ends a watch; one that is not there is no error."""
        for number in [number for number, watched in self._directories.items() if watched == directory]:
            del self._directories[number]
            if _libc.inotify_rm_watch(self._fd, number) < 0 and ctypes.get_errno() != errno.EINVAL:  # EINVAL: it ended by itself
                _checked(-1, str(directory))

    @property
    def watched(self) -> frozenset[Path]:
        """The directories that are watched now."""
        return frozenset(self._directories.values())

    async def read(self) -> tuple[Event, ...]:
        """Waits for events and returns all there are. IGNORED (the directory is gone, its watch ended) is told like the others."""
        while True:
            try:
                data = os.read(self._fd, 65536)
            except BlockingIOError:
                self._readable.clear()
                self._loop.add_reader(self._fd, self._wake)
                await self._readable.wait()
                continue
            if events := self._parse(data):
                return events

    def _parse(self, data: bytes) -> tuple[Event, ...]:
        events, offset = [], 0
        while offset < len(data):
            number, mask, _cookie, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            directory = self._directories.get(number)
            if mask & IGNORED:
                self._directories.pop(number, None)
            if directory is not None or mask & OVERFLOW:
                events.append(Event(directory, name, mask))
        return tuple(events)

    def close(self) -> None:
        """Ends all watches. Idempotent."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result
