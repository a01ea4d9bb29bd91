"""Merges what is planned at the same time into few commits of the store, and tells each how it ended.

While a commit is under way, what is planned meanwhile gathers; so the number of commits follows the store's speed and not the
number of operations, on a disk as on etcd. Only what fills a commit by itself goes beside others, so that a distant store is kept
busy. A merged commit whose conditions do not hold is done again one by one, so that each operation still fails alone.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import structlog

from knitter_common import failpoints
from knitter_common.errors import KnitterError
from knitter_manager.state import Cluster
from knitter_manager.store.protocol import MOST_BYTES, AtRevision, Conflict, NotWriter, Store, StoreDown

log = structlog.get_logger()

MOST_COMMITS = 4  # under way at once

_at_revision = partial(tuple.__new__, AtRevision)

Outcome = int | Conflict | NotWriter | StoreDown


class Change:
    """One operation's part of a commit: `conditions` maps a key to the revision it must be at. `done` gets the revision, or
    why not. `keys` is how many it adds to a commit, at most."""

    __slots__ = ("conditions", "deletes", "done", "keys", "puts")

    def __init__(
        self, conditions: dict[str, int], puts: dict[str, bytes], deletes: Sequence[str], done: Callable[[Outcome], None]
    ) -> None:
        self.conditions, self.puts, self.deletes, self.done = conditions, puts, deletes, done
        self.keys = max(len(conditions), len(puts) + len(deletes))


class _Merged:
    """Changes that make one commit, of at most so many keys; the first whatever it is."""

    def __init__(self, most_keys: int) -> None:
        self._most_keys = most_keys
        self.changes: list[Change] = []
        self.conditions: dict[str, int] = {}
        self.puts: dict[str, bytes] = {}
        self.deletes: list[str] = []
        self._writes: set[str] = set()
        self.keys = self._bytes = 0  # at most

    def take(self, change: Change) -> bool:
        """Adds a change, if it fits. Two that write the same key, such as a MAC that both want, or that disagree on the revision of
        a key that both read, must be judged one after the other."""
        puts, deletes, conditions, writes = change.puts, change.deletes, self.conditions, self._writes
        keys = self.keys + change.keys
        size = self._bytes + sum(map(len, puts.values()))
        if self.changes:
            if keys > self._most_keys or size > MOST_BYTES or not writes.isdisjoint(puts) or not writes.isdisjoint(deletes):
                return False
            for key, revision in change.conditions.items():
                if conditions.get(key, revision) != revision:
                    return False
        self.changes.append(change)
        conditions.update(change.conditions)
        self.puts.update(puts)
        self.deletes += deletes
        writes.update(puts, deletes)
        self.keys, self._bytes = keys, size
        return True


class Committer:
    """Belongs to one event loop. `clock` is the monotonic clock in seconds."""

    def __init__(self, store: Store, cluster: Cluster, clock: Callable[[], float]) -> None:
        self._store, self._cluster, self._clock = store, cluster, clock
        self.lost: Callable[[], None] = lambda: None  # called when the store says that another one writes
        self.went_back: Callable[[], None] = lambda: None  # called when the store is before what is known of it
        self.closed: KnitterError | None = None  # why nothing may be written now, if so
        self._waiting: list[Change] = []
        self._keys = 0  # of what waits
        self._tasks: set[asyncio.Task[None]] = set()
        self._soon = False
        self._alone = 0  # commits of their own that are under way

    @property
    def quiet(self) -> bool:
        """Nothing is under way, and nothing waits."""
        return not (self._tasks or self._waiting or self._alone)

    @property
    def _may_go(self) -> bool:
        """Whether what waits is for a commit now."""
        under_way = len(self._tasks)
        return not under_way or (under_way < MOST_COMMITS and self._keys >= self._store.most_keys)

    def submit(self, change: Change) -> None:
        """Hands a change over; `done` is called later, never from here."""
        self._waiting.append(change)
        self._keys += change.keys
        if not self._soon and self._may_go:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def commit(self, conditions: Mapping[str, int], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        """A commit of its own, applied to the state when it returns. Raises as Store.commit does, and StoreDown while it is
        closed."""
        if self.closed is not None:
            raise StoreDown(self.closed.message)
        asked = list(map(_at_revision, conditions.items()))
        await failpoints.reach("manager.before-commit")
        known = self._cluster.seen
        self._alone += 1
        try:
            revision = await self._store.commit(asked, puts, deletes)
        except NotWriter:
            self.lost()
            raise
        finally:
            self._alone -= 1
        await failpoints.reach("manager.after-commit")
        if revision < known:
            self.went_back()
            raise StoreDown(f"the store is at revision {revision}, and was at {known} before: it has gone back in time")
        self._cluster.did(revision, puts, deletes, self._clock())
        return revision

    async def idle(self) -> None:
        """Until nothing is under way."""
        while self._tasks or self._waiting:
            await asyncio.wait(self._tasks) if self._tasks else await asyncio.sleep(0)

    def _flush(self) -> None:
        self._soon = False
        while self._waiting and self._may_go:
            merged = self._merged(self._waiting)
            self._keys -= merged.keys
            del self._waiting[: len(merged.changes)]
            task = asyncio.create_task(self._run(merged))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _merged(self, changes: Iterable[Change]) -> _Merged:
        """The first of these, as many as fit into one commit."""
        merged = _Merged(self._store.most_keys)
        for change in changes:
            if not merged.take(change):
                break
        return merged

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a commit failed unexpectedly", exc_info=error)
        self._flush()

    async def _run(self, merged: _Merged) -> None:
        outcome: Outcome
        try:
            outcome = await self.commit(merged.conditions, merged.puts, merged.deletes)
        except Conflict as conflict:
            if len(merged.changes) > 1:
                await asyncio.gather(*(self._run(self._merged([change])) for change in merged.changes))
                return
            outcome = conflict
        except (NotWriter, StoreDown) as error:
            outcome = error
        except BaseException as error:
            for change in merged.changes:
                change.done(StoreDown(f"the commit was not answered: {error!r}"))
            raise
        for change in merged.changes:
            change.done(outcome)
