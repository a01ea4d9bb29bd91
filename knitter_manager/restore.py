"""Restoring a snapshot: the whole state is replaced, or nothing is changed, whatever ends in between.

A store takes only so much in one commit, so it goes in phases, told at `meta/restoring`; a writer that begins and finds one under
way ends it before it writes anything else:

    staging    the file, judged already, is copied to `staged/…`; the state is as it was     → begun anew: the copy is dropped
    applying   the records are made to be those of the copy; managers answer from before      → begun anew: it is done again
    cleaning   the state is the snapshot's, in a new epoch, told to all; the copy is dropped  → begun anew: it is dropped
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import IO, Any

import structlog
from google.protobuf.message import DecodeError

from knitter_common import failpoints
from knitter_common.errors import KnitterError, Refused, Unavailable
from knitter_common.snapshot import Entry, Header, Reader, Trailer, invalid
from knitter_manager import keys
from knitter_manager.allocation.jobs import not_writer, store_unavailable
from knitter_manager.committer import Committer
from knitter_manager.feed import Feed
from knitter_manager.recovery import Recovery, waiting_record
from knitter_manager.role import Role
from knitter_manager.standing import (
    APPLYING,
    CLEANING,
    EPOCH,
    FROZEN,
    LINEAGE,
    META,
    RECOVERING,
    RESTORING,
    STAGING,
    Standing,
    counter_of,
    encoded,
)
from knitter_manager.state import Cluster
from knitter_manager.store.protocol import MOST_BYTES, NotWriter, Record, Snapshot, Store, StoreDown, all_but, below

log = structlog.get_logger()

STAGED = "staged/"  # the copy's keys begin with it
_PIECE = 1024 * 1024
_AT_ONCE = 8  # commits under way
_OWN = (META, STAGED)  # no part of the state


@dataclass(slots=True)
class _Given:
    """A snapshot file that was judged: it is whole, and its records make a state."""

    file: IO[bytes]
    header: Header
    trailer: Trailer
    cluster: Cluster
    nodes: set[str] = field(default_factory=set)

    def entries(self) -> Iterator[list[Entry]]:
        """Its records, as often as asked."""
        self.file.seek(0)
        reader = Reader()
        while piece := self.file.read(_PIECE):
            yield from reader.feed(piece)


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a restore."""

    epoch: str
    revision: int
    records: int
    waiting_for: tuple[str, ...]


