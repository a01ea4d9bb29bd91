"""The feed of changes for monitors: Reset and a snapshot where the client's position is no good, changes, Synced, changes,
heartbeats."""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.convert import time_to_proto
from knitter_manager.feed import Feed, changes_of, snapshot_of
from knitter_manager.role import Role, shutting_down
from knitter_manager.state import Cluster
from knitter_manager.store.protocol import Commit, Compacted, StoreDown

_CHUNK = 500  # objects of a snapshot in one message
_COMMITS = 200  # commits in one message; a commit is never split, so that a client can resume after its revision


async def feed_changes(
    cluster: Cluster, feed: Feed, role: Role, request: pb.ChangesRequest, heartbeat: float
) -> AsyncIterator[pb.ChangesResponse]:
    """One subscription, until this manager ends: then Unavailable(SHUTTING_DOWN). `heartbeat` is in seconds."""
    position = request.after_revision
    if not position or request.epoch != cluster.epoch or position > cluster.revision:
        yield pb.ChangesResponse(reset=pb.FeedReset(epoch=cluster.epoch))
        position = cluster.revision
        for response in _messages(snapshot_of(cluster)):
            yield response
    synced = False
    while True:
        commits = feed.behind(position)
        if commits is None:
            try:
                async for part in feed.log_since(position):
                    for response in _batches(part):
                        yield response
                    position = part[-1].revision
            except (Compacted, StoreDown):
                yield pb.ChangesResponse(reset=pb.FeedReset(epoch=cluster.epoch))
                position, synced = cluster.revision, False
                for response in _messages(snapshot_of(cluster)):
                    yield response
            continue
        if commits:
            for response in _batches(commits):
                yield response
            position = commits[-1].revision
        elif not synced:
            synced = True
            yield pb.ChangesResponse(synced=pb.FeedSynced(epoch=cluster.epoch, revision=position))
        else:
            await feed.news(heartbeat)
            if role.ending.is_set():
                raise shutting_down()
            if position >= cluster.revision:
                now = time_to_proto(time.time_ns())
                yield pb.ChangesResponse(heartbeat=pb.FeedHeartbeat(time=now, revision=position))


def _batches(commits: Sequence[Commit]) -> Iterator[pb.ChangesResponse]:
    for begin in range(0, len(commits), _COMMITS):
        changes = [change for commit in commits[begin : begin + _COMMITS] for change in changes_of(commit)]
        if changes:
            yield pb.ChangesResponse(changes=pb.ChangeBatch(changes=changes))


def _messages(changes: Iterator[types.Change]) -> Iterator[pb.ChangesResponse]:
    while chunk := list(islice(changes, _CHUNK)):
        yield pb.ChangesResponse(changes=pb.ChangeBatch(changes=chunk))
