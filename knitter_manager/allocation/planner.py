"""Wishes → ports. Takes addresses in memory at once, so that plans made side by side never collide; a failure gives all of
them back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from knitter_common.addresses import address as checked_address
from knitter_common.errors import Exhausted, Invalid
from knitter_common.model import (
    MAX_ADDRESSES,
    MAX_PORTS,
    Allocation,
    NetworkType,
    Port,
    PortAddress,
    PortSet,
    Quota,
    Route,
    Wish,
    default_tenant,
)
from knitter_common.names import interface as checked_interface
from knitter_manager import keys
from knitter_manager.allocation.addresses import PortAddresses
from knitter_manager.allocation.plan import Plan
from knitter_manager.records import stored
from knitter_manager.state import Cluster, NetworkEntry, TenantEntry

_DEFAULT_WISHES = (Wish(interface="eth0", roles=("std",), primary=True, place="default network"),)
_ON_NODES = (NetworkType.BRIDGE, NetworkType.VXLAN)
_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
_NAME = 15  # bytes of an interface's name
NO_PORTS: Mapping[str, Port] = {}


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds where an object says nothing: rest in seconds, quotas (0 means no limit)."""

    rest: float
    quota: Quota
    admin_quota: Quota


class Planner:
    """`clock` is the monotonic clock in seconds, `wall` the time of day in nanoseconds since 1970."""

    def __init__(self, cluster: Cluster, limits: Limits, clock: Callable[[], float], wall: Callable[[], int]) -> None:
        self._cluster, self._limits, self._clock, self._wall = cluster, limits, clock, wall

    def plan(self, wanted: Allocation, before: PortSet | None = None, attempt: int = 0) -> tuple[Plan, PortSet]:
        """A plan with its conditions and puts, and the set it makes. `before` is the owner's set now: what still fits is kept.

        Raises KnitterError; then nothing is taken.
        """
        plan = Plan()
        try:
            return plan, self._plan(plan, wanted, before, attempt)
        except BaseException:
            plan.undo()
            raise

    def _plan(self, plan: Plan, wanted: Allocation, before: PortSet | None, attempt: int) -> PortSet:
        owner_key = wanted.owner.key
        tenant = wanted.tenant or default_tenant(wanted.owner)
        wishes = wanted.wishes or _DEFAULT_WISHES
        if len(wishes) > MAX_PORTS:
            said = f"{len(wishes)} interfaces are wanted; one owner has at most {MAX_PORTS}"
            raise Invalid("LIMIT_EXCEEDED", said, limit=MAX_PORTS)
        entries = [self._cluster.names.find(tenant, wish.network, place_of(wish, at)) for at, wish in enumerate(wishes)]
        interfaces = interface_names(wishes, [entry.network.name for entry in entries])
        old = {port.interface: port for port in before.ports} if before else NO_PORTS
        free_families = {_hop(hop, place_of(wish, at)) for at, wish in enumerate(wishes) for hop in wish.default_routes}
        ports = []
        for at, (wish, entry) in enumerate(zip(wishes, entries, strict=True)):
            place, kept = place_of(wish, at), old.get(interfaces[at])
            same = kept if kept is not None and kept.network_id == entry.network.id else None
            plan.read(entry)
            addresses = PortAddresses(plan, entry, owner_key, place, self._clock(), self._limits.rest)
            ports.append(_port(addresses, entry, wish, interfaces[at], same, attempt, free_families))
        count = sum(len(port.addresses) for port in ports)
        if count > MAX_ADDRESSES:
            said = f"{count} addresses are wanted; one owner has at most {MAX_ADDRESSES}"
            raise Invalid("LIMIT_EXCEEDED", said, limit=MAX_ADDRESSES)
        old_count = sum(len(port.addresses) for port in before.ports) if before else 0
        self._charge(plan, tenant, len(ports) - len(old), count - old_count)
        port_set = PortSet(
            owner=wanted.owner,
            tenant=tenant,
            node=wanted.node,
            wishes=wanted.wishes,
            ports=tuple(ports),
            binding=wanted.binding,
            create_time=before.create_time if before else self._wall(),
            labels=wanted.labels,
            sticky=wanted.sticky,
        )
        key = keys.port_set(owner_key)
        plan.conditions[key] = before.revision if before else 0
        plan.puts[key] = stored(port_set)
        return port_set

    def _charge(self, plan: Plan, name: str, ports: int, addresses: int) -> None:
        entry = self._cluster.tenant(name)
        quota = self.quota_of(entry)
        for what, limit, used, more in (
            ("ports", quota.ports, entry.ports + entry.pending_ports, ports),
            ("addresses", quota.addresses, entry.addresses + entry.pending_addresses, addresses),
        ):
            if limit and more > 0 and used + more > limit:
                said = f"tenant {name} holds {used} of {limit} {what}; {more} more are wanted"
                raise Exhausted("QUOTA_EXCEEDED", said, tenant=name, quota=what, limit=limit, used=used)
        plan.charge(entry, ports, addresses)

    def quota_of(self, entry: TenantEntry) -> Quota:
        """The tenant's own quota where it says one, else the settings'."""
        own = entry.tenant.quota
        default = self._limits.admin_quota if entry.tenant.name == "admin" else self._limits.quota
        return Quota(own.networks or default.networks, own.ports or default.ports, own.addresses or default.addresses)


