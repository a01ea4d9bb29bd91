"""What a listing shows, in order of key."""

from collections.abc import Iterator

from knitter_common.errors import Invalid
from knitter_common.model import Network, Node
from knitter_manager import keys
from knitter_manager.state import Cluster
from knitter_manager.state.names import visible_to
from knitter_manager.store.protocol import Store


def networks(cluster: Cluster, tenant: str, after: str) -> Iterator[tuple[str, Network]]:
    """Those that a tenant can use, or all; by tenant and name."""
    found = {entry.network.path: entry.network for entry in cluster.names.all()}
    for path in sorted(path for path in found if path > after):
        if not tenant or visible_to(found[path], tenant):
            yield path, found[path]


def nodes(cluster: Cluster, after: str) -> Iterator[tuple[str, Node]]:
    """Registered ones."""
    for name in sorted(name for name, entry in cluster.nodes.items() if entry.node.revision and name > after):
        yield name, cluster.nodes[name].node


def port_sets(cluster: Cluster, tenant: str, node: str, network: str, after: str) -> Iterator[tuple[str, bytes]]:
    """Those of a tenant, of a node, with a port on a network ("tenant/name"); "" leaves that open. Walk it without a pause."""
    filters: list[set[str]] = []
    if tenant:
        filters.append(cluster.tenants[tenant].owners if tenant in cluster.tenants else set())
    if node:
        filters.append(cluster.nodes[node].owners if node in cluster.nodes else set())
    if network:
        entry = cluster.names.at(network if "/" in network else f"{tenant or 'admin'}/{network}")
        filters.append(entry.owners if entry is not None else set())
    filters.sort(key=len)
    few = filters[0] if filters and len(filters[0]) < 1000 else None
    candidates = sorted(key for key in few if key > after) if few is not None else cluster.order.after(after)
    for key in candidates:
        if all(key in wanted for wanted in filters):
            yield key, cluster.sets[key]


async def holder_of(cluster: Cluster, store: Store, network: str, address: str) -> str:
    """The key of the owner that holds an address, on a network or on any; "" for none. Raises StoreDown."""
    try:
        asked = [
            keys.address(entry.network.id, address)
            for entry in cluster.networks.values()
            if (not network or entry.network.path == network) and entry.space_of(address) is not None
        ]
    except OSError:
        raise Invalid("FIELD_INVALID", f"address: {address!r} is no address", field="address", value=address) from None
    for record in (await store.get(asked)).values():
        if record.value:
            return record.value.decode()
    return ""
