"""Wishes → ports. Takes addresses in memory at once, so that plans made side by side never collide; a failure gives all of
them back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from knitter_common.addresses import address as checked_address
from knitter_common.convert import tenant_to_proto
from knitter_common.errors import Denied, Exhausted, Invalid, Refused
from knitter_common.model import (
    ADMIN,
    MAX_ADDRESSES,
    MAX_PORTS,
    Allocation,
    Network,
    NetworkType,
    NicType,
    ObjectState,
    Owner,
    PodOwner,
    Port,
    PortAddress,
    PortSet,
    Quota,
    Route,
    Wish,
    default_tenant,
)
from knitter_common.names import interface as _interface
from knitter_common.objects.validate import type_name
from knitter_manager import keys
from knitter_manager.allocation.addresses import PortAddresses, group_for, port_address
from knitter_manager.allocation.asker import Asker, refuse_unless_usable
from knitter_manager.allocation.claiming import find_claim, use_claim
from knitter_manager.allocation.ending import own_ports
from knitter_manager.allocation.plan import Plan
from knitter_manager.ipam.mac import port_identity
from knitter_manager.state import Cluster, NetworkEntry, TenantEntry

_DEFAULT_WISHES = (Wish(interface="eth0", roles=("std",), primary=True, place="default network"),)
_ON_NODES = (NetworkType.BRIDGE, NetworkType.VXLAN)
_DEVICES = {NicType.DIRECT: NetworkType.SRIOV, NicType.PHYSICAL: NetworkType.HOST_DEVICE}
_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
_NAME = 15  # bytes of an interface's name
checked_interface = lru_cache(4096)(_interface)
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
        self.cluster = self._cluster = cluster
        self._limits, self._clock, self.wall = limits, clock, wall

    def plan(self, wanted: Allocation, before: PortSet | None = None, attempt: int = 0) -> tuple[Plan, PortSet]:
        """A plan for the ports, and the set it makes, which the caller stores. `before` is the owner's set now: what still
        fits is kept.

        Raises KnitterError; then nothing is taken.
        """
        plan = Plan()
        _refuse_operators_namespace(wanted)
        try:
            return plan, self._plan(plan, wanted, before, attempt)
        except BaseException:
            plan.undo()
            raise

    def _plan(self, plan: Plan, wanted: Allocation, before: PortSet | None, attempt: int) -> PortSet:
        tenant = wanted.tenant or default_tenant(wanted.owner)
        self.ensure_tenant(plan, tenant)
        wishes = wanted.wishes or _DEFAULT_WISHES
        if len(wishes) > MAX_PORTS:
            said = f"{len(wishes)} interfaces are wanted; one owner has at most {MAX_PORTS}"
            raise Invalid("LIMIT_EXCEEDED", said, limit=MAX_PORTS)
        places = [place_of(wish, at) for at, wish in enumerate(wishes)]
        entries = [self._cluster.names.find(tenant, wish.network, place) for wish, place in zip(wishes, places, strict=True)]
        interfaces = interface_names(wishes, places, [entry.network.name for entry in entries])
        asker = Asker(self._cluster, tenant, wanted.labels, wanted.node)
        routed = {_hop(hop, place) for wish, place in zip(wishes, places, strict=True) for hop in wish.default_routes}
        old = {port.interface: port for port in own_ports(before)} if before else NO_PORTS
        wired = _Wiring(self, plan, wanted.owner, asker, before.owner if before else None, routed, attempt)
        ports = []
        count = own = 0  # addresses, and those that are not a claim's
        for wish, place, entry, interface in zip(wishes, places, entries, interfaces, strict=True):
            kept = old.get(interface)
            same = kept if kept is not None and kept.network_id == entry.network.id else None
            port = wired.port(wish, entry, interface, same, place)
            ports.append(port)
            count += len(port.addresses)
            own += 0 if wish.ip_claim else len(port.addresses)
        if count > MAX_ADDRESSES:
            said = f"{count} addresses are wanted; one owner has at most {MAX_ADDRESSES}"
            raise Invalid("LIMIT_EXCEEDED", said, limit=MAX_ADDRESSES)
        had = sum(len(port.addresses) for port in old.values()) if old else 0
        self.charge(plan, tenant, len(ports) - (len(before.ports) if before else 0), own - had)
        return PortSet(
            owner=wanted.owner,
            tenant=tenant,
            node=wanted.node,
            wishes=wanted.wishes,
            ports=tuple(ports),
            binding=wanted.binding,
            create_time=before.create_time if before else self.wall(),
            labels=wanted.labels,
            sticky=wanted.sticky,
        )

    def addresses(self, plan: Plan, entry: NetworkEntry, owner_key: str, place: str, asker: Asker) -> PortAddresses:
        """Where one port's addresses come from."""
        return PortAddresses(plan, entry, owner_key, place, asker, self._clock(), self._limits.rest)

    def ensure_tenant(self, plan: Plan, name: str) -> None:
        """A tenant is made when it is first used. Raises Refused(OBJECT_DELETING)."""
        tenant = self._cluster.tenant(name).tenant
        if tenant.state is ObjectState.DELETING:
            raise Refused("OBJECT_DELETING", f"tenant {name} is being deleted, and takes nothing new", tenant=name)
        if not tenant.revision:
            made = replace(tenant, create_time=self.wall(), source="api")
            plan.conditions[keys.tenant(name)] = 0
            plan.puts[keys.tenant(name)] = tenant_to_proto(made).SerializeToString()

    def charge(self, plan: Plan, name: str, ports: int, addresses: int) -> None:
        """Counts what the tenant will hold in addition. Raises Exhausted(QUOTA_EXCEEDED)."""
        entry = self._cluster.tenant(name)
        quota = self._limit_of(entry)
        if not quota.ports and not quota.addresses:
            plan.charge(entry, ports, addresses)
            return
        for what, limit, used, more in (
            ("ports", quota.ports, entry.ports + entry.pending_ports, ports),
            ("addresses", quota.addresses, entry.addresses + entry.pending_addresses, addresses),
        ):
            if limit and more > 0 and used + more > limit:
                said = f"tenant {name} holds {used} of {limit} {what}; {more} more are wanted"
                raise Exhausted("QUOTA_EXCEEDED", said, tenant=name, quota=what, limit=limit, used=used)
        plan.charge(entry, ports, addresses)

    def _limit_of(self, entry: TenantEntry) -> Quota:
        """The tenant's quotas, or the lower ones that are about to be its."""
        quota = self.quota_of(entry)
        if entry.coming is None:
            return quota
        coming = self.quota_of(TenantEntry(entry.coming))
        return Quota(quota.networks, _lower(quota.ports, coming.ports), _lower(quota.addresses, coming.addresses))

    def quota_of(self, entry: TenantEntry) -> Quota:
        """The tenant's own quota where it says one, else the settings'."""
        if entry.limits is not None and entry.limits[0] is entry.tenant:
            return entry.limits[1]
        own = entry.tenant.quota
        default = self._limits.admin_quota if entry.tenant.name == "admin" else self._limits.quota
        quota = Quota(own.networks or default.networks, own.ports or default.ports, own.addresses or default.addresses)
        entry.limits = (entry.tenant, quota)
        return quota


