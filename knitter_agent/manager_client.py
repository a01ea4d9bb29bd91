"""The node's line to the manager: one bidirectional stream of allocations and releases, kept open, found again when it breaks.

What it promises to its caller:
- `allocate` ends with the set or with the manager's refusal. What passes (no manager, no writer, no store, a recovery) is waited
  for, and told when the time is over. An allocation whose caller gave up meanwhile is given back as soon as its outcome is known.
- `release` ends when the manager has acknowledged it, however long that takes; cancelling it leaves the set as it may be.
- Operations that were unanswered when a stream broke are sent again on the next; all of them may arrive twice.
- At every (re)connect the node tells its journal (Reconcile) before anything else.
- A manager that asks on the stream what the journal holds is told; nothing follows from it here.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import grpc
import structlog

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common import convert
from knitter_common.errors import KnitterError, Unavailable, from_rpc_error, from_status
from knitter_common.managers import PASSING, SILENCE, Backoff, Managers, silent
from knitter_common.model import Allocation, Port, Return

_ELSEWHERE = frozenset({"NOT_WRITER", "NO_WRITER"})  # this manager cannot, another can

log = structlog.get_logger()

CHUNK = 200  # sets in one message

Reconcile = Callable[[Managers], Awaitable[None]]
InUse = Callable[[], Sequence[types.PortSet]]


@dataclass(frozen=True, slots=True)
class Granted:
    """The ports of a set that the manager gave; `encoded` is the whole as a serialized message."""

    ports: tuple[Port, ...]
    encoded: bytes


@dataclass(slots=True)
class _Operation:
    message: pb.AllocationOperation
    outcome: "asyncio.Future[pb.AllocationOutcome]"
    sent: bool = False
    abandoned: bool = False


class ManagerClient:
    """Use from one event loop. `reconcile` is called at each connect, before the stream; its KnitterError ends the try. `node` is
    this node's name and `in_use` what its journal holds; without a name the manager does not ask."""

    def __init__(
        self,
        managers: Managers,
        reconcile: Reconcile,
        backoff: Backoff | None = None,
        node: str = "",
        in_use: InUse = lambda: (),
    ) -> None:
        self._managers = managers
        self._reconcile = reconcile
        self._node, self._in_use = node, in_use
        self._answers: list[pb.JournalAnswer] = []
        self._backoff = backoff or Backoff(most=2.0)
        self._connected = asyncio.Event()
        self._last_id = 0
        self._unanswered: dict[int, _Operation] = {}
        self._outbox: list[_Operation] = []
        self._work = asyncio.Event()
        self._sent = asyncio.Event()  # operations may be under way
        self._answered = 0
        self._returning: dict[str, asyncio.Task[None]] = {}
        self._last_error: KnitterError = Unavailable("MANAGER_UNAVAILABLE", "no manager has answered yet")
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """The stream is open."""
        return self._connected.is_set()

    def start(self) -> None:
        """Begins to connect; returns at once."""
        self._task = asyncio.create_task(self._stay_connected(), name="manager")

    async def close(self) -> None:
        """Ends the stream. Whoever still waits gets MANAGER_UNAVAILABLE."""
        tasks = [task for task in (self._task, *self._returning.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._connected.clear()
        for operation in self._unanswered.values():
            if not operation.outcome.done():
                operation.outcome.set_exception(Unavailable("SHUTTING_DOWN", "the agent is shutting down"))
                operation.outcome.exception()  # retrieved: whoever waited may be gone
        self._unanswered.clear()
        await self._managers.close()

    async def allocate(self, allocation: Allocation, patience: float) -> Granted:
        """The set for an owner. Waits at most `patience` seconds for a manager that takes it. Raises KnitterError."""
        told: Unavailable | None = None
        backoff = Backoff(first=0.05, most=1.0)
        try:
            async with asyncio.timeout(patience):
                while True:
                    outcome = await self._allocate(allocation)
                    try:
                        message = _checked(outcome).port_set
                        return Granted(tuple(map(convert.port_from_proto, message.ports)), message.SerializeToString())
                    except Unavailable as error:
                        if error.reason not in PASSING:
                            raise
                        told = error
                    await backoff.wait()
        except TimeoutError:
            if told is not None and self.connected:
                raise told from None
            trouble = "the manager did not answer in time" if self.connected else "no manager is connected"
            raise Unavailable("MANAGER_UNAVAILABLE", f"{trouble}: {self._last_error.message}") from self._last_error

    async def _allocate(self, allocation: Allocation) -> pb.AllocationOutcome:
        if (giving_back := self._returning.get(allocation.owner.key)) is not None:
            await asyncio.shield(giving_back)
        await self._connected.wait()
        operation = self._enqueue(allocate=convert.allocation_to_proto(allocation))
        try:
            return await asyncio.shield(operation.outcome)
        except asyncio.CancelledError:
            self._abandon(operation, allocation)
            raise

    async def release(self, back: Return) -> None:
        """Gives a set up; returns when the manager has acknowledged it. Raises KnitterError when the manager refuses for good."""
        message, backoff = convert.give_back_to_proto(back), Backoff(most=5.0)
        while True:
            try:
                _checked(await asyncio.shield(self._enqueue(release=message).outcome))
                return
            except Unavailable as error:
                if error.reason not in PASSING or error.reason == "SHUTTING_DOWN":
                    raise
                log.debug("the manager does not take a set back now", owner=back.owner.key, reason=error.reason)
                await backoff.wait()

    def _enqueue(self, allocate: pb.Allocation | None = None, release: pb.Return | None = None) -> _Operation:
        self._last_id += 1
        message = pb.AllocationOperation(id=self._last_id, allocate=allocate, release=release)
        operation = _Operation(message, asyncio.get_running_loop().create_future())
        self._unanswered[self._last_id] = operation
        self._outbox.append(operation)
        self._work.set()
        return operation

    def _abandon(self, operation: _Operation, allocation: Allocation) -> None:
        """The caller is gone. What was not sent is taken back; what was, is given back once its outcome is known."""
        if not operation.sent:
            self._unanswered.pop(operation.message.id, None)
            self._outbox = [waiting for waiting in self._outbox if waiting is not operation]
            return
        operation.abandoned = True
        key = allocation.owner.key
        task = asyncio.create_task(self._give_back(operation, allocation), name=f"give back {key}")
        self._returning[key] = task
        task.add_done_callback(lambda _: self._returning.pop(key, None))

    async def _give_back(self, operation: _Operation, allocation: Allocation) -> None:
        try:
            outcome = await operation.outcome
            if outcome.WhichOneof("result") != "port_set":
                return
        except Unavailable:
            log.debug("the outcome of an allocation is not known", owner=allocation.owner.key)  # giving nothing back is no error
        try:
            container_id = allocation.binding.container_id if allocation.binding else ""
            await self.release(Return(allocation.owner, container_id=container_id, request_id=allocation.request_id))
        except KnitterError as error:
            log.warning("a set that nobody waits for any more was not given back", owner=allocation.owner.key, error=error.message)

    async def _stay_connected(self) -> None:
        while True:
            asked = self._managers.current
            try:
                await self._reconcile(self._managers)
                asked = self._managers.current
                await self._serve_stream()
                error: KnitterError = Unavailable("MANAGER_UNAVAILABLE", f"the manager {asked} ended the stream")
            except grpc.aio.AioRpcError as failure:
                error = from_rpc_error(failure)
            except KnitterError as failure:
                error = failure
            if self.connected:
                log.warning("the manager's stream broke", manager=asked, reason=error.reason, error=error.message)
            self._connected.clear()
            self._last_error = error
            self._managers.learn(error, asked)
            self._resend_all()
            await self._backoff.wait()

    def _resend_all(self) -> None:
        """After a stream: what was sent may or may not have happened; it goes out again, unless nobody waits for it any more."""
        sent = [operation for operation in self._unanswered.values() if operation.sent]
        for operation in sent:
            if operation.abandoned:
                del self._unanswered[operation.message.id]
                operation.outcome.set_exception(Unavailable("MANAGER_UNAVAILABLE", "the stream broke"))
            else:
                self._outbox.append(operation)

    async def _serve_stream(self) -> None:
        asked = self._managers.current
        call = self._managers.stub().StreamAllocations()
        self._answers.clear()  # they were for another stream
        writer = asyncio.create_task(self._write(call), name="manager writer")
        reader = asyncio.create_task(self._read(call, asked), name="manager reader")
        watcher = asyncio.create_task(self._leave_silent(asked), name="manager watcher")
        try:
            await asyncio.wait((reader, watcher), return_when=asyncio.FIRST_COMPLETED)
            (reader if reader.done() else watcher).result()
        finally:
            for task in (writer, reader, watcher):
                task.cancel()
            await asyncio.gather(writer, reader, watcher, return_exceptions=True)
            call.cancel()

    async def _read(
        self, call: "grpc.aio.StreamStreamCall[pb.StreamAllocationsRequest, pb.StreamAllocationsResponse]", asked: str
    ) -> None:
        await call.wait_for_connection()
        self._connected.set()
        self._backoff.reset()
        log.info("connected to the manager", manager=asked)
        while isinstance(response := await call.read(), pb.StreamAllocationsResponse):
            self._settle(response.outcomes)
            if response.HasField("journal"):
                self._answer(response.journal)

    def _answer(self, question: pb.JournalQuestion) -> None:
        """The journal in as many messages as it takes."""
        in_use = self._in_use()
        for at in range(0, len(in_use) or 1, CHUNK):
            part = in_use[at : at + CHUNK]
            self._answers.append(pb.JournalAnswer(id=question.id, in_use=part, more=at + CHUNK < len(in_use)))
        self._work.set()

    async def _leave_silent(self, asked: str) -> None:
        """Raises Unavailable(NOT_WRITER) when the manager leaves operations unanswered and another one writes."""
        while True:
            await self._sent.wait()
            before = self._answered
            await asyncio.sleep(SILENCE)
            if not any(operation.sent for operation in self._unanswered.values()):
                self._sent.clear()
            elif before == self._answered and (writer := await self._managers.elsewhere(asked)):
                raise silent(asked, writer)

    async def _write(self, call: "grpc.aio.StreamStreamCall[pb.StreamAllocationsRequest, pb.StreamAllocationsResponse]") -> None:
        """Says who speaks, then sends what has gathered, as one message each time."""
        if self._node:
            await self._send(call, pb.StreamAllocationsRequest(node=self._node))
        while True:
            while not self._outbox and not self._answers:
                self._work.clear()
                await self._work.wait()
            batch, self._outbox = self._outbox, []
            for operation in batch:
                operation.sent = True
            if batch:
                self._sent.set()
            answer = self._answers.pop(0) if self._answers else None
            operations = [operation.message for operation in batch]
            await self._send(call, pb.StreamAllocationsRequest(operations=operations, journal=answer))

    async def _send(
        self,
        call: "grpc.aio.StreamStreamCall[pb.StreamAllocationsRequest, pb.StreamAllocationsResponse]",
        message: pb.StreamAllocationsRequest,
    ) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the reader tells why the stream broke
            await call.write(message)

    def _settle(self, outcomes: Iterable[pb.AllocationOutcome]) -> None:
        for outcome in outcomes:
            if outcome.WhichOneof("result") == "error" and (error := from_status(outcome.error)).reason in _ELSEWHERE:
                raise error  # nothing was done; what is unanswered goes to the manager that writes
            self._answered += 1
            operation = self._unanswered.pop(outcome.id, None)
            if operation is not None and not operation.outcome.done():
                operation.outcome.set_result(outcome)


def _checked(outcome: pb.AllocationOutcome) -> pb.AllocationOutcome:
    if outcome.WhichOneof("result") == "error":
        raise from_status(outcome.error)
    return outcome
