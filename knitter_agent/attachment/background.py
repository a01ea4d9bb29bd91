"""Work that a caller who goes must not cut short.

No mark in the journal may be left without the undo that it announces, and no lock may be given up before that.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """Use from one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def busy(self) -> bool:
        """Something is not finished yet."""
        return bool(self._tasks)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns or raises. That the caller is cancelled meanwhile is heard when the work has ended."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await ended(task)
        return task.result()

    async def close(self) -> None:
        """Cancels what is not finished; the journal has it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def ended(work: "asyncio.Future[Any]") -> None:
    """Until it has ended, however often the caller is cancelled meanwhile; that is heard then. Its outcome counts as seen."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if not work.cancelled():
        work.exception()
    if cancelled is not None:
        raise cancelled
