"""A new epoch: who raises it, and when the manager has recovered from it.

The epoch's counter is raised when a snapshot was restored, and when a client shows that the store has gone back in time: a
revision of this epoch that the store has not reached, or a later epoch. From then on nothing is allocated until every node that
is known has told its journal, or an operator ends the wait. Who is waited for lies in the store, so another writer goes on.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping

import structlog

from knitter_manager.allocation.jobs import not_writer, store_unavailable
from knitter_manager.feed import Feed
from knitter_manager.role import Role
from knitter_manager.standing import EPOCH, RECOVERING, WRITER, Standing, counter_of, encoded
from knitter_manager.state import Cluster
from knitter_manager.store.protocol import NotWriter, Store, StoreDown

log = structlog.get_logger()


class Recovery:
    """Only the writer calls what writes."""

    def __init__(self, store: Store, cluster: Cluster, feed: Feed, standing: Standing, role: Role) -> None:
        self._store, self._cluster, self._feed, self._standing, self._role = store, cluster, feed, standing, role
        self._lock = asyncio.Lock()
        self._before: tuple[str, set[str]] | None = None  # epoch and nodes that this manager knew before the store went back

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """The nodes that have not told their journals in this epoch."""
        return self._standing.waiting_for

    @property
    def recovering(self) -> bool:
        """Nothing may be allocated."""
        return bool(self._standing.waiting_for)

    def known_nodes(self) -> set[str]:
        """The nodes whose journals count: registered, and not declared gone."""
        return {name for name, entry in self._cluster.nodes.items() if entry.node.revision and not entry.node.gone}

    async def shown(self, epoch: str, revision: int) -> None:
        """A client has seen this revision of this epoch. Where that proves that the store has gone back, the epoch is raised.

        Raises Unavailable.
        """
        if self._plausible(epoch, revision):
            return
        async with self._lock:
            lineage, counter = counter_of(epoch)
            if lineage == self._standing.lineage and counter == self._standing.counter:
                newest = await self.write({WRITER: self._role.name.encode()})  # the store's word, not what the feed told so far
                if revision < newest:
                    return
            if not self._plausible(epoch, revision):
                log.error("the store has gone back in time", epoch=self._cluster.epoch, shown=epoch, revision=revision)
                await self._raise(max(counter, self._standing.counter) + 1, self.known_nodes())

    def going_back(self) -> None:
        """This manager itself sees the store go back in time. It writes nothing more until `resume`."""
        self._before = self._cluster.epoch, self.known_nodes()
        log.error("the store has gone back in time", epoch=self._cluster.epoch, revision=self._cluster.revision)
        self._role.lost()

    async def resume(self) -> None:
        """Before this manager begins to write: raises the epoch for what it saw itself, unless that was done since."""
        async with self._lock:
            if self._before is not None:
                epoch, nodes = self._before
                if epoch == self._cluster.epoch:
                    await self._raise(self._standing.counter + 1, nodes | self.known_nodes())
                self._before = None

    def _plausible(self, epoch: str, revision: int) -> bool:
        lineage, counter = counter_of(epoch)
        if lineage != self._standing.lineage or counter < self._standing.counter:
            return True  # of another store, or of a time before this epoch: no proof of anything
        return counter == self._standing.counter and revision <= self._cluster.revision

    async def _raise(self, counter: int, nodes: Iterable[str]) -> None:
        await self.write({EPOCH: str(counter).encode(), **waiting_record(nodes)})

    async def told(self, node: str, left: Collection[str]) -> bool:
        """The node has told its journal, or is gone: only those are waited for still. Whether the manager has recovered by it."""
        async with self._lock:
            waiting = self._standing.waiting_for
            if not waiting:
                return False
            still = [name for name in waiting if name in left]
            await self._wait_for(still)
            log.info("a node has told its journal in the new epoch", node=node, waiting=len(still))
            return not still

    async def end(self) -> tuple[str, ...]:
        """By an operator's word nobody is waited for any more; returns who was."""
        async with self._lock:
            waiting = self._standing.waiting_for
            if waiting:
                log.warning("recovery is ended by hand", not_told=len(waiting), nodes=waiting[:20])
                await self._wait_for(())
            return waiting

    async def _wait_for(self, nodes: Collection[str]) -> None:
        if nodes:
            await self.write(waiting_record(nodes))
        else:
            await self.write({}, [RECOVERING])
            log.info("recovered: allocations are served", epoch=self._cluster.epoch)

    async def in_step(self) -> None:
        """When it returns this manager knows all that was written, and nothing that was sent before comes any more. Raises
        Unavailable."""
        try:
            await self._store.get([WRITER])
        except StoreDown as error:
            raise store_unavailable(error) from error
        await self.write({WRITER: self._role.name.encode()})

    async def write(self, puts: Mapping[str, bytes], deletes: Collection[str] = ()) -> int:
        """Writes meta records; when it returns this manager knows them. Raises Unavailable."""
        known = self._cluster.seen
        try:
            revision = await self._store.commit([], puts, list(deletes))
            if revision < known:
                self._feed.anew()
            await self._feed.until(revision)
        except NotWriter as error:
            self._role.lost()
            raise not_writer(error.writer) from error
        except StoreDown as error:
            raise store_unavailable(error) from error
        return revision


def waiting_record(nodes: Iterable[str]) -> dict[str, bytes]:
    """The puts that have the manager wait for these nodes; none for nobody."""
    names = sorted(set(nodes))
    return {RECOVERING: encoded(names)} if names else {}
