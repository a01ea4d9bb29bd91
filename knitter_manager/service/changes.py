"""The feed of changes for monitors: Reset and a snapshot where the client's position is no good, changes, Synced, changes,
heartbeats."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.convert import time_to_proto
from knitter_common.errors import Unavailable
from knitter_manager.core import Core
from knitter_manager.feed import changes_of, snapshot_of
from knitter_manager.role import shutting_down
from knitter_manager.store.protocol import Commit, Compacted, StoreDown

_CHUNK = 500  # changes in one message
_BYTES = 1024 * 1024  # about, in one message: a change has seldom more than some hundreds
_GATHER = 0.025  # seconds that a change waits for others to go with, and until whoever asked for it has its answer
_BEHIND = 2.0  # seconds that a client which has seen more is kept waiting


class Subscription:
    """One call of Changes, until this manager ends: then Unavailable(SHUTTING_DOWN). `heartbeat` is in seconds.

    A client is synced once it has all that was there when its call, or its snapshot, was through; what comes then is news.
    """

    def __init__(self, core: Core, request: pb.ChangesRequest, heartbeat: float) -> None:
        self._core, self._cluster, self._feed, self._heartbeat = core, core.cluster, core.feed, heartbeat
        self._epoch, self._position = request.epoch, request.after_revision
        self._synced = False
        self._goal = 0  # the revision up to which a client that is not synced must be told

    async def run(self) -> AsyncIterator[pb.ChangesResponse]:
        """The messages of the feed."""
        await self._catch_up()
        self._goal = self._cluster.revision
        while True:
            if self._synced and self._position < self._cluster.revision:
                await asyncio.sleep(_GATHER)
            if not self._position or self._epoch != self._cluster.epoch:
                for response in self._reset():
                    yield response
                self._goal = self._cluster.revision
            if self._core.role.ending.is_set():
                raise shutting_down()
            commits = [] if self._core.standing.applying else self._feed.behind(self._position)
            if commits is None:
                try:
                    async with aclosing(self._logged()) as logged:
                        async for response in logged:
                            yield response
                except (Compacted, StoreDown):
                    self._position = 0
            elif commits:
                for response in _batches(commits):
                    yield response
                self._position = commits[-1].revision
                if not self._synced and self._position >= self._goal:
                    yield self._all_told()
            elif not self._synced:
                yield self._all_told()
            elif not await self._feed.news(self._heartbeat):
                now = time_to_proto(time.time_ns())
                yield pb.ChangesResponse(heartbeat=pb.FeedHeartbeat(time=now, revision=self._position))

    async def _catch_up(self) -> None:
        """A client that has seen more than this manager waits for it; where nothing more comes, the store has gone back.

        Raises Unavailable(REPLICA_BEHIND) where only the writer can tell.
        """
        end = time.monotonic() + _BEHIND
        while self._epoch == self._cluster.epoch and self._position > self._cluster.revision:
            if self._core.role.writing.is_set():
                await self._core.recovery.shown(self._epoch, self._position)
            elif time.monotonic() > end:
                said = f"this manager is at revision {self._cluster.revision}, the client has seen {self._position}"
                raise Unavailable("REPLICA_BEHIND", said)
            if self._epoch == self._cluster.epoch and self._position > self._cluster.revision:
                await self._feed.news(0.1)

    def _all_told(self) -> pb.ChangesResponse:
        self._synced = True
        return pb.ChangesResponse(synced=pb.FeedSynced(epoch=self._epoch, revision=self._position))

    def _reset(self) -> Iterator[pb.ChangesResponse]:
        self._epoch, self._position, self._synced = self._cluster.epoch, self._cluster.revision, False
        yield pb.ChangesResponse(reset=pb.FeedReset(epoch=self._epoch))
        yield from _messages([change] for change in snapshot_of(self._cluster))

    async def _logged(self) -> AsyncGenerator[pb.ChangesResponse, None]:
        """What the ring does not hold any more, from the store's log."""
        async with aclosing(self._feed.log_since(self._position)) as log:  # type: ignore[type-var]
            async for part in log:
                if self._epoch != self._cluster.epoch or self._core.standing.applying:
                    return
                for response in _batches(part):
                    yield response
                self._position = part[-1].revision


def _batches(commits: Sequence[Commit]) -> Iterator[pb.ChangesResponse]:
    """A commit is never split, so that a client can resume after its revision."""
    return _messages([list(changes_of(commit)) for commit in commits])


def _messages(steps: Iterable[Sequence[types.Change]]) -> Iterator[pb.ChangesResponse]:
    """As few messages as hold them; a step is never split."""
    changes: list[types.Change] = []
    size = 0
    for step in steps:
        weight = sum(change.ByteSize() for change in step)
        if changes and (size + weight > _BYTES or len(changes) + len(step) > _CHUNK):
            yield pb.ChangesResponse(changes=pb.ChangeBatch(changes=changes))
            changes, size = [], 0
        changes += step
        size += weight
    if changes:
        yield pb.ChangesResponse(changes=pb.ChangeBatch(changes=changes))
