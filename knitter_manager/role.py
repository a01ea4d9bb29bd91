"""Whether this manager writes: it holds the store's writer key, knows all that was written before, and has recovered.

A change of writer is itself a commit: the new writer puts its name at `meta/writer`. Once its own feed has told it that
commit, it has seen everything before; and followers learn from the same record whom to name in NOT_WRITER.

It steps down when the store says that its time as the writer is over, by its own clock (SIGSTOP, a cut-off cluster), or when a
commit is refused. Operations under way then end by the store's own judgement, each alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import structlog

from knitter_common.errors import KnitterError, Unavailable
from knitter_manager.allocation.jobs import not_writer
from knitter_manager.committer import Committer
from knitter_manager.feed import Feed
from knitter_manager.standing import WRITER, Standing
from knitter_manager.state import Cluster
from knitter_manager.store.protocol import NotWriter, Store, StoreDown

log = structlog.get_logger()

_PAUSE = 0.2  # seconds between tries to become the writer while the store fails


def shutting_down() -> Unavailable:
    """This manager takes nothing new."""
    return Unavailable("SHUTTING_DOWN", "this manager is ending; another one, or this one, serves soon")


class Role:
    """`name` is the address under which this manager is found. `clock` is monotonic, in seconds. `resume` ends what another writer
    began, each time before this manager writes."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        committer: Committer,
        feed: Feed,
        standing: Standing,
        clock: Callable[[], float],
    ) -> None:
        self._store, self._cluster, self._committer, self._feed, self._clock = store, cluster, committer, feed, clock
        self.standing = standing
        self.name = ""
        self.writing = asyncio.Event()
        self._lost = asyncio.Event()
        self.ending = asyncio.Event()
        self._anew = asyncio.Event()  # ends the nodes' streams; another one whenever it was set
        self._why = shutting_down()  # they were ended the last time
        self.resume: Callable[[], Awaitable[None]] | None = None

    def may_write(self) -> None:
        """Raises Unavailable(NOT_WRITER | NO_WRITER | SHUTTING_DOWN | RESTORING | STORE_FROZEN) unless this manager writes."""
        if self.ending.is_set():
            raise shutting_down()
        if not self.writing.is_set():
            raise not_writer(self.writer)
        if self._committer.closed is not None:
            raise self._committer.closed

    def allowed(self) -> None:
        """Raises Unavailable(RECOVERING) while nothing may be allocated."""
        waiting = self.standing.waiting_for
        if waiting:
            some = ", ".join(waiting[:5]) + (f" and {len(waiting) - 5} more" if len(waiting) > 5 else "")
            said = f"in the new epoch {self._cluster.epoch} these nodes have not told yet what runs on them: {some}"
            raise Unavailable("RECOVERING", said, nodes=len(waiting))

    @property
    def writer(self) -> str:
        """Who writes, as the store last said; "" for nobody but perhaps this one."""
        name = self.standing.writer
        return "" if name == self.name else name

    def lost(self) -> None:
        """The store has refused a commit because this manager does not hold the key any more."""
        self._stop_writing()
        self._lost.set()

    def _stop_writing(self) -> None:
        if self.writing.is_set():
            self.writing.clear()
            self._send_away(not_writer(self.writer))

    async def lead(self) -> None:
        """Becomes the writer whenever it can, for ever."""
        while True:
            try:
                over = await self._store.acquire_writer(self.name)
                await _unless(over, self._begin())
            except (NotWriter, StoreDown, Unavailable) as error:
                log.warning("this manager cannot write", error=str(error))
                await asyncio.sleep(_PAUSE)
                continue
            await _first(over.wait(), self._lost.wait())
            self._stop_writing()
            log.warning("this manager does not write any more")

    async def _begin(self) -> None:
        """Has seen all, ends what the writer before left half done, and writes."""
        known = self._cluster.seen
        revision = await self._store.commit([], {WRITER: self.name.encode()})
        if revision <= known:
            self._feed.anew()
        await self._feed.until(revision)
        self._lost = asyncio.Event()  # what was lost before has been made up for
        self._committer.closed = None
        if self.resume is not None:
            await self.resume()
        self.close()
        now = self._clock()
        for entry in self._cluster.networks.values():
            for space in entry.spaces:
                space.rest_anew(now)
        self.writing.set()
        log.info("this manager writes", revision=revision, sets=len(self._cluster.sets), networks=len(self._cluster.networks))

    def close(self) -> None:
        """Closes the way to the store for what must not be written now, or opens it again, as the store's standing says."""
        closed: KnitterError | None = None
        if self.standing.restoring:
            closed = Unavailable("RESTORING", "a snapshot is being restored; nothing else is written meanwhile")
        elif self.standing.frozen:
            closed = Unavailable("STORE_FROZEN", "writes are forbidden while the state is moved to another store")
        self._committer.closed = closed

    def begin_anew(self) -> None:
        """The epoch was raised, by this manager or another: every node comes again, to the writer, and tells its journal."""
        said = f"the epoch is {self._cluster.epoch} now; tell the journal first"
        self._send_away(Unavailable("RECOVERING", said) if self.writing.is_set() else not_writer(self.writer))

    def _send_away(self, why: Unavailable) -> None:
        self._why = why
        anew, self._anew = self._anew, asyncio.Event()
        anew.set()

    async def parting(self) -> Unavailable:
        """Waits until the nodes' streams must end, and says why: this manager ends, writes no more, or is in a new epoch."""
        anew = self._anew
        await _first(self.ending.wait(), anew.wait())
        if self.ending.is_set():
            return shutting_down()
        return self._why

    def end(self) -> None:
        """No more writes from now on."""
        self.ending.set()


async def _first(*waits: Awaitable[object]) -> None:
    """Until one of them is done; the others are ended."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _unless(over: asyncio.Event, work: Coroutine[object, object, None]) -> None:
    """The work, unless this manager ceases to be the writer meanwhile: then NotWriter."""
    task = asyncio.ensure_future(work)
    try:
        await _first(asyncio.shield(task), over.wait())
        if not task.done():
            raise NotWriter("")
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
