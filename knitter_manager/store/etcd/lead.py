"""Being the writer on etcd: the key `writer` under a lease of a few seconds.

The lease is kept alive by a task of its own. When the loop is blocked, the process stopped or the cluster away for longer than the
lease, we stop being the writer by our own clock, not later than etcd lets another one begin; and whatever a delayed packet may
still carry fails on the fence: each transaction compares the revision at which our key was written last. It is written again, which
moves the fence, where a commit was not answered and must not happen after all once the state has been read.
"""

import asyncio
import contextlib
import time

import grpc
import structlog

from knitter_etcd import kv_pb2, rpc_pb2
from knitter_manager.store.etcd.members import REQUIRE_LEADER, Member, Members
from knitter_manager.store.etcd.txn import Layout
from knitter_manager.store.etcd.watch import watch
from knitter_manager.store.protocol import StoreDown, WentBack

_TIMES = 6  # renewals in the span of the lease

log = structlog.get_logger()


class Lead:
    """The time of one process as the writer. `place` is the create revision of its key, `fence` the revision at which it was
    written last; `lost` is set when it ends."""

    def __init__(self, members: Members, layout: Layout, name: str, lease: int, ttl: float, began: float, place: int) -> None:
        self._members, self._layout, self._name, self._lease, self._ttl = members, layout, name, lease, ttl
        self._until = began + ttl
        self.place = self.fence = place
        self.lost = asyncio.Event()
        self._task = asyncio.ensure_future(self._keep())

    @property
    def holds(self) -> bool:
        """We are the writer, as far as our own clock can tell."""
        return not self.lost.is_set() and time.monotonic() < self._until

    async def _keep(self) -> None:
        """Renews the lease at whichever member answers, until it is gone; often, so that most of it is left for an election."""
        why = "a defect ended the renewals"
        try:
            while (left := self._until - time.monotonic()) > 0:
                try:
                    await self._renew(await self._members.ready(left))
                except StoreDown as error:
                    log.warning("the writer's lease could not be renewed", error=str(error))
                    await asyncio.sleep(min(self._ttl / 20, max(self._until - time.monotonic(), 0)))
            why = "the lease ran out while the cluster did not answer"
        except _Gone:
            why = "the lease is gone"
        finally:
            self.lose(why)

    async def _renew(self, member: Member) -> None:
        """Renews over one stream until that fails. Raises _Gone, StoreDown."""
        stream = member.lease.LeaseKeepAlive(metadata=REQUIRE_LEADER)
        try:
            while True:
                asked = time.monotonic()
                async with asyncio.timeout(max(self._ttl / _TIMES, 0.3)):
                    await stream.write(rpc_pb2.LeaseKeepAliveRequest(ID=self._lease))
                    answer = await stream.read()
                if answer is grpc.aio.EOF:
                    raise TimeoutError("it ended the stream")
                if answer.TTL <= 0:
                    raise _Gone
                self._until = asked + answer.TTL
                await asyncio.sleep(answer.TTL / _TIMES)
        except (grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError) as error:  # the last: it ended between two renewals
            self._members.leave(member)
            raise StoreDown(f"etcd {member.endpoint} did not renew the lease: {error!r}") from error
        finally:
            stream.cancel()

    async def refence(self) -> None:
        """Nothing that was sent before can happen any more once this returns. Raises StoreDown."""
        request = rpc_pb2.TxnRequest()
        compare = rpc_pb2.Compare(target=rpc_pb2.Compare.CREATE, key=self._layout.writer, create_revision=self.place)
        request.compare.append(compare)
        _name_in(request, self._layout, self._name, self._lease)
        response = await self._members.read(lambda member, time_left: member.kv.Txn(request, timeout=time_left))
        if response.succeeded:
            self.fence = max(self.fence, response.header.revision)
        else:
            self.lose("another one writes")

    def lose(self, why: str) -> None:
        """Stops being the writer."""
        if not self.lost.is_set():
            log.error("not the writer any more", why=why)
            self.lost.set()
            self._task.cancel()

    async def end(self) -> None:
        """Stops being the writer and gives the key up at once, if the cluster can be told within a second."""
        self.lost.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await revoke(self._members, self._lease)


async def acquire(members: Members, layout: Layout, name: str, ttl: float) -> Lead:
    """Waits until nobody else is the writer, and becomes it. Raises StoreDown when the cluster does not answer in time."""
    while True:
        began = time.monotonic()
        grant = rpc_pb2.LeaseGrantRequest(TTL=max(round(ttl), 1))
        lease = await members.read(lambda member, time_left: member.lease.LeaseGrant(grant, timeout=time_left))  # noqa: B023
        lead: Lead | None = None
        try:
            response = await members.write(
                lambda member, time_left: member.kv.Txn(_claim(layout, name, lease.ID), timeout=time_left)  # noqa: B023
            )
            if response.succeeded:
                lead = Lead(members, layout, name, lease.ID, float(lease.TTL), began, response.header.revision)
                return lead
        finally:
            if lead is None:
                await revoke(members, lease.ID)
        log.info("waiting to be the writer", writer=response.responses[0].response_range.kvs[0].value.decode())
        await _until_free(members, layout, response.header.revision + 1)


async def holder(members: Members, layout: Layout) -> str:
    """The writer's name, "" for nobody."""
    request = rpc_pb2.RangeRequest(key=layout.writer)
    response = await members.read(lambda member, time_left: member.kv.Range(request, timeout=time_left))
    return response.kvs[0].value.decode() if response.kvs else ""


async def revoke(members: Members, lease: int) -> None:
    """Ends a lease, if the cluster can be told within a second; else it runs out by itself."""
    request = rpc_pb2.LeaseRevokeRequest(ID=lease)
    with contextlib.suppress(grpc.aio.AioRpcError, StoreDown):
        await (await members.ready(1.0)).lease.LeaseRevoke(request, timeout=1.0)


def _claim(layout: Layout, name: str, lease: int) -> rpc_pb2.TxnRequest:
    request = rpc_pb2.TxnRequest()
    request.compare.add(result=rpc_pb2.Compare.EQUAL, target=rpc_pb2.Compare.CREATE, key=layout.writer, create_revision=0)
    _name_in(request, layout, name, lease)
    request.failure.add().request_range.key = layout.writer
    return request


def _name_in(request: rpc_pb2.TxnRequest, layout: Layout, name: str, lease: int) -> None:
    put = request.success.add().request_put
    put.key, put.value, put.lease = layout.writer, name.encode(), lease


async def _until_free(members: Members, layout: Layout, since: int) -> None:
    """Until the writer's key is deleted at or after that revision."""
    create = rpc_pb2.WatchCreateRequest(key=layout.writer, start_revision=since)
    async with contextlib.aclosing(watch(members, create)) as stream:
        with contextlib.suppress(WentBack):  # look again
            async for response in stream:
                if response.canceled or any(event.type == kv_pb2.Event.DELETE for event in response.events):
                    return  # canceled: compacted meanwhile, so look again


class _Gone(Exception):
    """etcd does not know the lease."""