def place_of(wish: Wish, at: int) -> str:
    """Where a wish was written, for errors."""
    return wish.place or f"wishes[{at}]"


def _hop(text: str, place: str) -> int:
    """The family of a next hop."""
    try:
        return checked_address(text).version
    except ValueError as error:
        raise Invalid("WISH_INVALID", f"{place}: default route {error}", default_route=text) from None


def interface_names(wishes: Sequence[Wish], networks: Sequence[str]) -> list[str]:
    """The interface of each wish: the name it asks for, else `eth_<network>` cut to what Linux takes, with a number where that
    is taken.

    Raises Invalid(WISH_INVALID) for a name that is none, and for one that is wanted twice.
    """
    taken: dict[str, str] = {}
    for at, wish in enumerate(wishes):
        if not wish.interface:
            continue
        place = place_of(wish, at)
        try:
            name = checked_interface(wish.interface)
        except ValueError as error:
            raise Invalid("WISH_INVALID", f"{place}: interface {error}", interface=wish.interface) from None
        if name in taken:
            said = f"{place}: interface {name!r} is wanted by {taken[name]} too; choose another name"
            raise Invalid("WISH_INVALID", said, interface=name)
        taken[name] = place
    names = []
    for wish, network in zip(wishes, networks, strict=True):
        name, number = wish.interface or f"eth_{network}"[:_NAME], 1
        while not wish.interface and name in taken:
            number += 1
            name = f"eth_{network}"[: _NAME - len(str(number))] + str(number)
        taken.setdefault(name, network)
        names.append(name)
    return names


def _port(
    source: PortAddresses, entry: NetworkEntry, wish: Wish, interface: str, kept: Port | None, attempt: int, routed: set[int]
) -> Port:
    network = entry.network
    stay = tuple(address.cidr.partition("/")[0] for address in kept.addresses) if kept else ()
    addresses = source.take(wish, stay)
    name, mac = source.identity(wish, interface, kept.mac if kept else "", attempt)
    return Port(
        id=name,
        network_id=network.id,
        network=network.path,
        interface=interface,
        mac=mac,
        addresses=addresses,
        routes=routes_of(entry, wish, addresses, routed),
        mtu=network.mtu,
        roles=wish.roles,
        nic_type=wish.nic_type,
        accelerate=wish.accelerate,
        metadata=wish.metadata,
        type=network.type,
        physical_network=network.physical_network,
        segmentation_id=network.segmentation_id,
        node_gateway=network.type in _ON_NODES and not network.external_gateway and any(one.gateway for one in addresses),
        masquerade=network.masquerade,
        dns=network.dns,
        primary=wish.primary,
        place=wish.place,
        bandwidth=wish.bandwidth,
        ip_group=wish.ip_group,
    )


def routes_of(entry: NetworkEntry, wish: Wish, addresses: Sequence[PortAddress], routed: set[int]) -> tuple[Route, ...]:
    """The network's routes; default routes through the next hops that the wish names; for the primary interface a default
    route by its subnet's gateway, unless the network has one or a wish of the set names one of that family (NPWG
    "default-route")."""
    network = entry.network
    if not network.routes and not wish.default_routes and not wish.primary:
        return ()
    gateways = {6 if ":" in one.cidr else 4: one.gateway for one in reversed(addresses) if one.gateway}
    routes: list[Route] = []
    for route in network.routes:
        gateway = route.gateway or gateways.get(6 if ":" in route.destination else 4, "")
        if gateway:
            routes.append(route if route.gateway else replace(route, gateway=gateway))
    routes += [Route(_EVERYWHERE[6 if ":" in hop else 4], hop) for hop in wish.default_routes]
    if wish.primary:
        there = {route.destination for route in routes if not route.metric}
        for family, gateway in sorted(gateways.items()):
            if family not in routed and _EVERYWHERE[family] not in there:
                routes.append(Route(_EVERYWHERE[family], gateway))
    return tuple(routes)