class Restore:
    """Belongs to the writer. `empty` makes an empty state."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        committer: Committer,
        feed: Feed,
        standing: Standing,
        role: Role,
        recovery: Recovery,
        empty: Any,
    ) -> None:
        self._store, self._cluster, self._committer, self._feed = store, cluster, committer, feed
        self._standing, self._role, self._recovery, self._empty = standing, role, recovery, empty
        self._lock = asyncio.Lock()

    async def restore(self, pieces: AsyncIterator[bytes], only_if_empty: bool, complete: bool) -> Restored:
        """Judges the file, then replaces the state by it; once that has begun it goes on though the caller goes.

        Raises Invalid(SNAPSHOT_INVALID), Refused(STORE_NOT_EMPTY), Unavailable; of these only Unavailable may leave a restore under
        way, which the next writer ends.
        """
        self._role.may_write()
        with _room(), tempfile.TemporaryFile(prefix="knitter-snapshot-") as file:
            given = await self._judge(file, pieces)
            if only_if_empty and (what := self._holds()):
                raise Refused("STORE_NOT_EMPTY", f"the store holds {what}; nothing was changed")
            task = asyncio.ensure_future(self._replace(given, complete))
            return await _to_its_end(task)

    async def _judge(self, file: IO[bytes], pieces: AsyncIterator[bytes]) -> _Given:
        """Reads it to its end, and makes a state of it on trial."""
        reader = Reader()

        async def batches() -> AsyncIterator[Sequence[Record]]:
            async for piece in pieces:
                file.write(piece)
                for entries in reader.feed(piece):
                    yield [_record(key, value) for key, value in entries]

        cluster: Cluster = self._empty()
        try:
            await cluster.load("", 1, batches(), 0.0)
        except (DecodeError, ValueError, KeyError) as error:
            raise invalid(f"a record cannot be read: {error!r}") from error
        except KnitterError as error:
            if error.reason == "SNAPSHOT_INVALID" or isinstance(error, Unavailable):
                raise
            raise invalid(f"a record cannot be read: {error.message}") from error
        header, trailer = reader.end()
        file.flush()
        nodes = {name for name, entry in cluster.nodes.items() if entry.node.revision and not entry.node.gone}
        return _Given(file, header, trailer, cluster, nodes)

    def _holds(self) -> str:
        """What the store holds, for people; "" for nothing that a person or a pod needs."""
        cluster = self._cluster
        tenants = sum(1 for entry in cluster.tenants.values() if entry.tenant.revision)
        counts = {"networks": len(cluster.networks), "port sets": len(cluster.sets), "tenants": tenants}
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)

    # -- replacing ---------------------------------------------------------------------------------------------------------

    async def _replace(self, given: _Given, complete: bool) -> Restored:
        async with self._lock:
            self._role.may_write()
            plan = self._plan(given, complete)
            log.warning("a snapshot is being restored", taken_at=given.header.epoch, revision=given.header.revision, **plan["told"])
            self._committer.closed = Unavailable("RESTORING", "a snapshot is being restored; nothing else is written meanwhile")
            await self._committer.idle()
            try:
                await self._mark(STAGING, {})
                await self._commit_all((STAGED + key, value) async for key, value in _each(given.entries()))
                await failpoints.reach("restore.staged")
                await self._mark(APPLYING, plan)
                revision = await self._apply()
            except (NotWriter, StoreDown) as error:
                self._role.lost()  # and begins anew: that ends what is half done
                raise (store_unavailable(error) if isinstance(error, StoreDown) else not_writer(error.writer)) from error
            except BaseException:
                self._role.lost()
                raise
            return Restored(self._cluster.epoch, revision, given.trailer.records, self._standing.waiting_for)

    def _plan(self, given: _Given, complete: bool) -> dict[str, Any]:
        """What shall be true afterwards, kept beside the copy."""
        lineage, counter = counter_of(given.header.epoch)
        bare = not self._holds() and not self._recovery.known_nodes()
        same = lineage == self._standing.lineage
        waiting = set() if complete else given.nodes | self._recovery.known_nodes()
        return {
            "counter": max(self._standing.counter, counter if same or bare else 0) + 1,
            "lineage": lineage if bare and lineage else self._standing.lineage,
            "waiting": sorted(waiting),
            "told": {"records": given.trailer.records, "sha256": given.trailer.sha256},
        }

    async def _apply(self) -> int:
        """Makes the state that of the copy, and tells it to all as a new epoch."""
        plan = self._standing.restore
        copy = await self._store.load((below(STAGED),))
        present = await self._store.load(all_but(META, STAGED))
        await self._commit_all(_differences(copy, present))
        await failpoints.reach("restore.applied")
        record = waiting_record(plan["waiting"])
        lineage = {LINEAGE: plan["lineage"].encode()} if plan["lineage"] != self._standing.store_id else {}
        told = {RESTORING: encoded({**plan, "phase": CLEANING}), EPOCH: str(plan["counter"]).encode()}
        deletes = [key for key in (RECOVERING, LINEAGE) if key not in record and key not in lineage]
        revision = await self._store.commit([], {**told, **lineage, **record}, deletes)
        await self._feed.until(revision)
        log.warning("a snapshot is restored", epoch=self._cluster.epoch, revision=revision, waiting=len(plan["waiting"]))
        await self._clean()
        return revision

    async def _clean(self) -> None:
        """Drops the copy, and the mark after it."""
        copy = await self._store.load((below(STAGED),))
        await self._commit_all(_deleted(copy))
        await self._feed.until(await self._store.commit([], {}, [RESTORING]))
        self._role.close()

    async def resume(self) -> None:
        """Ends what another writer, or this one before, has left half done. Raises NotWriter, StoreDown."""
        phase = self._standing.restore.get("phase")
        if phase is None:
            return
        log.warning("a restore was left half done", phase=phase)
        if phase == APPLYING:
            await self._apply()
        else:
            await self._clean()

    async def _mark(self, phase: str, plan: Mapping[str, Any]) -> None:
        revision = await self._store.commit([], {RESTORING: encoded({**plan, "phase": phase})})
        await self._feed.until(revision)

    async def _commit_all(self, changes: AsyncGenerator[tuple[str, bytes | None], None]) -> None:
        """Some commits at a time, in any order. `changes`: keys, each once, with their values, None to delete."""
        running: set[asyncio.Task[int]] = set()
        try:
            async for part in _parts(changes, self._store.most_keys):
                puts = {key: value for key, value in part if value is not None}
                deletes = [key for key, value in part if value is None]
                running.add(asyncio.ensure_future(self._store.commit([], puts, deletes)))
                if len(running) >= _AT_ONCE:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    # -- freezing ------------------------------------------------------------------------------------------------------------

    async def set_frozen(self, frozen: bool) -> int:
        """Forbids all writes, or allows them again; returns the revision that says so. Raises Unavailable."""
        async with self._lock:
            try:
                self._role.may_write()
            except Unavailable as error:
                if error.reason != "STORE_FROZEN":
                    raise
            if frozen:
                self._committer.closed = Unavailable("STORE_FROZEN", "writes are forbidden while the state is moved")
                await self._committer.idle()
            try:
                revision = await self._recovery.write({FROZEN: b"1"} if frozen else {}, [] if frozen else [FROZEN])
            finally:
                self._role.close()
            log.warning("writes are forbidden" if frozen else "writes are allowed again", revision=revision)
            return revision


def of_state(records: Sequence[Record]) -> Iterator[Entry]:
    """The records that are a part of the state, as a snapshot holds them."""
    return ((key, value) for key, value, _ in records if not key.startswith(_OWN))


def _record(key: str, value: bytes) -> Record:
    if key.partition("/")[0] not in keys.FAMILIES:
        raise invalid(f"it has a record of a kind that this release does not know: {key}")
    return Record(key, value, 1)


async def _each(batches: Iterator[list[Entry]]) -> AsyncIterator[Entry]:
    for batch in batches:
        for entry in batch:
            yield entry


async def _records(snapshot: Snapshot) -> AsyncIterator[Record]:
    async with aclosing(snapshot.batches) as batches:  # type: ignore[type-var]
        async for batch in batches:
            for record in batch:
                yield record


async def _deleted(snapshot: Snapshot) -> AsyncGenerator[tuple[str, bytes | None], None]:
    async with aclosing(_records(snapshot)) as records:  # type: ignore[type-var]
        async for record in records:
            yield record.key, None


async def _differences(copy: Snapshot, present: Snapshot) -> AsyncGenerator[tuple[str, bytes | None], None]:
    """What makes the records those of the copy: both are read side by side, in order of their keys."""
    async with aclosing(_records(copy)) as staged, aclosing(_records(present)) as held:  # type: ignore[type-var]
        wanted, current = await anext(staged, None), await anext(held, None)
        while wanted is not None or current is not None:
            key = wanted.key[len(STAGED) :] if wanted is not None else ""
            if wanted is not None and (current is None or key <= current.key):
                same = current is not None and key == current.key
                if current is None or not same or current.value != wanted.value:
                    yield key, wanted.value
                wanted = await anext(staged, None)
                current = await anext(held, None) if same else current
            elif current is not None:
                yield current.key, None
                current = await anext(held, None)


async def _parts(
    changes: AsyncGenerator[tuple[str, bytes | None], None], most_keys: int
) -> AsyncIterator[list[tuple[str, bytes | None]]]:
    """In parts that fit into one commit."""
    part: list[tuple[str, bytes | None]] = []
    size = 0
    async with aclosing(changes) as each:
        async for key, value in each:
            weight = len(key) + len(value or b"")
            if part and (len(part) >= most_keys or size + weight > MOST_BYTES):
                yield part
                part, size = [], 0
            part.append((key, value))
            size += weight
    if part:
        yield part


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """Where a snapshot is put aside. Raises Unavailable(STORE_UNAVAILABLE)."""
    try:
        yield
    except OSError as error:
        said = f"the snapshot cannot be put aside in {tempfile.gettempdir()}: {error.strerror or error}; nothing was changed"
        raise Unavailable("STORE_UNAVAILABLE", said) from error


async def _to_its_end(task: "asyncio.Task[Restored]") -> Restored:
    """Its result; cancelled, it goes on, and only then the caller ends."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
