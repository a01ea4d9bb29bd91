"""Whether this manager writes: it holds the store's writer key, knows all that was written before, and has recovered.

A change of writer is itself a commit: the new writer puts its name at `meta/writer`. Once its own feed has told it that
commit, it has seen everything before; and followers learn from the same record whom to name in NOT_WRITER.
"""

import asyncio
from collections.abc import Callable

import structlog

from knitter_common.errors import Unavailable
from knitter_manager.allocation.jobs import not_writer
from knitter_manager.committer import Committer
from knitter_manager.feed import Feed
from knitter_manager.state import Cluster
from knitter_manager.store.protocol import NotWriter, Store, StoreDown

log = structlog.get_logger()

WRITER = "meta/writer"


def shutting_down() -> Unavailable:
    """This manager takes nothing new."""
    return Unavailable("SHUTTING_DOWN", "this manager is ending; another one, or this one, serves soon")


class Role:
    """`name` is the address under which this manager is found. `clock` is monotonic, in seconds."""

    def __init__(self, store: Store, cluster: Cluster, committer: Committer, feed: Feed, clock: Callable[[], float]) -> None:
        self._store, self._cluster, self._committer, self._feed, self._clock = store, cluster, committer, feed, clock
        self.name = ""
        self.writing = asyncio.Event()
        self._lost = asyncio.Event()
        self.ending = asyncio.Event()

    def may_write(self) -> None:
        """Raises Unavailable(NOT_WRITER | NO_WRITER | SHUTTING_DOWN) unless this manager writes."""
        if self.ending.is_set():
            raise shutting_down()
        if not self.writing.is_set():
            raise not_writer(self.writer)

    def allowed(self) -> None:
        """Raises Unavailable(RECOVERING) while nothing may be allocated."""

    @property
    def writer(self) -> str:
        """Who writes, as the store last said; "" for nobody but perhaps this one."""
        record = self._cluster.meta.get(WRITER)
        name = record.value.decode() if record is not None else ""
        return "" if name == self.name else name

    def lost(self) -> None:
        """The store has refused a commit because this manager does not hold the key any more."""
        self.writing.clear()
        self._lost.set()

    async def lead(self) -> None:
        """Becomes the writer whenever it can, for ever."""
        while True:
            try:
                await self._store.acquire_writer(self.name)
                revision = await self._committer.commit({}, {WRITER: self.name.encode()})
                await self._feed.until(revision)
            except (NotWriter, StoreDown) as error:
                log.warning("this manager cannot write", error=str(error))
                await asyncio.sleep(0.2)
                continue
            now = self._clock()
            for entry in self._cluster.networks.values():
                for space in entry.spaces:
                    space.rest_anew(now)
            self._lost.clear()
            self.writing.set()
            log.info("this manager writes", revision=revision, sets=len(self._cluster.sets), networks=len(self._cluster.networks))
            await self._lost.wait()
            log.warning("another manager writes")

    def end(self) -> None:
        """No more writes from now on."""
        self.ending.set()
