"""Forgets the records of rests that are over, in small commits, so that the store holds one record per held address and little
more."""

import asyncio
from collections.abc import Callable

import structlog

from knitter_manager import keys, numbers
from knitter_manager.committer import Committer
from knitter_manager.ipam.space import Space
from knitter_manager.state import Cluster, NetworkEntry
from knitter_manager.store.protocol import Conflict, NotWriter, StoreDown

log = structlog.get_logger()

_BATCH = 100  # records in one commit
_PERIOD = 2.0  # seconds between two looks


class Sweeper:
    """`rest` is the default rest and `clock` the monotonic clock, both in seconds."""

    def __init__(
        self, cluster: Cluster, committer: Committer, writing: asyncio.Event, rest: float, clock: Callable[[], float]
    ) -> None:
        self._cluster, self._committer, self._writing, self._rest, self._clock = cluster, committer, writing, rest, clock

    async def run(self) -> None:
        """For ever, while this manager writes."""
        while True:
            await self._writing.wait()
            try:
                await self.sweep()
            except (Conflict, NotWriter, StoreDown) as error:
                log.debug("rests are swept later", error=str(error))
            await asyncio.sleep(_PERIOD)

    async def sweep(self) -> None:
        """Once over all networks."""
        for entry in list(self._cluster.networks.values()):
            over = self._over(entry)
            for begin in range(0, len(over), _BATCH):
                part = over[begin : begin + _BATCH]
                conditions = {
                    keys.address(entry.network.id, numbers.to_text(space.version, address)): mark
                    for space, address, mark in part
                    if space.mark_of(address) == mark
                }
                if conditions:
                    await self._committer.commit(conditions, {}, tuple(conditions))

    def _over(self, entry: NetworkEntry) -> list[tuple[Space, int, int]]:
        rest = self._rest if entry.network.rest is None else entry.network.rest
        return [(space, address, mark) for space in entry.spaces for address, mark in space.settle(self._clock(), rest)]
