"""Views: how full pools are, what is on nodes, what an address is. All but the last from counters, at a cost that does not grow."""

from knitter.v1 import manager_pb2 as pb
from knitter_common.addresses import address as checked_address
from knitter_common.convert import owner_to_proto
from knitter_common.model import Subnet
from knitter_common.objects.fields import checked
from knitter_manager import keys, numbers
from knitter_manager.ipam.space import Space
from knitter_manager.records import message_of
from knitter_manager.state import Cluster, NetworkEntry
from knitter_manager.store.protocol import Store

_MOST = 2**64 - 1


def network_usage(entry: NetworkEntry, now: float, rest: float) -> pb.NetworkUsage:
    """One network's pools. `now` is the monotonic clock and `rest` the default rest, in seconds."""
    pools = []
    for space in entry.spaces:
        space.settle(now, rest if entry.network.rest is None else entry.network.rest)
        pools += [_pool_usage(space, at) for at in range(len(space.pools))]
    path, network_id = entry.network.path, entry.network.id
    return pb.NetworkUsage(network=path, network_id=network_id, pools=pools, port_sets=entry.sets)


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
        holders = [records[key].value.decode() if key in records else "" for key in asked]
        told = [self._info(entry, *at, address, holder) for (entry, at), holder in zip(found, holders, strict=True)]
        return sorted(told, key=lambda one: one.network)

    def _info(self, entry: NetworkEntry, space: Space, number: int, address: str, holder: str) -> pb.AddressInfo:
        info = pb.AddressInfo(network=entry.network.path, address=address, state=self._state(space, number, bool(holder)))
        pool = space.group_of(number)
        if pool is not None:
            group = next(one.group for one in entry.groups.values() if pool in [mine for _, mine in one.pools])
            info.ip_group = f"{group.tenant}/{group.name}"
        claim = self._cluster.claims.get(holder)
        if claim is not None:
            info.ip_claim = f"{claim.tenant}/{claim.name}"
            holder = claim.used_by.key if claim.used_by is not None else ""
        if holder:
            info.owner.CopyFrom(owner_to_proto(keys.owner_of(holder)))
            self._tell_port(info, holder, entry.network.id, address)
        return info

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
