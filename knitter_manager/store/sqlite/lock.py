"""The writer's lock file beside the store: flock(2) says who writes, its content is the writer's name.

The lock belongs to the open file, so the kernel gives it up when its process dies, however it dies. After every group of commits
the writer touches the file: that wakes the followers in other processes (watch.py).
"""

import asyncio
import fcntl
import os
import threading
from pathlib import Path


class LockFile:
    """One process's grip on the lock. Methods raise OSError where the file cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held = -1

    async def take(self, name: str) -> None:
        """Waits for the lock, without polling, and writes the name. Cancelling ends the wait. When it is held: renames."""
        if self._held < 0:
            self._held = await self._lock()
        os.ftruncate(self._held, 0)
        os.pwrite(self._held, name.encode(), 0)

    def touch(self) -> None:
        """Wakes the followers. For the holder."""
        if self._held >= 0:
            os.utime(self._held)

    def holder(self) -> str:
        """The name of who holds it, "" for nobody."""
        descriptor = _open(self.path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(descriptor, 4096, 0).decode(errors="replace")
        else:
            return ""
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Gives the lock up. Idempotent."""
        if self._held >= 0:
            os.ftruncate(self._held, 0)
            os.close(self._held)
            self._held = -1

    async def _lock(self) -> int:
        """A descriptor with the lock on the file that is at the path."""
        while True:
            descriptor = _open(self.path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await _Wait(descriptor).granted()
            if _is_at(descriptor, self.path):
                return descriptor
            os.close(descriptor)  # somebody replaced the file meanwhile


class _Wait:
    """A thread in a blocking flock, which nothing can interrupt: when nobody waits any more it gives the lock back at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()
        self._turn = threading.Lock()
        self._abandoned = self._done = False

    async def granted(self) -> None:
        """Until the descriptor has the lock. Cancelled, the descriptor is closed as soon as it can be."""
        threading.Thread(target=self._block, name="store-lock", daemon=True).start()
        try:
            await self._future
        except asyncio.CancelledError:
            with self._turn:
                self._abandoned = True
                if self._done:
                    os.close(self._descriptor)
            raise

    def _block(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with self._turn:
            self._done = True
            if self._abandoned:
                os.close(self._descriptor)
            else:
                self._loop.call_soon_threadsafe(self._grant)

    def _grant(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


def _open(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
