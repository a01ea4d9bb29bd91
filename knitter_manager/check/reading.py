"""One snapshot of the store, read through in order of its keys: addresses and MACs, claims and groups, networks, port sets.

A snapshot is of one moment, and every commit is all or nothing: so whatever does not fit in it does not fit in the store, and no
operation that is under way can be taken for a difference.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from knitter.v1 import types_pb2 as types
from knitter_common.convert import ip_claim_from_proto, ip_group_from_proto, network_from_proto
from knitter_common.model import IPClaim, IPGroup, Network
from knitter_manager import keys, numbers
from knitter_manager.allocation.owned import keys_of_claim, keys_of_set
from knitter_manager.ipam.ranges import bounds
from knitter_manager.state.entries import segment_of
from knitter_manager.store.protocol import Record, Snapshot, all_but

WANTED = all_but(keys.META, keys.STAGED)

_AT_ONCE = 100  # records between two turns of the event loop: one or two milliseconds


@dataclass(frozen=True, slots=True)
class Shape:
    """A network, with the first and the last address of each subnet."""

    network: Network
    spans: tuple[tuple[int, int, int], ...]  # (family, first, last)

    def holds(self, address: str) -> bool:
        """Whether a subnet has the address."""
        number, version = numbers.to_number(address), 6 if ":" in address else 4
        return any(version == family and first <= number <= last for family, first, last in self.spans)


class Reading:
    """What is small is kept: networks, names, claims, groups, segmentation ids. The rest is told to the methods that begin with
    `on_`, which do nothing here."""

    def __init__(self) -> None:
        self.revision = 0
        self.shapes: dict[str, Shape] = {}  # by network's id
        self.segments: dict[str, str] = {}  # by network's id
        self.paths: dict[str, Shape] = {}
        self.names: dict[str, Record] = {}
        self.vids: dict[str, Record] = {}
        self.claims: dict[str, tuple[IPClaim, int]] = {}  # with their revisions
        self.groups: dict[str, tuple[IPGroup, int]] = {}

    async def read(self, snapshot: Snapshot) -> None:
        """All of it. Raises StoreDown."""
        self.revision = snapshot.revision
        async for batch in snapshot.batches:
            for begin in range(0, len(batch), _AT_ONCE):
                for record in batch[begin : begin + _AT_ONCE]:
                    self._take(record)
                await asyncio.sleep(0)
        for key, (claim, revision) in self.claims.items():
            shape = self.paths.get(claim.network)
            if shape is not None:
                for wanted in keys_of_claim(claim, shape.network, self.segments[shape.network.id]):
                    self.on_wanted(wanted, key, revision)

    def _take(self, record: Record) -> None:
        key, value, revision = record
        family, _, rest = key.partition("/")
        match family:
            case "addr" | "mac" if value:
                self.on_held(key, value.decode(), revision)
            case "addr":
                self.on_resting(key, revision)
            case "portset":
                message = types.PortSet.FromString(value)
                self.on_set(rest, message, record)
                for wanted in keys_of_set(message, self.segments):
                    self.on_wanted(wanted, key, revision)
            case "network":
                self._take_network(replace(network_from_proto(types.Network.FromString(value)), revision=revision))
            case "net":
                self.names[key] = record
            case "vid":
                self.vids[key] = record
            case "claim":
                self.claims[key] = ip_claim_from_proto(types.IPClaim.FromString(value)), revision
            case "group":
                self.groups[key] = ip_group_from_proto(types.IPGroup.FromString(value)), revision

    def _take_network(self, network: Network) -> None:
        shape = Shape(network, tuple(bounds(subnet) for subnet in network.subnets))
        self.shapes[network.id] = self.paths[network.path] = shape
        self.segments[network.id] = segment_of(network)

    # -- what is told as it comes ------------------------------------------------------------------------------------------

    def on_held(self, key: str, owner: str, revision: int) -> None:
        """The record of an address or a MAC that `owner` (an owner's key, or a claim's) holds."""

    def on_resting(self, key: str, revision: int) -> None:
        """The record of an address that rests."""

    def on_wanted(self, key: str, record: str, revision: int) -> None:
        """The set or claim at the key `record`, which is at that revision, has the address or MAC of this key."""

    def on_set(self, owner_key: str, message: types.PortSet, record: Record) -> None:
        """A port set."""


def holder_of(record: str) -> str:
    """What stands in the records of the addresses of a set or a claim, which is at that key."""
    return record.removeprefix(keys.PORT_SET)


def record_of(holder: str) -> str:
    """The key of the set or claim that holds what names this holder."""
    return holder if holder.startswith(keys.CLAIM) else keys.port_set(holder)


def place_of(key: str, segments: Mapping[str, str], paths: Mapping[str, str]) -> tuple[str, str]:
    """(network, address or MAC) of a record's key; `paths` by network's id. A MAC's network is the first of its segment."""
    family, scope, text = key.split("/", 2)
    if family == "addr":
        return paths.get(scope, scope), text
    return next(_networks_of(scope, segments, paths), scope), text


def _networks_of(segment: str, segments: Mapping[str, str], paths: Mapping[str, str]) -> Iterator[str]:
    return (paths[network_id] for network_id, one in segments.items() if one == segment and network_id in paths)
