"""What is kept beside a network, a tenant and a node: who uses it, and how much. `pending` counts what is planned, not yet
durable."""

from knitter_common.model import IPGroup, Network, NetworkType, Node, Quota, Tenant
from knitter_manager import numbers
from knitter_manager.ipam.pool import Pool
from knitter_manager.ipam.space import Space

_BY_DEVICE = (NetworkType.MACVLAN, NetworkType.IPVLAN, NetworkType.HOST_DEVICE)


def segment_of(network: Network) -> str:
    """The layer 2 segment that a network is, or is a part of: MACs are unique in it and subnets do not overlap.

    A bridge without a physical network, and an overlay, is a segment of its own; a VLAN is one with others of that physical
    network and id; what sits on a device is one with all that sit on it.
    """
    if network.type is NetworkType.VXLAN or not network.physical_network:
        return network.id
    if network.type in _BY_DEVICE or not network.segmentation_id:
        return f"dev.{network.physical_network}"
    return f"vlan.{network.physical_network}.{network.segmentation_id}"


class GroupEntry:
    """An IP group with the pools of its addresses, one for each subnet that has some."""

    __slots__ = ("group", "key", "pools")

    def __init__(self, key: str, group: IPGroup) -> None:
        self.key, self.group = key, group
        self.pools: list[tuple[Space, Pool]] = []

    @property
    def held(self) -> int:
        """How many of its addresses are used."""
        return sum(pool.held for _, pool in self.pools)


class NetworkEntry:
    """A network with its addresses, groups and users."""

    __slots__ = ("families", "groups", "key", "network", "owners", "pending", "segment", "sets", "spaces")

    def __init__(self, network: Network) -> None:
        self.network = network
        self.segment = segment_of(network)
        self.key = f"network/{network.id}"
        self.spaces = tuple(Space(subnet) for subnet in network.subnets)
        self.families = _families(self.spaces)
        self.groups: dict[str, GroupEntry] = {}  # by key of the store
        self.owners: set[str] = set()  # keys of the owners of sets with a port here, and of claims
        self.sets = 0  # how many of them are sets
        self.pending = 0

    def reshape(self, network: Network) -> None:
        """The network's new shape; who holds an address still does."""
        before = {space.subnet.cidr: space for space in self.spaces}
        spaces = []
        for subnet in network.subnets:
            space = before.get(subnet.cidr)
            if space is None:
                spaces.append(Space(subnet))
            else:
                spaces.append(space if space.subnet == subnet else space.reshaped(subnet))
        self.network, self.segment, self.spaces = network, segment_of(network), tuple(spaces)
        self.families = _families(self.spaces)
        for group in self.groups.values():
            self._set_aside(group)

    def put_group(self, key: str, group: IPGroup) -> None:
        """A new group, or what it is now."""
        entry = self.groups.get(key)
        same = entry is not None and [one.address for one in entry.group.addresses] == [one.address for one in group.addresses]
        if entry is None:
            entry = self.groups[key] = GroupEntry(key, group)
        entry.group = group
        if not same:
            self._set_aside(entry)

    def drop_group(self, key: str) -> None:
        """Its addresses are everybody's again."""
        entry = self.groups.pop(key, None)
        if entry is not None:
            for space, pool in entry.pools:
                space.ungroup(pool)

    def _set_aside(self, entry: GroupEntry) -> None:
        for space, pool in entry.pools:
            space.ungroup(pool)
        numbers_of: dict[Space, list[int]] = {}
        for one in entry.group.addresses:
            at = self.space_of(one.address)
            if at is not None:
                numbers_of.setdefault(at[0], []).append(at[1])
        entry.pools = [(space, space.group(found)) for space, found in numbers_of.items()]

    def space_of(self, address: str) -> tuple[Space, int] | None:
        """The subnet that holds an address, and the address as a number."""
        number, version = numbers.to_number(address), 6 if ":" in address else 4
        for space in self.spaces:
            if space.version == version and space.first <= number <= space.last:
                return space, number
        return None


def _families(spaces: tuple[Space, ...]) -> tuple[tuple[int, tuple[Space, ...]], ...]:
    """The subnets of each family that there are some of, IPv4 first."""
    by_version = ((version, tuple([space for space in spaces if space.version == version])) for version in (4, 6))
    return tuple([(version, found) for version, found in by_version if found])


class TenantEntry:
    """A tenant and what it holds. One that was never made has revision 0. `coming` is what it is about to become, while the store
    has not answered: nothing goes beyond the quotas of either."""

    __slots__ = ("addresses", "coming", "limits", "networks", "owners", "pending_addresses", "pending_ports", "ports", "tenant")

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.coming: Tenant | None = None
        self.limits: tuple[Tenant, Quota] | None = None  # what was worked out from this tenant
        self.owners: set[str] = set()
        self.networks = self.ports = self.addresses = self.pending_ports = self.pending_addresses = 0

    @property
    def used(self) -> Quota:
        """What it holds now."""
        return Quota(self.networks, self.ports, self.addresses)


class NodeEntry:
    """A node and the sets that are for it. One that never registered has revision 0."""

    __slots__ = ("addresses", "node", "owners", "ports")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.owners: set[str] = set()
        self.ports = self.addresses = 0
