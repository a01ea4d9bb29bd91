"""Checks of a network's subnets and routes: what can be said without knowing any other network."""

import itertools
from dataclasses import dataclass

from knitter_common.addresses import Address, Cidr, address, cidr, host_address, subnet_cidr
from knitter_common.model import Pool, Route, Subnet
from knitter_common.objects.fields import at_most, checked, mtu, number, refuse
from knitter_common.objects.selectors import usability

MAX_SUBNETS = 32
MAX_POOLS = 256  # of one subnet
MAX_EXCLUDES = 1024  # of one subnet
MAX_ROUTES = 256
_UINT32 = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Checked:
    """A canonical subnet with its parsed CIDR."""

    subnet: Subnet
    cidr: Cidr


def subnets(values: tuple[Subnet, ...]) -> tuple[Checked, ...]:
    """The canonical forms. Raises Invalid(FIELD_INVALID | LIMIT_EXCEEDED)."""
    at_most("subnets", values, MAX_SUBNETS)
    done: list[Checked] = []
    for index, value in enumerate(values):
        field = f"subnets[{index}]"
        entry = subnet(field, value)
        for other, earlier in enumerate(done):
            if earlier.cidr.version == entry.cidr.version and earlier.cidr.overlaps(entry.cidr):
                said = f"{entry.cidr} overlaps {earlier.cidr} of subnets[{other}]; choose another CIDR"
                refuse(f"{field}.cidr", said, value.cidr)
        done.append(entry)
    return tuple(done)


def subnet(field: str, value: Subnet) -> Checked:
    """One subnet."""
    if not value.cidr:
        refuse(f"{field}.cidr", "is missing; write for example 10.1.0.0/24")
    network = checked(f"{field}.cidr", subnet_cidr, value.cidr)
    gateway = _gateway(f"{field}.gateway", value.gateway, network) if value.gateway else None
    canonical = Subnet(
        cidr=str(network),
        gateway="" if gateway is None else str(gateway),
        pools=_pools(field, value.pools, network, gateway),
        exclude=_excludes(field, value.exclude, network),
    )
    return Checked(canonical, network)


def reserved(network: Cidr) -> tuple[Address, ...]:
    """Addresses of a subnet that belong to no interface: the network's own and the IPv4 broadcast address (RFC 1122 3.2.1.3; not of
    a /31, RFC 3021, or /32), the IPv6 subnet-router anycast address (RFC 4291 2.6.1; not of a /127, RFC 6164, or /128)."""
    if network.prefixlen >= network.max_prefixlen - 1:
        return ()
    if network.version == 4:
        return (network.network_address, network.broadcast_address)
    return (network.network_address,)


def _gateway(field: str, text: str, network: Cidr) -> Address:
    found = checked(field, host_address, text)
    if found not in network:
        refuse(field, f"{found} is not in {network}; choose an address of it, or leave the gateway out", text)
    if found in reserved(network):
        refuse(field, f"{found} is the {_what(found, network)} address of {network}; choose another", text)
    return found


def _what(found: Address, network: Cidr) -> str:
    if network.version == 6:
        return "subnet-router anycast"
    return "network's own" if found == network.network_address else "broadcast"


def _pools(field: str, pools: tuple[Pool, ...], network: Cidr, gateway: Address | None) -> tuple[Pool, ...]:
    at_most(f"{field}.pools", pools, MAX_POOLS)
    ranges: list[tuple[int, int, int]] = []
    canonical: list[Pool] = []
    for index, pool in enumerate(pools):
        place = f"{field}.pools[{index}]"
        start, end = _end(f"{place}.start", pool.start, network), _end(f"{place}.end", pool.end, network)
        if int(start) > int(end):
            refuse(f"{place}.end", f"{end} is below the start {start}; exchange them", pool.end)
        if gateway is not None and int(start) <= int(gateway) <= int(end):
            refuse(place, f"{start} to {end} holds the gateway {gateway}; make it two pools, one on each side", f"{start}-{end}")
        ranges.append((int(start), int(end), index))
        canonical.append(Pool(str(start), str(end), usability(f"{place}.usableBy", pool.usable_by)))
    ranges.sort()
    for (_, end_before, before), (start_after, _, after) in itertools.pairwise(ranges):
        if start_after <= end_before:
            late, early = max(before, after), min(before, after)
            refuse(f"{field}.pools[{late}]", f"overlaps pools[{early}]; pools of a subnet share no address")
    return tuple(canonical)


def _end(field: str, text: str, network: Cidr) -> Address:
    if not text:
        refuse(field, "is missing; a pool has a start and an end")
    found = checked(field, address, text)
    if found not in network:
        refuse(field, f"{found} is not in {network}", text)
    return found


def _excludes(field: str, values: tuple[str, ...], network: Cidr) -> tuple[str, ...]:
    at_most(f"{field}.exclude", values, MAX_EXCLUDES)
    return tuple(_exclude(f"{field}.exclude[{index}]", value, network) for index, value in enumerate(values))


def _exclude(field: str, text: str, network: Cidr) -> str:
    if "/" not in text:
        found = checked(field, address, text)
        if found not in network:
            refuse(field, f"{found} is not in {network}", text)
        return str(found)
    block = checked(field, cidr, text)
    if block.version != network.version or block.prefixlen < network.prefixlen or block.network_address not in network:
        refuse(field, f"{block} is not in {network}", text)
    return str(block.network_address) if block.prefixlen == block.max_prefixlen else str(block)


def routes(values: tuple[Route, ...], known: tuple[Checked, ...]) -> tuple[Route, ...]:
    """The canonical forms: each has a next hop that the network's subnets reach."""
    at_most("routes", values, MAX_ROUTES)
    done: dict[tuple[str, int], int] = {}
    canonical: list[Route] = []
    for index, value in enumerate(values):
        field = f"routes[{index}]"
        route = _route(field, value, known)
        first = done.setdefault((route.destination, route.metric), index)
        if first != index:
            refuse(f"{field}.destination", f"{route.destination} is that of routes[{first}] with the same metric; remove one")
        canonical.append(route)
    return tuple(canonical)


def _route(field: str, value: Route, known: tuple[Checked, ...]) -> Route:
    if not value.destination:
        refuse(f"{field}.destination", "is missing; write for example 10.9.0.0/16, or 0.0.0.0/0 for everything")
    destination = checked(f"{field}.destination", cidr, value.destination)
    family = [entry for entry in known if entry.cidr.version == destination.version]
    gateway = ""
    if value.gateway:
        found = checked(f"{field}.gateway", address, value.gateway)
        if found.version != destination.version:
            refuse(f"{field}.gateway", f"{found} is not of the family of {destination}; write an address of it", found)
        if not found.is_link_local and not any(found in entry.cidr for entry in family):
            refuse(f"{field}.gateway", f"{found} is in none of the network's subnets; choose one that its pods reach", found)
        gateway = str(found)
    elif not any(entry.subnet.gateway for entry in family):
        refuse(f"{field}.gateway", f"is missing, and no IPv{destination.version} subnet here has a gateway; name the next hop")
    return Route(
        destination=str(destination),
        gateway=gateway,
        metric=number(f"{field}.metric", value.metric, 0, _UINT32, "metric"),
        mtu=mtu(f"{field}.mtu", value.mtu),
    )
