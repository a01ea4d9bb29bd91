"""StreamAllocations: many operations over one stream, each answered when it is durable, outcomes gathered into as few messages
as come.

A node that tells its name is asked on it for its journal, when somebody compares (check/journals.py).

Operations start in the order they arrive and never wait for one another. What is done while a message is being sent goes out
with the next one. A client that does not read its outcomes is not read from either once MOST_OPEN operations are open.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

import structlog
from google.rpc.status_pb2 import Status

from knitter.v1 import manager_pb2 as pb
from knitter_common.convert import give_back_from_proto
from knitter_common.errors import Internal, Invalid, KnitterError, to_status
from knitter_common.serve.logs import tells
from knitter_manager.allocation.jobs import Answer
from knitter_manager.allocation.sets import PortSets
from knitter_manager.check.journals import Journals, Line
from knitter_manager.service import asked

MOST_OPEN = 4096  # operations of one stream that are not answered, or whose outcome is not sent
MOST_OUTCOMES = 256  # in one message: as many errors are below the size of a message
MOST_BYTES = 2 * 1024 * 1024  # of the sets in one message

log = structlog.get_logger()


class _Outcome(NamedTuple):
    """What became of an operation: its set as it is kept, or it is released, or the error."""

    id: int
    record: bytes = b""
    released: bool = False
    error: Status | None = None


class Stream:
    """One call of StreamAllocations. `parting` waits until the stream must end, and says why: then what is open is answered, and
    nothing more is read."""

    def __init__(self, sets: PortSets, parting: Callable[[], Awaitable[KnitterError]], journals: Journals) -> None:
        self._sets, self._parting, self._journals = sets, parting, journals
        self._line: Line | None = None
        self._questions: list[pb.JournalQuestion] = []
        self._outcomes: list[_Outcome] = []
        self._open = 0
        self._ended = False
        self._failed: BaseException | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self, requests: AsyncIterator[pb.StreamAllocationsRequest]) -> AsyncIterator[pb.StreamAllocationsResponse]:
        """Until the client has ended its side and all is answered."""
        reader = asyncio.ensure_future(self._read(requests))
        watcher = asyncio.ensure_future(self._watch(reader))
        try:
            while True:
                while self._questions or self._outcomes:
                    if self._questions:
                        yield pb.StreamAllocationsResponse(journal=self._questions.pop(0))
                        continue
                    count = self._that_fit()
                    batch, self._outcomes = self._outcomes[:count], self._outcomes[count:]
                    yield _message(batch)
                    self._open -= len(batch)
                    if self._open < MOST_OPEN:
                        self._room.set()
                if self._ended and not self._open:
                    break
                self._news.clear()
                await self._news.wait()
        finally:
            reader.cancel()
            watcher.cancel()
            if self._line is not None:
                self._journals.closed(self._line)
        if self._failed is not None:
            raise self._failed

    def _that_fit(self) -> int:
        """How many outcomes the next message takes."""
        count = weight = 0
        for outcome in self._outcomes[:MOST_OUTCOMES]:
            weight += len(outcome.record)
            if count and weight > MOST_BYTES:
                break
            count += 1
        return count

    async def _watch(self, reader: "asyncio.Task[None]") -> None:
        self._failed = await self._parting()
        reader.cancel()

    async def _read(self, requests: AsyncIterator[pb.StreamAllocationsRequest]) -> None:
        try:
            async for request in requests:
                if request.node and self._line is None:
                    self._line = self._journals.opened(asked.node(request.node), self._ask)
                if self._line is not None and request.HasField("journal"):
                    self._line.take(request.journal)
                for operation in request.operations:
                    self._start(operation)
                while self._open >= MOST_OPEN:
                    self._room.clear()
                    await self._room.wait()
        except Exception as error:  # noqa: BLE001 - raised by `run`
            self._failed = error
        finally:
            self._ended = True
            self._news.set()

    def _ask(self, question: pb.JournalQuestion) -> None:
        self._questions.append(question)
        self._news.set()

    def _start(self, operation: pb.AllocationOperation) -> None:
        self._open += 1
        kind = operation.WhichOneof("operation")
        try:
            match kind:
                case "allocate":
                    future = self._sets.allocate(asked.allocation(operation.allocate))
                case "release":
                    future = self._sets.release(give_back_from_proto(operation.release))
                case "bind":
                    future = self._sets.bind(asked.bind(operation.bind))
                case _:
                    said = "operation: is missing; set one of allocate, bind and release"
                    raise Invalid("FIELD_INVALID", said, field="operation")
        except KnitterError as error:
            _log(operation, error)
            self._tell(_Outcome(operation.id, error=to_status(error)))
        else:
            future.add_done_callback(partial(self._done, operation, kind == "release"))

    def _done(self, operation: pb.AllocationOperation, released: bool, future: "asyncio.Future[Answer]") -> None:
        error = future.exception()
        _log(operation, error)
        if error is not None:
            self._tell(_Outcome(operation.id, error=_status(error)))
        elif released:
            self._tell(_Outcome(operation.id, released=True))
        else:
            self._tell(_Outcome(operation.id, future.result() or b""))

    def _tell(self, outcome: _Outcome) -> None:
        self._outcomes.append(outcome)
        self._news.set()


def _message(outcomes: Sequence[_Outcome]) -> pb.StreamAllocationsResponse:
    """Written in place: an outcome that is made and then put into a message is copied."""
    message = pb.StreamAllocationsResponse()
    for number, record, released, error in outcomes:
        outcome = message.outcomes.add()
        outcome.id = number
        if error is not None:
            outcome.error.CopyFrom(error)
        elif released:
            outcome.released.SetInParent()
        else:
            outcome.port_set.MergeFromString(record)
    return message


def _log(operation: pb.AllocationOperation, error: BaseException | None) -> None:
    """The outcome under the request id that the node gave, which is that of the plugin's call: refusals are the node's to log, so
    debug will do; a defect is an error."""
    defect = error is not None and not isinstance(error, KnitterError)
    if not defect and not tells("debug"):
        return
    asked = operation.WhichOneof("operation") or ""
    inner = getattr(operation, asked) if asked else None
    request = {} if inner is None or not inner.request_id else {"request_id": inner.request_id}
    owner = "" if inner is None else str(inner.owner).replace("\n", " ").strip()
    if defect:
        log.error("an operation failed", operation=asked, owner=owner, exc_info=error, **request)
    elif isinstance(error, KnitterError):
        log.debug("refused", operation=asked, owner=owner, reason=error.reason, error=error.message, **request)
    else:
        log.debug("done", operation=asked, owner=owner, **request)


def _status(error: BaseException) -> Status:
    return to_status(error if isinstance(error, KnitterError) else Internal("INTERNAL", "a defect; the log has it"))
