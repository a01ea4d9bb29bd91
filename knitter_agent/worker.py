"""A thread in which things that block on the kernel happen, one after the other."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from knitter_agent.netlink import Kernel
from knitter_common.steps import Step

T = TypeVar("T")

Work = Callable[[Kernel], Any]


class KernelWorker:
    """One thread with a Kernel of its own. Work is done in the order it was handed over. Belongs to one event loop."""

    def __init__(self, kernel: Kernel, name: str = "kernel") -> None:
        self._kernel = kernel
        self._queue: SimpleQueue[tuple[Work, asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Callable[[Kernel], T]) -> Step[T]:
        """Hands work over at once. Cancelling the step does not stop work that has begun: hold it, or shield it."""
        future: Step[T] = Step()
        self._queue.put((work, future))
        return future

    async def close(self) -> None:
        """Finishes what was handed over and ends."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._kernel.close()

    def _live(self) -> None:
        while (item := self._queue.get()) is not None:
            work, future = item
            if future.cancelled():
                continue
            try:
                result, error = work(self._kernel), None
            except BaseException as failure:  # noqa: BLE001 - raised where it is awaited
                result, error = None, failure
            future.get_loop().call_soon_threadsafe(_tell, future, result, error)


def _tell(future: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
