"""A snapshot into an empty state, a family of keys at a time: a start has a few microseconds for each of millions of records.

Records come in order of key, so a batch falls into few runs of one family, and what refers to something comes before it: addresses,
claims and groups before their networks. They wait until all networks are there, which is before the sets, so that the memory they
wait in is free again for the sets. The event loop gets its turn in between, since a manager may load while it serves.
"""

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from socket import inet_aton
from struct import unpack
from typing import TYPE_CHECKING

from knitter_manager import keys, numbers
from knitter_manager.store.protocol import Record, all_but

if TYPE_CHECKING:
    from knitter_manager.state.cluster import Cluster

WANTED = all_but(keys.MAC, keys.STAGED)  # what a state is made of; only the store is asked who has a MAC

_AFTER = chr(ord("/") + 1)
_AT_ONCE = 1000  # records between two turns of the event loop


class Loading:
    """Give `take` every batch, in order, then call `finish`. `now` is the monotonic clock in seconds, for rests."""

    def __init__(self, cluster: "Cluster", now: float) -> None:
        self._cluster, self._now = cluster, now
        # network's id and family → numbers of held addresses, in sorted parts
        self._held: dict[tuple[str, int], list[Sequence[int]]] = {}
        self._others: list[Record] = []  # resting addresses, claims, groups

    async def take(self, batch: Sequence[Record]) -> None:
        """The next records."""
        for begin in range(0, len(batch), _AT_ONCE):
            for family, part in _runs(batch[begin : begin + _AT_ONCE], 0):
                await self._take(family, part)
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """After the last batch."""
        await self._settle()

    async def _take(self, family: str, part: Sequence[Record]) -> None:
        match family:
            case "mac/":
                pass
            case "addr/":
                for prefix, addresses in _runs(part, len(family)):
                    self._take_addresses(prefix, addresses)
            case "claim/" | "group/":
                self._others += part
            case "portset/":
                await self._settle()
                self._cluster.put_sets(part)
            case _:
                for key, value, revision in part:
                    self._cluster.put(key, value, revision, self._now)

    def _take_addresses(self, prefix: str, part: Sequence[Record]) -> None:
        cut, network_id = len(prefix), prefix[len("addr/") : -1]
        texts = [key[cut:] for key, value, _ in part if value]
        quick = [inet_aton(text) for text in texts if ":" not in text]
        found = self._held.setdefault((network_id, 4), [])
        found.append(array("I", sorted(unpack(f"!{len(quick)}I", b"".join(quick)))))
        if len(quick) < len(texts):
            found = self._held.setdefault((network_id, 6), [])
            found.append(sorted([numbers.to_number(text) for text in texts if ":" in text]))
        if len(texts) < len(part):
            self._others += [record for record in part if not record.value]

    async def _settle(self) -> None:
        """What has waited for the networks."""
        held, self._held = self._held, {}
        others, self._others = self._others, []
        for (network_id, version), parts in held.items():
            entry = self._cluster.networks.get(network_id)
            spaces = [space for space in entry.spaces if space.version == version] if entry is not None else []
            for found in parts:
                for space in spaces:
                    space.hold_all(found[bisect_left(found, space.first) : bisect_left(found, space.last + 1)])
                await asyncio.sleep(0)
        for begin in range(0, len(others), _AT_ONCE):
            for key, value, revision in others[begin : begin + _AT_ONCE]:
                self._cluster.put(key, value, revision, self._now)
            await asyncio.sleep(0)


def _runs(batch: Sequence[Record], begin: int) -> Iterator[tuple[str, Sequence[Record]]]:
    """The records by the part of their keys that ends with the first "/" after `begin`."""
    at = 0
    while at < len(batch):
        key = batch[at].key
        prefix = key[: key.find("/", begin) + 1]
        end = bisect_left(batch, (prefix[:-1] + _AFTER,), at) if prefix else at + 1
        yield prefix, batch[at:end]
        at = end
