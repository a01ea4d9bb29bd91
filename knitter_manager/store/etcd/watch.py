"""Watching etcd: what comes in order, without gaps and repeats, whichever member tells it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import groupby

import grpc

from knitter_etcd import kv_pb2, rpc_pb2
from knitter_manager.store.etcd.members import REQUIRE_LEADER, Member, Members, down
from knitter_manager.store.etcd.txn import Layout, prefix_end
from knitter_manager.store.protocol import Commit, Compacted, StoreDown, WentBack


async def watch(members: Members, create: rpc_pb2.WatchCreateRequest) -> AsyncGenerator[rpc_pb2.WatchResponse, None]:
    """The responses to one watch; when its member fails it goes on at another one after the last revision told.

    A member in the minority, or one that does not answer pings, counts as failed. Raises StoreDown when none answers in time, and
    WentBack when the cluster is before what was told already.
    """
    failing_since: float | None = None
    pause = 0.02
    while True:
        member = await members.ready(members.timeout)
        call = member.watch.Watch(metadata=REQUIRE_LEADER)
        failure: Exception | None = None
        try:
            await call.write(rpc_pb2.WatchRequest(create_request=create))
            while (response := await call.read()) is not grpc.aio.EOF:
                if response.canceled and not response.compact_revision:
                    failure = StoreDown(f"etcd {member.endpoint} ended the watch: {response.cancel_reason}")
                    break
                failing_since, pause = None, 0.02
                if response.created and response.header.revision < create.start_revision - 1:
                    await _must_have_reached(members, create.key, create.start_revision - 1)  # or that member lags
                yield response
                if response.events:
                    create.start_revision = response.events[-1].kv.mod_revision + 1
        except grpc.aio.AioRpcError as error:
            failure = down(error, member)
        finally:
            call.cancel()
        members.leave(member)
        failing_since = failing_since or time.monotonic()
        if time.monotonic() - failing_since > members.timeout:
            raise failure or StoreDown(f"etcd {member.endpoint} ended the watch")
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.5)


async def changes(members: Members, layout: Layout, after: int) -> AsyncGenerator[Sequence[Commit], None]:
    """Every commit after that revision. Raises Compacted, StoreDown."""
    start = after if await _compacted(members, layout.identity, after) else after + 1
    create = rpc_pb2.WatchCreateRequest(key=layout.data, range_end=prefix_end(layout.data), start_revision=max(start, 1))
    async with contextlib.aclosing(watch(members, create)) as responses:
        async for response in responses:
            if response.canceled:
                raise Compacted(response.compact_revision)
            if response.events:
                yield [_commit(layout, revision, events) for revision, events in groupby(response.events, _revision)]


async def _must_have_reached(members: Members, key: bytes, revision: int) -> None:
    """Raises WentBack unless the cluster, not only the member that is asked, has come that far."""
    await _compacted(members, key, revision)


async def _compacted(members: Members, key: bytes, after: int) -> bool:
    """The state at that revision is not kept. Raises WentBack when there is no such revision yet.

    A watch that starts at the compacted revision itself is accepted, though that revision's deletes may be gone; so the first
    revision to resume after is the compacted one, and whether `after` is older only a read at it can tell.
    """
    if after <= 0:
        return False
    request = rpc_pb2.RangeRequest(key=key, revision=after, count_only=True)

    async def probe(member: Member, seconds: float) -> bool:
        try:
            await member.kv.Range(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
                raise
            if "compacted" in (error.details() or ""):
                return True
            newest = await member.kv.Range(rpc_pb2.RangeRequest(key=key, count_only=True), timeout=seconds)
            if newest.header.revision < after:  # the answer is of a quorum, so no other member has come further
                raise WentBack(newest.header.revision, after) from error
        return False

    return await members.read(probe)


def _revision(event: kv_pb2.Event) -> int:
    return event.kv.mod_revision


def _commit(layout: Layout, revision: int, events: Iterable[kv_pb2.Event]) -> Commit:
    puts: dict[str, bytes] = {}
    deletes: list[str] = []
    cut = len(layout.data)
    for event in events:
        key = event.kv.key[cut:].decode()
        if event.type == kv_pb2.Event.DELETE:
            deletes.append(key)
        else:
            puts[key] = event.kv.value
    return Commit(revision, puts, tuple(deletes))
