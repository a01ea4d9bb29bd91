"""Sorted, disjoint ranges of addresses, both ends included: what a subnet's pools, exclusions and gateway leave to hand out."""

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from knitter_common.model import Subnet
from knitter_common.objects.subnets import reserved

Range = tuple[int, int]


def number(address: str) -> int:
    """The address as a whole number."""
    return int(ipaddress.ip_address(address))


def pools_of(subnet: Subnet) -> tuple[tuple[Range, ...], ...]:
    """For each pool, in order, the ranges it may hand out. A subnet without pools has one: all that is usable."""
    network = ipaddress.ip_network(subnet.cidr)
    if subnet.pools:
        wholes = [(number(pool.start), number(pool.end)) for pool in subnet.pools]
    else:
        wholes = [(int(network[0]), int(network[-1]))]
    holes = never_of(subnet)
    return tuple(tuple(without(whole, holes)) for whole in wholes)


def bounds(subnet: Subnet) -> tuple[int, int, int]:
    """(family, first, last) of the CIDR."""
    network = ipaddress.ip_network(subnet.cidr)
    return network.version, int(network[0]), int(network[-1])


def handed_out(subnet: Subnet) -> list[Range]:
    """All addresses of the CIDR that an interface can have, in a pool or not."""
    network = ipaddress.ip_network(subnet.cidr)
    return without((int(network[0]), int(network[-1])), never_of(subnet))


def never_of(subnet: Subnet) -> list[Range]:
    """What no interface of a pod ever gets: the network's own and the broadcast address, the IPv6 subnet-router anycast address
    (`knitter_common.objects.subnets.reserved`), the gateway, exclusions."""
    never = [(int(address), int(address)) for address in reserved(ipaddress.ip_network(subnet.cidr))]
    if subnet.gateway:
        never.append((number(subnet.gateway), number(subnet.gateway)))
    for text in subnet.exclude:
        block = ipaddress.ip_network(text)
        never.append((int(block[0]), int(block[-1])))
    return merged(never)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same addresses as sorted ranges that neither overlap nor touch."""
    done: list[Range] = []
    for low, high in sorted(ranges):
        if done and low <= done[-1][1] + 1:
            done[-1] = (done[-1][0], max(done[-1][1], high))
        else:
            done.append((low, high))
    return done


def without(whole: Range, holes: Sequence[Range]) -> list[Range]:
    """What is left of a range without the holes (which are merged)."""
    low, end = whole
    left: list[Range] = []
    for first, last in holes:
        if last < low or first > end:
            continue
        if first > low:
            left.append((low, first - 1))
        low = last + 1
    if low <= end:
        left.append((low, end))
    return left


def minus(ranges: Iterable[Range], holes: Iterable[Range]) -> list[Range]:
    """What is in the ranges and in none of the holes."""
    solid = merged(holes)
    return [part for whole in merged(ranges) for part in without(whole, solid)]


def holds(ranges: Sequence[Range], address: int) -> bool:
    """Whether one of the sorted ranges holds the address."""
    at = bisect_right(ranges, (address, 1 << 128)) - 1
    return at >= 0 and ranges[at][0] <= address <= ranges[at][1]
