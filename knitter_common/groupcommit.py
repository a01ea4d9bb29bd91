"""Group commit: one thread carries out, in one go, whatever has gathered while it was busy with the batch before.

The engine knows nothing of what an operation is. `apply` gets a batch and returns one outcome per operation, in order: a value, or
the exception that this operation alone ends with. If `apply` itself raises, every operation of the batch ends with that.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

PATIENCE = 1.0  # seconds that a deferred operation waits for others to go with

Operation = TypeVar("Operation")
Outcome = TypeVar("Outcome")


class GroupCommit(Generic[Operation, Outcome]):
    """Belongs to the event loop it is made in. After `close`, `submit` raises RuntimeError."""

    def __init__(self, apply: Callable[[Sequence[Operation]], Sequence[Outcome | BaseException]], name: str) -> None:
        self._apply = apply
        self._loop = asyncio.get_running_loop()
        self._wake = threading.Condition()
        self._waiting: list[tuple[Operation, asyncio.Future[Outcome] | None]] = []
        self._urgent = False
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, operation: Operation) -> "asyncio.Future[Outcome]":
        """Hands an operation over; the future ends when its batch has ended. Cancelling the future does not undo the operation."""
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._enqueue(operation, future)
        return future

    def defer(self, operation: Operation) -> None:
        """Hands over an operation that nobody waits for: it goes with the next batch, after PATIENCE seconds, or with `close`."""
        self._enqueue(operation, None)

    def _enqueue(self, operation: Operation, future: "asyncio.Future[Outcome] | None") -> None:
        with self._wake:
            if self._closed:
                raise RuntimeError("the group commit is closed")
            self._waiting.append((operation, future))
            self._urgent = self._urgent or future is not None
            if future is not None or len(self._waiting) == 1:
                self._wake.notify()

    async def close(self) -> None:
        """Carries out what is waiting, and ends the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._urgent and not self._closed:
                    if not self._wake.wait(PATIENCE if self._waiting else None):
                        break
                batch, self._waiting, self._urgent = self._waiting, [], False
                if not batch and self._closed:
                    return
            self._carry_out(batch)

    def _carry_out(self, batch: "list[tuple[Operation, asyncio.Future[Outcome] | None]]") -> None:
        outcomes: Sequence[Outcome | BaseException]
        try:
            outcomes = self._apply([operation for operation, _ in batch])
        except BaseException as error:  # noqa: BLE001 - told to everybody who waits
            outcomes = [error] * len(batch)
        futures = [future for _, future in batch]
        self._loop.call_soon_threadsafe(_tell, futures, outcomes)


def _tell(futures: "Sequence[asyncio.Future[Outcome] | None]", outcomes: "Sequence[Outcome | BaseException]") -> None:
    for future, outcome in zip(futures, outcomes, strict=True):
        if future is None or future.done():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
