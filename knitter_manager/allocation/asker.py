"""Who asks for ports, as selectors see it: labels of its namespace, its pod and its node."""

from collections.abc import Mapping

from knitter_common.errors import Denied
from knitter_common.model import LabelSelector, Usability
from knitter_manager.ipam.space import Space
from knitter_manager.labels import matches, shown
from knitter_manager.state import Cluster, NetworkEntry


class Asker:
    """Labels are looked up when a selector asks for them; most do not. `pod_labels` are told in the request."""

    __slots__ = ("_cluster", "node", "pod_labels", "tenant")

    def __init__(self, cluster: Cluster, tenant: str, pod_labels: Mapping[str, str], node: str) -> None:
        self._cluster, self.tenant, self.pod_labels, self.node = cluster, tenant, pod_labels, node

    @property
    def namespace_labels(self) -> Mapping[str, str]:
        """Those that the tenant has now."""
        entry = self._cluster.tenants.get(self.tenant)
        return entry.tenant.labels if entry is not None else {}

    @property
    def node_labels(self) -> Mapping[str, str] | None:
        """Those that the node has now; None while it is not known which node the ports are for."""
        if not self.node:
            return None
        entry = self._cluster.nodes.get(self.node)
        return entry.node.labels if entry is not None else {}


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
    if not space.selective:
        return space.all_pools
    return tuple(at for at, pool in enumerate(pools) if pool.usable_by is None or _lacking(pool.usable_by, asker) is None)


def _lacking(usability: Usability, asker: Asker) -> tuple[str, LabelSelector] | None:
    """The first side whose selector does not hold."""
    if usability.namespaces is not None and not matches(usability.namespaces, asker.namespace_labels):
        return "namespaces", usability.namespaces
    if usability.pods is not None and not matches(usability.pods, asker.pod_labels):
        return "pods", usability.pods
    labels = asker.node_labels
    if usability.nodes is not None and (labels is None or not matches(usability.nodes, labels)):
        return "nodes", usability.nodes
    return None
