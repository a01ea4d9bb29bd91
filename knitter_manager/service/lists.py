"""What a listing shows: (key, item) in order of key, from after a key on."""

from collections.abc import Container, Iterator

from knitter_common.model import ADMIN, IPClaim, Node, Tenant
from knitter_manager.objects.tenants import is_there, shown
from knitter_manager.state import Cluster, GroupEntry, NetworkEntry, NodeEntry, TenantEntry
from knitter_manager.state.names import visible_to

# Few keys among many are sorted, and many are found soon by walking over all: the two cost the same for f of n keys and pages of
# some hundreds where f² is about so many times n.
_SORTED = 300


def networks(cluster: Cluster, tenant: str, after: str) -> Iterator[tuple[str, NetworkEntry]]:
    """Those that a tenant can use, or all; by tenant and name."""
    found = {entry.network.path: entry for entry in cluster.names.all()}
    for path in sorted(path for path in found if path > after):
        if not tenant or visible_to(found[path].network, tenant):
            yield path, found[path]


def tenants(cluster: Cluster, after: str) -> Iterator[tuple[str, Tenant]]:
    """With what they use."""
    for name, entry in tenant_usage(cluster, after):
        yield name, shown(cluster, entry)


def tenant_usage(cluster: Cluster, after: str) -> Iterator[tuple[str, TenantEntry]]:
    """Those that were made or hold something."""
    for name in sorted(name for name, entry in cluster.tenants.items() if name > after and is_there(entry)):
        yield name, cluster.tenants[name]


def groups(cluster: Cluster, tenant: str, network: str, after: str) -> Iterator[tuple[str, GroupEntry]]:
    """Those of a tenant, on a network; by network's id, tenant and name."""
    entries = cluster.networks.values()
    if network:
        entry = cluster.names.at(network if "/" in network else f"{tenant or ADMIN}/{network}")
        entries = {"": entry}.values() if entry is not None else {}.values()
    found = {key: group for entry in entries for key, group in entry.groups.items() if key > after}
    for key in sorted(found):
        if tenant in ("", found[key].group.tenant):
            yield key, found[key]


def claims(cluster: Cluster, tenant: str, after: str) -> Iterator[tuple[str, IPClaim]]:
    """By tenant and name."""
    for key in sorted(key for key in cluster.claims if key > after):
        if tenant in ("", cluster.claims[key].tenant):
            yield key, cluster.claims[key]


def nodes(cluster: Cluster, after: str) -> Iterator[tuple[str, Node]]:
    """Registered ones."""
    for name in sorted(name for name, entry in cluster.nodes.items() if entry.node.revision and name > after):
        yield name, cluster.nodes[name].node


def node_usage(cluster: Cluster, after: str) -> Iterator[tuple[str, NodeEntry]]:
    """Those that registered or have a set."""
    for name in sorted(name for name, entry in cluster.nodes.items() if (entry.node.revision or entry.owners) and name > after):
        yield name, cluster.nodes[name]


def port_sets(cluster: Cluster, tenant: str, node: str, network: str, after: str) -> Iterator[tuple[str, bytes]]:
    """Those of a tenant, of a node, with a port on a network ("tenant/name"); "" leaves that open. Walk it without a pause."""
    filters: list[set[str]] = []
    if tenant:
        filters.append(cluster.tenants[tenant].owners if tenant in cluster.tenants else set())
    if node:
        filters.append(cluster.nodes[node].owners if node in cluster.nodes else set())
    if network:
        entry = cluster.names.at(network if "/" in network else f"{tenant or ADMIN}/{network}")
        filters.append(entry.owners if entry is not None else set())
    filters.sort(key=len)
    sets: Container[str] = cluster.sets
    candidates = cluster.order.after(after)
    if filters and len(filters[0]) ** 2 < _SORTED * len(cluster.sets):
        candidates = iter(sorted(key for key in filters[0] if key > after and key in sets))
    for key in candidates:
        if all(key in wanted for wanted in filters):
            yield key, cluster.sets[key]
