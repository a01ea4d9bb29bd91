"""The thread in which everything that blocks on the kernel happens, one after the other."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from knitter_agent.netlink import Kernel

T = TypeVar("T")


class KernelWorker:
    """One thread with the node's Kernel. Work is done in the order it was handed over."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")

    def run(self, work: Callable[[Kernel], T]) -> "asyncio.Future[T]":
        """Hands work over at once. Cancelling the future does not stop work that has begun: shield it, and wait for its end."""
        return asyncio.get_running_loop().run_in_executor(self._thread, work, self._kernel)

    async def close(self) -> None:
        """Finishes what was handed over and ends."""
        await asyncio.to_thread(self._thread.shutdown)
        self._kernel.close()
