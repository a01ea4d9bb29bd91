"""What the manager counts, once as it counts and once from the store: how much pools, networks, tenants and nodes hold.

The two can only be compared at one revision with nothing under way, so the memory is read when a snapshot begins at the revision
that the memory has just reached.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from knitter_common.model import IPClaim, Network
from knitter_manager import numbers
from knitter_manager.ipam.ranges import Range, bounds, pools_of
from knitter_manager.records import holding_of
from knitter_manager.state import Cluster, NetworkEntry

Label = tuple[str, str]  # of what, and what: ("network t1/a", "sets")
Counts = dict[Label, int]


def of_memory(cluster: Cluster) -> Counts:
    """As the manager counts; zeros are left out."""
    return {label: count for label, count in _counted(cluster) if count}


def _counted(cluster: Cluster) -> Iterator[tuple[Label, int]]:
    yield ("the store", "sets"), len(cluster.sets)
    for entry in cluster.networks.values():
        what = f"network {entry.network.path}"
        yield (what, "sets"), entry.sets
        for space in entry.spaces:
            for at in range(len(space.pools)):
                usage = space.usage(at)
                yield (what, f"used addresses of pool {at} of {space.subnet.cidr}"), usage.held
                yield (what, f"addresses set aside of pool {at} of {space.subnet.cidr}"), usage.reserved
            yield (what, f"used addresses outside the pools of {space.subnet.cidr}"), space.held_outside
        for group in entry.groups.values():
            yield (what, f"used addresses of IP group {group.group.tenant}/{group.group.name}"), group.held
    for name, tenant in cluster.tenants.items():
        yield (f"tenant {name}", "networks"), tenant.networks
        yield (f"tenant {name}", "sets"), len(tenant.owners)
        yield (f"tenant {name}", "ports"), tenant.ports
        yield (f"tenant {name}", "addresses"), tenant.addresses
    for name, node in cluster.nodes.items():
        yield (f"node {name}", "sets"), len(node.owners)
        yield (f"node {name}", "ports"), node.ports
        yield (f"node {name}", "addresses"), node.addresses


def stands_still(cluster: Cluster) -> bool:
    """Nothing is planned that the store does not have yet, as far as the counters can tell."""
    if any(entry.pending or any(space.planned for space in entry.spaces) for entry in cluster.networks.values()):
        return False
    return not any(one.pending_ports or one.pending_addresses for one in cluster.tenants.values())


@dataclass(frozen=True, slots=True)
class _Subnet:
    what: str
    cidr: str
    version: int
    first: int
    last: int
    pools: tuple[tuple[Range, ...], ...]
    aside: dict[int, str]  # the labels of groups

    def label_of(self, number: int) -> str:
        """What an address that is held counts for."""
        if number in self.aside:
            return self.aside[number]
        at = self.pool_of(number)
        return f"used addresses outside the pools of {self.cidr}" if at is None else f"used addresses of pool {at} of {self.cidr}"

    def pool_of(self, number: int) -> int | None:
        """The pool, by index, whose range an address is in."""
        for at, ranges in enumerate(self.pools):
            index = bisect_right(ranges, (number, 1 << 128)) - 1
            if index >= 0 and number <= ranges[index][1]:
                return at
        return None


class Counting:
    """Counts what a snapshot tells. Made when the memory is at the snapshot's revision, from whose shapes it works."""

    def __init__(self, cluster: Cluster) -> None:
        self.memory = of_memory(cluster)
        self._counts: Counts = {}
        self._subnets = {entry.network.id: _subnets_of(entry) for entry in cluster.networks.values()}
        self._paths = {entry.network.id: f"network {entry.network.path}" for entry in cluster.networks.values()}
        for subnets in self._subnets.values():
            for subnet in subnets:
                for number in subnet.aside:
                    at = subnet.pool_of(number)
                    if at is not None:
                        self._add(subnet.what, f"addresses set aside of pool {at} of {subnet.cidr}")

    def held(self, network_id: str, text: str) -> None:
        """An address that somebody holds."""
        number, version = numbers.to_number(text), 6 if ":" in text else 4
        for subnet in self._subnets.get(network_id, ()):
            if subnet.version == version and subnet.first <= number <= subnet.last:
                self._add(subnet.what, subnet.label_of(number))
                return

    def set(self, value: bytes) -> None:
        """A port set, as it is stored."""
        holding = holding_of(value)
        self._add("the store", "sets")
        for network_id in holding.networks:
            if network_id in self._paths:
                self._add(self._paths[network_id], "sets")
        for what in (f"tenant {holding.tenant}", *([f"node {holding.node}"] if holding.node else ())):
            self._add(what, "sets")
            self._add(what, "ports", holding.ports)
            self._add(what, "addresses", holding.addresses)

    def objects(self, networks: Iterable[Network], claims: Iterable[IPClaim]) -> None:
        """The networks and claims of the store."""
        for network in networks:
            self._add(f"tenant {network.tenant}", "networks")
        for claim in claims:
            self._add(f"tenant {claim.tenant}", "addresses", len(claim.addresses))

    def differing(self) -> dict[Label, tuple[int, int]]:
        """(as the manager counts, as the store has it) where the two differ."""
        counts = {label: count for label, count in self._counts.items() if count}
        return {
            label: (self.memory.get(label, 0), counts.get(label, 0))
            for label in sorted(self.memory.keys() | counts.keys())
            if self.memory.get(label, 0) != counts.get(label, 0)
        }

    def _add(self, what: str, of: str, count: int = 1) -> None:
        self._counts[what, of] = self._counts.get((what, of), 0) + count


def _subnets_of(entry: NetworkEntry) -> list[_Subnet]:
    found = []
    for space in entry.spaces:
        version, first, last = bounds(space.subnet)
        aside = {}
        for group in entry.groups.values():
            label = f"used addresses of IP group {group.group.tenant}/{group.group.name}"
            for one in group.group.addresses:
                number = numbers.to_number(one.address)
                if (":" in one.address) == (version == 6) and first <= number <= last:
                    aside[number] = label
        what, cidr = f"network {entry.network.path}", space.subnet.cidr
        found.append(_Subnet(what, cidr, version, first, last, tuple(tuple(sorted(one)) for one in pools_of(space.subnet)), aside))
    return found
