"""What ends by itself: records of rests that are over, sticky addresses whose time is over, segmentation ids that have rested."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from knitter_common.errors import KnitterError
from knitter_manager import keys, numbers
from knitter_manager.allocation.sets import PortSets
from knitter_manager.committer import Committer
from knitter_manager.objects.segments import Segments
from knitter_manager.state import Cluster, NetworkEntry
from knitter_manager.store.protocol import Conflict, NotWriter, StoreDown

log = structlog.get_logger()

_BATCH = 100  # records in one commit
_PERIOD = 2.0  # seconds between two looks


class Sweeper:
    """`rest` is the default rest and `clock` the monotonic clock, both in seconds; `wall` is in nanoseconds since 1970."""

    def __init__(
        self,
        cluster: Cluster,
        committer: Committer,
        sets: PortSets,
        segments: Segments,
        rest: float,
        clock: Callable[[], float],
        wall: Callable[[], int],
    ) -> None:
        self._cluster, self._committer, self._sets, self._segments = cluster, committer, sets, segments
        self._rest, self._clock, self._wall = rest, clock, wall

    async def run(self, writing: asyncio.Event) -> None:
        """For ever, while this manager writes."""
        while True:
            await writing.wait()
            try:
                await self.sweep()
            except (KnitterError, NotWriter, StoreDown) as error:
                log.debug("swept later", error=str(error))
            await asyncio.sleep(_PERIOD)

    async def sweep(self) -> None:
        """Once over everything."""
        for entry in list(self._cluster.networks.values()):
            await self._forget(self._rested(entry))
        await self._forget({key: self._cluster.vids[key].revision for key in self._segments.rested()})
        now = self._wall()
        for owner_key in [owner_key for owner_key, until in self._cluster.kept.items() if until <= now]:
            if await self._sets.expire(keys.owner_of(owner_key), now) is None:
                log.info("sticky addresses were not asked for again in time", owner=owner_key)

    def _rested(self, entry: NetworkEntry) -> dict[str, int]:
        """Records of rests that are over, with their revisions."""
        rest = self._rest if entry.network.rest is None else entry.network.rest
        return {
            keys.address(entry.network.id, numbers.to_text(space.version, address)): mark
            for space in entry.spaces
            for address, mark in space.settle(self._clock(), rest)
        }

    async def _forget(self, records: dict[str, int]) -> None:
        """Deletes records that are still what they were; one that is not, since it was just taken, does not stop the others."""
        todo = list(records)
        for begin in range(0, len(todo), _BATCH):
            part = todo[begin : begin + _BATCH]
            try:
                await self._delete(part, records)
            except Conflict:
                for key in part:
                    try:
                        await self._delete([key], records)
                    except Conflict as conflict:
                        log.debug("a record is not to be swept any more", key=conflict.key)

    async def _delete(self, part: Sequence[str], records: dict[str, int]) -> None:
        await self._committer.commit({key: records[key] for key in part}, {}, part)