def place_of(wish: Wish, at: int) -> str:
    """Where a wish was written, for errors."""
    return wish.place or f"wishes[{at}]"


def _refuse_other_devices(wish: Wish, network: Network, place: str) -> None:
    """Raises Invalid(WISH_INVALID) for a device that a network of this type has not. Virtual ones mean whatever it has."""
    needed = _DEVICES.get(wish.nic_type)
    if needed is None or network.type is needed:
        return
    kind = wish.nic_type.name.lower()
    said = f"{place}: nic_type {kind}: network {network.path} is of type {type_name(network.type)}; use one of type "
    raise Invalid("WISH_INVALID", f"{said}{type_name(needed)}, or nic_type normal", nic_type=kind, network=network.path)


def _lower(one: int, other: int) -> int:
    """The lower one of two limits, of which 0 means none."""
    return min(one, other) if one and other else one or other


def _refuse_operators_namespace(wanted: Allocation) -> None:
    """A namespace of the operator's name gives nobody the operator's networks. Raises Denied(TENANT_DENIED)."""
    if isinstance(wanted.owner, PodOwner) and wanted.owner.namespace == ADMIN and not wanted.tenant:
        said = f"namespace {ADMIN} cannot be a tenant: that is the operator's name; rename the namespace"
        raise Denied("TENANT_DENIED", said, tenant=ADMIN)


