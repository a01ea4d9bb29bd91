"""Views: how full pools are, what is on nodes, what tenants hold, what an address is. All but the
last from counters, at a cost that does not grow."""

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.addresses import address as checked_address
from knitter_common.convert import owner_to_proto, quota_to_proto
from knitter_common.model import Quota, Subnet
from knitter_common.objects.fields import checked
from knitter_manager import keys, numbers
from knitter_manager.allocation.owned import keys_of_set
from knitter_manager.ipam.space import Space
from knitter_manager.records import message_of
from knitter_manager.state import Cluster, NetworkEntry, NodeEntry, TenantEntry
from knitter_manager.store.protocol import Record, Store

_MOST = 2**64 - 1


def network_usage(entry: NetworkEntry, now: float, rest: float) -> pb.NetworkUsage:
    """One network's pools. `now` is the monotonic clock and `rest` the default rest, in seconds."""
    pools = []
    for space in entry.spaces:
        space.settle(now, rest if entry.network.rest is None else entry.network.rest)
        pools += [_pool_usage(space, at) for at in range(len(space.pools))]
    path, network_id = entry.network.path, entry.network.id
    return pb.NetworkUsage(network=path, network_id=network_id, pools=pools, port_sets=entry.sets)


def node_usage(entry: NodeEntry, connected: bool) -> pb.NodeUsage:
    """What is on one node."""
    sets, name = len(entry.owners), entry.node.name
    return pb.NodeUsage(node=name, port_sets=sets, ports=entry.ports, addresses=entry.addresses, connected=connected)


def tenant_usage(entry: TenantEntry, quota: Quota) -> pb.TenantUsage:
    """What one tenant holds of its quota."""
    used = quota_to_proto(entry.used)
    return pb.TenantUsage(tenant=entry.tenant.name, port_sets=len(entry.owners), used=used, quota=quota_to_proto(quota))


def _pool_usage(space: Space, at: int) -> pb.PoolUsage:
    usage = space.usage(at)
    start, end = _ends(space.subnet, space, at)
    return pb.PoolUsage(
        cidr=space.subnet.cidr,
        start=start,
        end=end,
        size=min(usage.size, _MOST),
        used=usage.held,
        reserved=usage.reserved,
        resting=usage.resting,
        free=min(usage.free, _MOST),
    )


def _ends(subnet: Subnet, space: Space, at: int) -> tuple[str, str]:
    if subnet.pools:
        return subnet.pools[at].start, subnet.pools[at].end
    ranges = space.pools[at].ranges
    if not ranges:
        return "", ""
    return numbers.to_text(space.version, ranges[0][0]), numbers.to_text(space.version, ranges[-1][1])


class Addresses:
    """What an address is."""

    def __init__(self, cluster: Cluster, store: Store) -> None:
        self._cluster, self._store = cluster, store

    async def find(self, network: str, address: str) -> list[pb.AddressInfo]:
        """Once for each network that has it in a subnet. Raises Invalid(FIELD_INVALID), StoreDown."""
        address = str(checked("address", checked_address, address))
        entries = [self._cluster.names.find("admin", network, "network")] if network else self._cluster.networks.values()
        found = [(entry, at) for entry in entries if (at := entry.space_of(address)) is not None]
        asked = [keys.address(entry.network.id, address) for entry, _ in found]
        records = await self._store.get(asked)
        told = [
            await self._info(entry, *at, address, records.get(key, Record(key, b"", 0)))
            for (entry, at), key in zip(found, asked, strict=True)
        ]
        return sorted(told, key=lambda one: one.network)

    async def _info(self, entry: NetworkEntry, space: Space, number: int, address: str, record: Record) -> pb.AddressInfo:
        holder = record.value.decode()
        state = self._state(space, number, bool(holder))
        info = pb.AddressInfo(network=entry.network.path, address=address, state=state, key=record.key, revision=record.revision)
        pool = space.group_of(number)
        if pool is not None:
            group = next(one.group for one in entry.groups.values() if pool in [mine for _, mine in one.pools])
            info.ip_group = f"{group.tenant}/{group.name}"
        claim = self._cluster.claims.get(holder)
        if claim is not None:
            info.ip_claim = f"{claim.tenant}/{claim.name}"
            holder = claim.used_by.key if claim.used_by is not None else ""
        elif holder:
            info.orphan = not await self._owns(holder, record)
        if holder and (owner := keys.known_owner_of(holder)) is not None:
            info.owner.CopyFrom(owner_to_proto(owner))
            self._tell_port(info, holder, entry.network.id, address)
        return info

    async def _owns(self, holder: str, record: Record) -> bool:
        """Whether the holder that a record names has the address; where the memory does not say so, the store is asked once
        more."""
        known = self._cluster.sets.get(holder)
        if known is not None and record.key in keys_of_set(message_of(known), {}):
            return True
        set_key = keys.port_set(holder)
        found = await self._store.get([record.key, set_key])
        if found.get(record.key) != record:
            return True  # it has just changed
        stored = found.get(set_key)
        return stored is not None and record.key in keys_of_set(types.PortSet.FromString(stored.value), {})

    def _tell_port(self, info: pb.AddressInfo, holder: str, network_id: str, address: str) -> None:
        record = self._cluster.sets.get(holder)
        message = message_of(record) if record is not None else None
        for port in message.ports if message is not None else ():
            if port.network_id == network_id and any(one.cidr.partition("/")[0] == address for one in port.addresses):
                info.interface, info.node = port.interface, message.node if message is not None else ""
                info.roles.extend(port.roles)

    @staticmethod
    def _state(space: Space, number: int, holder: bool) -> pb.AddressState.ValueType:
        if holder:
            return pb.ADDRESS_STATE_HELD
        state = space.pool_of(number).state_of(number)
        if state is not None and number in space.pool_of(number).resting:
            return pb.ADDRESS_STATE_RESTING
        if space.group_of(number) is not None:
            return pb.ADDRESS_STATE_RESERVED
        return pb.ADDRESS_STATE_FREE if any(number in pool for pool in space.pools) else pb.ADDRESS_STATE_UNUSABLE
