"""What the hub needs to know of a change: its key, whom it concerns, and what of it each topic may see.

The only file of the hub that looks inside a message. Changes travel through the monitor as the manager sent them, not as
dataclasses: what a newer manager adds reaches newer agents through an older monitor, and a push costs no conversion.

    node/<name>    the node's port sets, whole
    network/<id>   the network; of an overlay also who is where: the ports on it of all port sets (no wishes, labels or other
                   networks' ports), and the nodes that carry them with their underlay addresses
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from knitter.v1 import types_pb2 as types
from knitter_common.convert import owner_from_proto

PORT_SET, NETWORK, NODE = "portset/", "network/", "node/"
OVERLAYS = frozenset({types.NETWORK_TYPE_VXLAN})


@dataclass(frozen=True, slots=True)
class Fact:
    """A change, read once. `change` None: of a kind that no topic shows; `deleted`: it is a tombstone."""

    key: str
    revision: int
    change: types.Change
    deleted: bool = False
    node: str = ""
    networks: frozenset[str] = frozenset()
    overlays: frozenset[str] = frozenset()
    topics: Mapping[str, types.Change] = field(default_factory=dict)


def read(change: types.Change) -> Fact:
    """Raises Invalid for an owner of no kind."""
    match change.WhichOneof("object"):
        case "port_set":
            return _port_set(change)
        case "network":
            topic = NETWORK + change.network.id
            return Fact(topic, change.revision, change, topics={topic: change})
        case "node":
            return Fact(NODE + change.node.name, change.revision, change, node=change.node.name)
        case "deleted":
            return Fact(change.deleted.key, change.revision, change, deleted=True)
        case kind:
            return Fact(f"{kind}/", change.revision, change)  # tenants, groups and claims: no node needs them


def tombstone(key: str, revision: int, of: types.Change) -> types.Change:
    """The order to let go of `key`, made from what was last told of it."""
    owner = of.port_set.owner if of.WhichOneof("object") == "port_set" else None
    return types.Change(revision=revision, deleted=types.Tombstone(key=key, owner=owner))


def at(revision: int, change: types.Change) -> types.Change:
    """The same object, told at another revision: it became visible in a topic by a change of something else."""
    copy = types.Change()
    copy.CopyFrom(change)
    copy.revision = revision
    return copy


def _port_set(change: types.Change) -> Fact:
    port_set = change.port_set
    key = PORT_SET + owner_from_proto(port_set.owner).key
    if not port_set.node or port_set.state == types.PORT_SET_STATE_KEPT:
        return Fact(key, change.revision, change)
    networks = frozenset(port.network_id for port in port_set.ports if port.network_id)
    overlays = frozenset(port.network_id for port in port_set.ports if port.network_id and port.type in OVERLAYS)
    topics = {NODE + port_set.node: change}
    topics.update((NETWORK + network, _whereabouts(change, network)) for network in overlays)
    return Fact(key, change.revision, change, node=port_set.node, networks=networks, overlays=overlays, topics=topics)


def _whereabouts(change: types.Change, network: str) -> types.Change:
    port_set = change.port_set
    ports = [
        types.Port(id=port.id, network_id=port.network_id, network=port.network, mac=port.mac, addresses=port.addresses)
        for port in port_set.ports
        if port.network_id == network
    ]
    shown = types.PortSet(owner=port_set.owner, node=port_set.node, ports=ports, state=port_set.state, revision=port_set.revision)
    return types.Change(revision=change.revision, port_set=shown)
