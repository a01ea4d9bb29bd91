"""The Store in memory, for tests: the same meaning as the real ones, nothing durable beyond its space.

A `MemorySpace` is what a disk is to the others: opening a second store over it is a restart, or another process. `space.down = "…"`
makes every store on it raise StoreDown with that text until it is "" again.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence

from knitter_manager.store.feed import Tail
from knitter_manager.store.protocol import (
    EVERYTHING,
    MOST_KEYS,
    AtRevision,
    Commit,
    Compacted,
    Condition,
    Conflict,
    NotWriter,
    Record,
    Snapshot,
    Span,
    StoreDown,
)

_BATCH = 1000


class MemorySpace:
    """What several memory stores share; on one event loop."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(8)
        self.records: dict[str, Record] = {}
        self.log: list[Commit] = []
        self.revision = self.floor = 0
        self.down = ""
        self.writer: MemoryStore | None = None
        self.stores: set[MemoryStore] = set()
        self.freed = asyncio.Event()

    def judge(self, conditions: Sequence[Condition], puts: Mapping[str, bytes], deletes: Sequence[str]) -> int:
        """Does one commit. Raises Conflict."""
        for condition in conditions:
            if isinstance(condition, AtRevision):
                current = self.records.get(condition.key)
                if (current.revision if current else 0) != condition.revision:
                    raise Conflict(condition.key, current, self.revision)
            elif (key := min((key for key in self.records if key.startswith(condition.prefix)), default=None)) is not None:
                raise Conflict(key, self.records[key], self.revision)
        gone = tuple(key for key in dict.fromkeys(deletes) if self.records.pop(key, None) is not None)
        if not puts and not gone:
            return self.revision
        self.revision += 1
        for key, value in puts.items():
            self.records[key] = Record(key, value, self.revision)
        self.log.append(Commit(self.revision, dict(puts), gone))
        for store in self.stores:
            store.tail.extend(self.log[-1:])
        return self.revision

    def depose(self) -> None:
        """Takes the writer's place from who has it, as a lease that runs out does."""
        if self.writer is not None:
            self.writer.lost.set()
            self.writer = None
        self.wake()

    def wake(self) -> None:
        """Wakes all who wait for the writer's place; they look again."""
        freed, self.freed = self.freed, asyncio.Event()
        freed.set()


class MemoryStore:
    """A Store (protocol.py) on a MemorySpace."""

    most_keys = MOST_KEYS

    def __init__(self, space: MemorySpace | None = None) -> None:
        self.space = space or MemorySpace()
        self.name = ""
        self.lost = asyncio.Event()
        self.tail = Tail(self.space.revision)
        self._open = True
        self._pending: list[tuple[Sequence[Condition], Mapping[str, bytes], Sequence[str], asyncio.Future[int]]] = []
        self.space.stores.add(self)

    async def acquire_writer(self, name: str) -> asyncio.Event:
        """See Store."""
        while True:
            self._check()
            if self.space.writer in (None, self):
                break
            await self.space.freed.wait()
        if self.space.writer is None:
            self.space.writer, self.lost = self, asyncio.Event()
        self.name = name
        return self.lost

    async def writer(self) -> str:
        """See Store."""
        self._check()
        return self.space.writer.name if self.space.writer else ""

    async def load(self, spans: Sequence[Span] = EVERYTHING) -> Snapshot:
        """See Store."""
        self._check()
        counter = self.space.records.get("meta/epoch")
        epoch = f"{self.space.id}.{counter.value.decode() if counter else 0}"
        records = [
            record
            for key, record in sorted(self.space.records.items())
            if any(key >= begin and (not end or key < end) for begin, end in spans)
        ]
        return Snapshot(epoch, self.space.revision, _batches(records))

    async def get(self, keys: Sequence[str]) -> Mapping[str, Record]:
        """See Store."""
        self._check()
        return {key: self.space.records[key] for key in keys if key in self.space.records}

    async def commit(self, conditions: Sequence[Condition], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        """See Store. All commits that wait are judged one turn of the loop later, as a group."""
        self._check()
        if self.space.writer is not self:
            raise NotWriter(await self.writer())
        if not puts.keys().isdisjoint(deletes):
            raise ValueError("a key is both put and deleted")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._group)
        self._pending.append((conditions, dict(puts), deletes, future))
        return await future

    def _group(self) -> None:
        pending, self._pending = self._pending, []
        for conditions, puts, deletes, future in pending:
            try:
                self._check()
                if self.space.writer is not self:
                    raise NotWriter(self.space.writer.name if self.space.writer else "")
                revision = self.space.judge(conditions, puts, deletes)
            except (Conflict, NotWriter, StoreDown) as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(revision)

    async def changes(self, after: int) -> AsyncIterator[Sequence[Commit]]:
        """See Store."""
        while True:
            self._check()
            news = self.tail.news()
            if after < self.space.floor:
                raise Compacted(self.space.floor)
            begin = after - self.space.floor
            batch = self.space.log[begin : begin + _BATCH]
            if batch:
                after = batch[-1].revision
                yield batch
            else:
                await news.wait()

    async def compact(self, revision: int) -> None:
        """See Store. Only the writer can: raises NotWriter."""
        self._check()
        if self.space.writer is not self:
            raise NotWriter(await self.writer())
        revision = min(revision, self.space.revision)
        if revision > self.space.floor:
            del self.space.log[: revision - self.space.floor]
            self.space.floor = revision

    async def close(self) -> None:
        """See Store. Idempotent."""
        self._open = False
        for *_, future in self._pending:
            if not future.done():
                future.set_exception(StoreDown("the store is closed"))
        self._pending.clear()
        self.tail.end("the store is closed")
        self.space.stores.discard(self)
        if self.space.writer is self:
            self.space.depose()
        self.space.wake()  # its own wait for the writer's place, too

    def _check(self) -> None:
        if not self._open:
            raise StoreDown("the store is closed")
        if self.space.down:
            raise StoreDown(self.space.down)


async def _batches(records: Sequence[Record]) -> AsyncIterator[Sequence[Record]]:
    for begin in range(0, len(records), _BATCH):
        yield records[begin : begin + _BATCH]
