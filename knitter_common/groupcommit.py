"""Group commit: one thread carries out, in one go, whatever has gathered while it was busy with the batch before.

The engine knows nothing of what an operation is. `apply` gets a batch and returns one outcome per operation, in order: a value, or
the exception that this operation alone ends with. If `apply` itself raises, every operation of the batch ends with that.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from knitter_common.steps import Step

PATIENCE = 1.0  # seconds that a deferred operation waits for others to go with

Operation = TypeVar("Operation")
Outcome = TypeVar("Outcome")


class _Waiting(NamedTuple, Generic[Operation, Outcome]):
    operation: Operation
    future: "asyncio.Future[Outcome] | None" = None
    settle: "Callable[[Outcome | BaseException], None] | None" = None


class GroupCommit(Generic[Operation, Outcome]):
    """Belongs to the event loop it is made in. After `close`, `submit` and `defer` raise RuntimeError."""

    def __init__(self, apply: Callable[[Sequence[Operation]], Sequence[Outcome | BaseException]], name: str) -> None:
        self._apply = apply
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[list[_Waiting[Operation, Outcome]] | None] = SimpleQueue()
        self._deferred: list[_Waiting[Operation, Outcome]] = []
        self._late: asyncio.TimerHandle | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, operation: Operation, settle: "Callable[[Outcome | BaseException], None] | None" = None) -> Step[Outcome]:
        """Hands an operation over; the step ends when its batch has ended. Cancelling it does not undo the operation.

        `settle` is called with the outcome before the step ends, whether or not somebody still waits for that.
        """
        self._check_open()
        future: Step[Outcome] = Step()
        self._send(_Waiting(operation, future, settle))
        return future

    def defer(self, operation: Operation) -> None:
        """Hands over an operation that nobody waits for: it goes with the next batch, after PATIENCE seconds, or with `close`."""
        self._check_open()
        self._deferred.append(_Waiting(operation))
        if self._late is None:
            self._late = self._loop.call_later(PATIENCE, self._send)

    async def close(self) -> None:
        """Carries out what is waiting, and ends the thread."""
        if not self._closed:
            self._closed = True
            self._send()
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the group commit is closed")

    def _send(self, *waiting: _Waiting[Operation, Outcome]) -> None:
        """Hands over to the thread: what was deferred comes first."""
        if self._late is not None:
            self._late.cancel()
            self._late = None
        together = [*self._deferred, *waiting]
        if together:
            self._deferred.clear()
            self._queue.put(together)

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            ending = False
            try:
                while not ending:
                    more = self._queue.get_nowait()
                    ending = more is None
                    batch += more or ()
            except Empty:
                pass  # that is all there is for now
            self._carry_out(batch)
            if ending:
                return

    def _carry_out(self, batch: "list[_Waiting[Operation, Outcome]]") -> None:
        outcomes: Sequence[Outcome | BaseException]
        try:
            outcomes = self._apply([waiting.operation for waiting in batch])
        except BaseException as error:  # noqa: BLE001 - told to everybody who waits
            outcomes = [error] * len(batch)
        self._loop.call_soon_threadsafe(_tell, batch, outcomes)


def _tell(batch: "list[_Waiting[Operation, Outcome]]", outcomes: "Sequence[Outcome | BaseException]") -> None:
    for (_, future, settle), outcome in zip(batch, outcomes, strict=True):
        if settle is not None:
            settle(outcome)
        if future is None or future.done():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
