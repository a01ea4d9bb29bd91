"""Who asks for ports, as selectors see it: labels of its namespace, its pod and its node."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from knitter_common.errors import Denied
from knitter_common.model import LabelSelector, Usability
from knitter_manager.ipam.space import Space
from knitter_manager.labels import matches, shown
from knitter_manager.state import Cluster, NetworkEntry


@dataclass(frozen=True, slots=True)
class Asker:
    """`node_labels` is None while it is not known which node the ports are for."""

    tenant: str
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    node: str = ""
    node_labels: Mapping[str, str] | None = None


def asker_of(cluster: Cluster, tenant: str, labels: Mapping[str, str], node: str) -> Asker:
    """With the labels that the tenant and the node have now."""
    entry = cluster.nodes.get(node) if node else None
    known = cluster.tenants.get(tenant)
    return Asker(
        tenant,
        known.tenant.labels if known is not None else {},
        labels,
        node,
        (entry.node.labels if entry is not None else {}) if node else None,
    )


def refuse_unless_usable(entry: NetworkEntry, asker: Asker, place: str) -> None:
    """Raises Denied(TENANT_DENIED) naming the side that does not match."""
    usability = entry.network.usable_by
    if usability is None or (lacking := _lacking(usability, asker)) is None:
        return
    side, selector = lacking
    who = {"namespaces": f"tenant {asker.tenant}", "pods": "the pod", "nodes": f"node {asker.node or '(not known yet)'}"}[side]
    said = f"{place}: network {entry.network.path} is for {side} with labels {shown(selector)}, and {who} has not"
    raise Denied("TENANT_DENIED", said, network=entry.network.path, side=side)


def usable_pools(space: Space, asker: Asker) -> tuple[int, ...]:
    """The pools of a subnet that the asker may use, by index, in order."""
    pools = space.subnet.pools
    if not pools:
        return (0,)
    return tuple(at for at, pool in enumerate(pools) if pool.usable_by is None or _lacking(pool.usable_by, asker) is None)


def _lacking(usability: Usability, asker: Asker) -> tuple[str, LabelSelector] | None:
    """The first side whose selector does not hold."""
    sides: tuple[tuple[str, LabelSelector | None, Mapping[str, str] | None], ...] = (
        ("namespaces", usability.namespaces, asker.namespace_labels),
        ("pods", usability.pods, asker.pod_labels),
        ("nodes", usability.nodes, asker.node_labels),
    )
    for side, selector, labels in sides:
        if selector is not None and (labels is None or not matches(selector, labels)):
            return side, selector
    return None