def _hop(text: str, place: str) -> int:
    """The family of a next hop."""
    try:
        return checked_address(text).version
    except ValueError as error:
        raise Invalid("WISH_INVALID", f"{place}: default route {error}", default_route=text) from None


def interface_names(wishes: Sequence[Wish], places: Sequence[str], networks: Sequence[str]) -> list[str]:
    """The interface of each wish, written at that place: the name it asks for, else `eth_<network>` cut to what Linux takes, with
    a number where that is taken.

    Raises Invalid(WISH_INVALID) for a name that is none, and for one that is wanted twice.
    """
    taken: dict[str, str] = {}
    for wish, place in zip(wishes, places, strict=True):
        if not wish.interface:
            continue
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


class _Wiring:
    """Makes the ports of one plan."""

    def __init__(
        self, planner: Planner, plan: Plan, owner: Owner, asker: Asker, before: Owner | None, routed: set[int], attempt: int
    ) -> None:
        self._planner, self._plan, self._owner, self._asker = planner, plan, owner, asker
        self._owner_key, self._before, self._routed, self._attempt = owner.key, before, routed, attempt

    def port(self, wish: Wish, entry: NetworkEntry, interface: str, kept: Port | None, place: str) -> Port:
        """One port. `kept` is the owner's on that network under that name."""
        network, path = entry.network, entry.network.path
        if network.state is ObjectState.DELETING:
            raise Refused("OBJECT_DELETING", f"{place}: network {path} is being deleted", network=path)
        _refuse_other_devices(wish, network, place)
        refuse_unless_usable(entry, self._asker, place)
        self._plan.read(entry)
        if wish.ip_claim:
            name, addresses, mac, group = *self._claimed(wish, entry, interface, place), ""
        else:
            name, addresses, mac, group = self._own(wish, entry, interface, kept, place)
        return Port(
            id=name,
            network_id=network.id,
            network=path,
            interface=interface,
            mac=mac,
            addresses=addresses,
            routes=routes_of(entry, wish, addresses, self._routed),
            mtu=network.mtu,
            roles=wish.roles,
            nic_type=wish.nic_type,
            accelerate=wish.accelerate,
            metadata=wish.metadata,
            type=network.type,
            physical_network=network.physical_network,
            segmentation_id=network.segmentation_id,
            node_gateway=_is_gateway(network) and any(one.gateway for one in addresses),
            masquerade=network.masquerade,
            dns=network.dns,
            primary=wish.primary,
            place=wish.place,
            bandwidth=wish.bandwidth,
            ip_group=group,
            public=network.public,
            exported=bool(network.exported_to),
            external=network.external,
            default_network=path == self._planner.cluster.names.default_network,
        )

    def _own(
        self, wish: Wish, entry: NetworkEntry, interface: str, kept: Port | None, place: str
    ) -> tuple[str, tuple[PortAddress, ...], str, str]:
        source = self._planner.addresses(self._plan, entry, self._owner_key, place, self._asker)
        stay = [address.cidr.partition("/")[0] for address in kept.addresses] if kept else ()
        group = group_for(entry, wish, self._asker, place)
        addresses = source.take(wish, stay, group)
        name, mac = source.identity(wish, interface, kept.mac if kept else "", self._attempt)
        return name, addresses, mac, group.group.name if group else ""

    def _claimed(self, wish: Wish, entry: NetworkEntry, interface: str, place: str) -> tuple[str, tuple[PortAddress, ...], str]:
        if wish.addresses or wish.mac or wish.ip_group:
            said = f"{place}: names a claim, which brings its own addresses and MAC; remove the addresses, the MAC and the group"
            raise Invalid("WISH_INVALID", said, ip_claim=wish.ip_claim)
        claim = find_claim(self._planner.cluster, self._asker.tenant, wish.ip_claim, entry.network, place)
        use_claim(self._plan, claim, self._owner, self._before, place)
        addresses = []
        for one in claim.addresses:  # gateways may have changed since
            at = entry.space_of(one.cidr.partition("/")[0])
            addresses.append(port_address(*at) if at is not None else one)
        return port_identity(self._owner_key, interface)[0], tuple(addresses), claim.mac


def _is_gateway(network: Network) -> bool:
    """Whether nodes carry the network's gateways: not on a bridge that is somebody else's."""
    return network.type in _ON_NODES and not network.external_gateway and not network.external


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
