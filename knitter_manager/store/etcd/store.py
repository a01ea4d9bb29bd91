"""The Store on etcd, as the rest of the manager sees it. Revisions are etcd's own; keys lie below `<prefix>data/`."""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self, TypeVar

import grpc
import structlog

from knitter_common import failpoints
from knitter_common.errors import Unavailable
from knitter_etcd import rpc_pb2
from knitter_manager.store.etcd import lead, load
from knitter_manager.store.etcd.members import Member, Members, NotDone, Tls
from knitter_manager.store.etcd.txn import MOST, Layout, Refenced, commit_outcome, commit_request, record
from knitter_manager.store.etcd.watch import changes
from knitter_manager.store.protocol import EVERYTHING, Commit, Condition, NotWriter, Record, Snapshot, Span, StoreDown

_IN_FLIGHT = 256  # transactions at once; the time-out of the others begins when they are sent

log = structlog.get_logger()

T = TypeVar("T")


class EtcdStore:
    """A Store (protocol.py) on an etcd cluster. Made by `open`."""

    most_keys = 120  # of the operations that etcd takes the fence is one

    def __init__(self, members: Members, layout: Layout, ttl: float, age: float | None) -> None:
        self._members, self._layout, self._ttl, self._age = members, layout, ttl, age
        self._identity = ""
        self._lead: lead.Lead | None = None
        self._acquiring = asyncio.Lock()
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self._doubt = False  # a commit under the present fence was not answered
        self._fencing = asyncio.Lock()
        self._tasks: set[asyncio.Future[Any]] = set()
        self._open = True

    @classmethod
    async def open(
        cls,
        endpoints: Sequence[str],
        prefix: str,
        *,
        tls: Tls | None = None,
        ttl: float = 3.0,
        patience: float = 5.0,
        age: float | None = 3600.0,
    ) -> Self:
        """Connects. In seconds: `ttl` of the writer's lease, `patience` with one call, `age` of what the writer compacts, if any.

        Raises Unavailable(STORE_UNAVAILABLE) when no member answers, Refused(STORE_UNUSABLE) for a newer schema or a file that
        cannot be read.
        """
        store = cls(Members(endpoints, tls, patience), Layout(prefix), ttl, age)
        try:
            store._identity = await load.identify(store._members, store._layout, secrets.token_hex(8))
        except BaseException as error:
            await store.close()
            if isinstance(error, StoreDown):
                message = f"store: {error}; start etcd, or correct `endpoints` and the TLS files"
                raise Unavailable("STORE_UNAVAILABLE", message, endpoints=store._members.names) from error
            raise
        return store

    async def acquire_writer(self, name: str) -> asyncio.Event:
        """See Store: waits until the key `<prefix>writer` is free. While it is held the name stays as it was."""
        return await self._tracked(self._acquire(name))

    async def _acquire(self, name: str) -> asyncio.Event:
        async with self._acquiring:
            if self._lead is None or not self._lead.holds:
                if self._lead is not None:
                    await self._lead.end()
                self._lead = await lead.acquire(self._members, self._layout, name, self._ttl)
                self._doubt = False
                if self._age is not None:
                    self._keep(self._tidy(self._lead, self._age))
            return self._lead.lost

    async def writer(self) -> str:
        """See Store."""
        return await self._tracked(lead.holder(self._members, self._layout))

    async def load(self, spans: Sequence[Span] = EVERYTHING) -> Snapshot:
        """See Store. Raises StoreDown also when the revision is compacted while the batches are read."""
        return await self._tracked(load.snapshot(self._members, self._layout, self._identity, spans))

    async def get(self, keys: Sequence[str]) -> Mapping[str, Record]:
        """See Store."""
        return await self._tracked(self._get(keys))

    async def _get(self, keys: Sequence[str]) -> dict[str, Record]:
        await self._settle()
        found: dict[str, Record] = {}
        for begin in range(0, len(keys), MOST):
            request = rpc_pb2.TxnRequest()
            for key in keys[begin : begin + MOST]:
                request.success.add().request_range.key = self._layout.data + key.encode()
            response = await self._members.read(lambda member, timeout: member.kv.Txn(request, timeout=timeout))  # noqa: B023
            for answer in response.responses:
                for kv in answer.response_range.kvs:
                    one = record(self._layout, kv)
                    found[one.key] = one
        return found

    async def _settle(self) -> None:
        """What was sent and not answered has happened by now, or never does: a read tells which."""
        async with self._fencing:
            leading = self._lead
            if self._doubt and leading is not None and leading.holds:
                self._doubt = False
                try:
                    await leading.refence()
                except BaseException:
                    self._doubt = True
                    raise

    async def commit(self, conditions: Sequence[Condition], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        """See Store. Commits under way at once are judged in any order. A commit whose caller is cancelled goes on.

        At most 127 conditions (etcd's --max-txn-ops), and the fewer of them the more keys: 4096 with up to 63, 1500 with the 113 of
        the largest port set. Raises ValueError beyond, and for what is no commit.
        """
        if deletes and not puts.keys().isdisjoint(deletes):
            raise ValueError("a key is both put and deleted")
        if not self._open:
            raise StoreDown(self._closed)
        leading = self._lead
        if leading is None or not leading.holds:
            raise NotWriter(await self.writer())
        try:
            request = commit_request(self._layout, leading.fence, conditions, puts, tuple(dict.fromkeys(deletes)))
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"not a commit: {error}") from error
        return await self._tracked(self._send(leading, conditions, request), shielded=True)

    async def _send(self, leading: lead.Lead, conditions: Sequence[Condition], request: rpc_pb2.TxnRequest) -> int:
        while True:
            await failpoints.reach("store.before-commit")
            async with self._slots:
                request.compare[0].mod_revision = fence = leading.fence
                try:
                    response = await self._members.write(lambda member, timeout: member.kv.Txn(request, timeout=timeout))
                except NotDone:
                    raise
                except (StoreDown, asyncio.CancelledError):
                    self._doubt = True
                    raise
            await failpoints.reach("store.after-commit")
            outcome = commit_outcome(self._layout, leading.place, fence, conditions, response)
            if isinstance(outcome, int):
                return outcome
            if isinstance(outcome, Refenced):
                leading.fence = max(leading.fence, outcome.fence)
                continue
            if isinstance(outcome, NotWriter):
                leading.lose("another one writes")
            raise outcome

    async def changes(self, after: int) -> AsyncGenerator[Sequence[Commit], None]:
        """See Store."""
        source = changes(self._members, self._layout, after)
        async with aclosing(source):
            while True:
                try:
                    batch = await self._tracked(anext(source))
                except StopAsyncIteration:
                    return
                yield batch

    async def compact(self, revision: int) -> None:
        """See Store. It compacts the whole cluster's history, of other prefixes too."""
        if self._open and (self._lead is None or not self._lead.holds):
            raise NotWriter(await self.writer())
        await self._tracked(self._compact(revision))

    async def _compact(self, revision: int) -> None:
        head = await self._head()
        request = rpc_pb2.CompactionRequest(revision=min(revision, head))

        async def call(member: Member, seconds: float) -> None:
            try:
                await member.kv.Compact(request, timeout=seconds)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.OUT_OF_RANGE:  # compacted already
                    raise

        if request.revision > 0:
            await self._members.read(call)

    async def _head(self) -> int:
        request = rpc_pb2.RangeRequest(key=self._layout.identity, count_only=True)
        response = await self._members.read(lambda member, timeout: member.kv.Range(request, timeout=timeout))
        return int(response.header.revision)

    async def _tidy(self, leading: lead.Lead, age: float) -> None:
        """While we write: compacts what is older than `age` seconds, a twelfth of that at a time."""
        seen: deque[tuple[float, int]] = deque()
        while not leading.lost.is_set():
            try:
                seen.append((time.monotonic(), await self._head()))
                old = 0
                while seen and seen[0][0] < time.monotonic() - age:
                    old = seen.popleft()[1]
                if old:
                    await self._compact(old)
            except StoreDown as error:
                log.warning("the changes could not be compacted", error=str(error))
            try:
                async with asyncio.timeout(max(age / 12, 1.0)):
                    await leading.lost.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """See Store. Idempotent. Takes at most about a second when the cluster is away."""
        self._open = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._lead is not None:
            await self._lead.end()
            self._lead = None
        await self._members.close()

    @property
    def _closed(self) -> str:
        return f"the store at etcd {self._members.names} is closed"

    def _keep(self, work: Awaitable[T]) -> "asyncio.Future[T]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Future[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may not wait for it any more

    async def _tracked(self, work: Awaitable[T], *, shielded: bool = False) -> T:
        """The result of work that `close` ends with StoreDown. Shielded, it goes on when its caller is cancelled."""
        if not self._open:
            if isinstance(work, Coroutine):
                work.close()
            raise StoreDown(self._closed)
        task = self._keep(work)
        try:
            return await (asyncio.shield(task) if shielded else task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and (caller is None or not caller.cancelling()):
                raise StoreDown(self._closed) from None
            raise
