"""A folder watched by inotify: readings that miss nothing, and a call when another one is due."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from knitter_common.inotify import Event, Inotify
from knitter_monitor.sources.reading import FolderReader, Reading

log = structlog.get_logger()

_ATTEMPTS = 10  # to catch up with a folder that moves while it is read


class FolderWatch:
    """Calls `on_change` in the event loop for each change of what the last reading was made of."""

    def __init__(self, reader: FolderReader, on_change: Callable[[], None]) -> None:
        self._reader, self._on_change = reader, on_change
        self._entries: dict[Path, set[str]] = {}
        self._inotify = _inotify()
        self._task: asyncio.Task[None] | None = None

    async def read(self) -> Reading:
        """A reading that was begun when all it depends on was watched; else its `watched` is False, and it is to be read again."""
        if self._task is not None and self._task.done():
            self._task.result()  # listening failed: a defect, not to be hidden
        for _ in range(_ATTEMPTS if self._inotify else 1):
            reading = await asyncio.to_thread(self._reader.read)
            if self._watch(reading):
                return reading
        reading.watched = False
        return reading

    def _watch(self, reading: Reading) -> bool:
        """False: something was not watched yet when it was read."""
        self._entries = reading.watch
        if self._inotify is None:
            return False
        complete = True
        for directory in self._inotify.watched - reading.watch.keys():
            self._inotify.unwatch(directory)
        for directory in reading.watch.keys() - self._inotify.watched:
            complete = False
            try:
                self._inotify.watch(directory)
            except OSError as error:
                log.warning("a folder cannot be watched", folder=str(directory), error=str(error))
        return complete

    async def _listen(self, inotify: Inotify) -> None:
        while True:
            for event in await inotify.read():
                if event.directory is not None and not event.name:
                    inotify.unwatch(event.directory)  # it went or moved: the name may lead to another one by now
                if self._matters(event):
                    self._on_change()

    def _matters(self, event: Event) -> bool:
        if event.directory is None or not event.name:
            return True
        entries = self._entries.get(event.directory)
        return entries is not None and (not entries or event.name in entries)

    async def __aenter__(self) -> Self:
        if self._inotify is not None:
            self._task = asyncio.create_task(self._listen(self._inotify))
            self._task.add_done_callback(lambda task: self._on_change())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._inotify is not None:
            self._inotify.close()


def _inotify() -> Inotify | None:
    try:
        return Inotify()
    except OSError as error:  # fs.inotify.max_user_instances
        log.error("folders cannot be watched; they are read again after a time", error=str(error))
        return None
