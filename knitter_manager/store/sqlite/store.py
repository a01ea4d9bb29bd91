"""The Store on a SQLite file, as the rest of the manager sees it: everything here runs on one event loop and only hands over."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from knitter_common.inotify import ATTRIB, Inotify
from knitter_manager.store.feed import Tail
from knitter_manager.store.protocol import EVERYTHING, MOST_KEYS, Commit, Condition, NotWriter, Record, Snapshot, Span, StoreDown
from knitter_manager.store.sqlite import file
from knitter_manager.store.sqlite.lock import LockFile
from knitter_manager.store.sqlite.reader import Reader
from knitter_manager.store.sqlite.writer import Outcome, Pending, Retention, Writer

_BATCH = 1000  # commits in one batch of `changes`


class SqliteStore:
    """A Store (protocol.py) in one file; several processes of one machine may open it. Made by `open`."""

    most_keys = MOST_KEYS

    def __init__(self, path: Path, retention: Retention) -> None:
        self.path = path
        self._closed = f"the store {path} is closed"
        self._open = True
        self._lock = LockFile(path.with_name(path.name + ".writer"))
        self._acquiring = asyncio.Lock()
        self._waiting: set[asyncio.Task[None]] = set()
        self._writing = False
        self._lost = asyncio.Event()  # of the present time as the writer
        self._tail = Tail(0)
        self._tail.lose()
        self._watch: asyncio.Task[None] | None = None
        self._reader = Reader(path)
        self._writer = Writer(path, retention, asyncio.get_running_loop(), self._deliver)

    @classmethod
    async def open(cls, path: Path, retention: Retention | None = None) -> Self:
        """Opens the file, or makes it. Raises Refused(STORE_UNUSABLE) naming the path and a way out."""
        await asyncio.to_thread(file.prepare, path)
        return cls(path, retention or Retention())

    async def acquire_writer(self, name: str) -> asyncio.Event:
        """See Store: waits for the lock on `<path>.writer`."""
        self._must_be_open()
        task = asyncio.ensure_future(self._acquire(name))
        self._waiting.add(task)
        try:
            await asyncio.wait((task,))
        finally:
            self._waiting.discard(task)
            task.cancel()
        if task.cancelled():
            raise StoreDown(self._closed)
        task.result()
        return self._lost

    async def _acquire(self, name: str) -> None:
        async with self._acquiring:
            try:
                await self._lock.take(name)
            except OSError as error:
                raise StoreDown(f"{self._lock.path}: {error}") from error
            if self._writing:
                return
            try:
                head = await self._writer.take_over()
            except BaseException:
                self._lock.release()
                raise
            self._tail.restart(head)
            self._writing, self._lost = True, asyncio.Event()
            self._stop_watching()

    async def writer(self) -> str:
        """See Store."""
        self._must_be_open()
        try:
            return self._lock.holder()
        except OSError as error:
            raise StoreDown(f"{self._lock.path}: {error}") from error

    async def load(self, spans: Sequence[Span] = EVERYTHING) -> Snapshot:
        """See Store. A load that is not read to its end keeps the log of the file from shrinking."""
        return await self._reader.load(spans)

    async def get(self, keys: Sequence[str]) -> Mapping[str, Record]:
        """See Store."""
        return await self._reader.get(keys)

    async def commit(self, conditions: Sequence[Condition], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        """See Store. A commit whose caller is cancelled goes on. Raises ValueError for what is no commit."""
        self._must_be_open()
        if not self._writing:
            raise NotWriter(await self.writer())
        future = asyncio.get_running_loop().create_future()
        if deletes and not puts.keys().isdisjoint(deletes):
            raise ValueError("a key is both put and deleted")
        self._writer.submit(Pending(conditions, dict(puts), tuple(dict.fromkeys(deletes)), future))
        revision: int = await future
        return revision

    async def changes(self, after: int) -> AsyncIterator[Sequence[Commit]]:
        """See Store."""
        while True:
            news = self._tail.news()
            if not self._writing:
                self._keep_watching()
            batch = self._tail.since(after, _BATCH)
            if batch is None:
                batch = await self._reader.changes(after, _BATCH)
            if batch:
                after = batch[-1].revision
                yield batch
            else:
                await news.wait()

    async def compact(self, revision: int) -> None:
        """See Store. Only the writer can: raises NotWriter."""
        self._must_be_open()
        if not self._writing:
            raise NotWriter(await self.writer())
        self._tail.forget(await self._writer.compact(revision))

    async def close(self) -> None:
        """See Store. Idempotent; the group of commits that is under way is still answered truthfully."""
        if not self._open:
            return
        self._open = False
        for task in self._waiting:
            task.cancel()
        self._stop_watching()
        await asyncio.to_thread(self._writer.end)
        self._give_up()
        self._tail.end(self._closed)
        await self._reader.close()

    def _must_be_open(self) -> None:
        if not self._open:
            raise StoreDown(self._closed)

    def _deliver(self, outcomes: Sequence[tuple["asyncio.Future[int]", Outcome]], commits: Sequence[Commit]) -> None:
        """Answers a group, then tells the followers."""
        down = stolen = False
        for future, outcome in outcomes:
            if isinstance(outcome, int):
                if not future.done():
                    future.set_result(outcome)
            else:
                down = down or isinstance(outcome, StoreDown)
                stolen = stolen or isinstance(outcome, NotWriter)
                if not future.done():
                    future.set_exception(outcome)
        if commits:
            self._tail.extend(commits)
            self._lock.touch()
        if down:
            self._tail.lose()
        if stolen:  # somebody replaced the lock file under us
            self._tail.lose()
            self._give_up()

    def _give_up(self) -> None:
        self._writing = False
        self._lock.release()
        self._lost.set()

    def _keep_watching(self) -> None:
        """Has the writer's touches wake the followers, from now on."""
        if self._watch is None:
            try:
                inotify = Inotify()
            except OSError as error:
                said = f"{self.path.parent} cannot be watched: {error}; raise the sysctl fs.inotify.max_user_instances"
                raise StoreDown(said) from error
            try:
                inotify.watch(self.path.parent, ATTRIB)
            except OSError as error:
                inotify.close()
                raise StoreDown(f"{self.path.parent} cannot be watched: {error}") from error
            self._watch = asyncio.ensure_future(self._follow(inotify))

    async def _follow(self, inotify: Inotify) -> None:
        try:
            while True:
                await inotify.read()
                self._tail.wake()
        finally:
            inotify.close()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
