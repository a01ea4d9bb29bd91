"""What the hub needs to know of a change: its key, whom it concerns, and what of it each topic may see.

The only file of the hub that looks inside a message. Changes travel through the monitor as bytes, as the manager sent them: what a
newer manager adds reaches newer agents through an older monitor, a push costs no conversion, and no message keeps the memory of the
whole batch alive that it came in.

    node/<name>    the node's port sets, whole
    network/<id>   the network; of an overlay also who is where: the ports on it of all port sets (no wishes, labels or other
                   networks' ports), and the nodes that carry them with their underlay addresses
"""

import functools
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from knitter.v1 import monitor_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.convert import owner_from_proto

PORT_SET, NETWORK, NODE = "portset/", "network/", "node/"
OVERLAYS = frozenset({types.NETWORK_TYPE_VXLAN})

# One Change as it stands in TopicChanges.changes on the wire: tag, length, message. Joined, they are a TopicChanges.
Wire = bytes


@dataclass(frozen=True, slots=True)
class Fact:
    """What stays of a change. `node` and `networks` are of a port set that a node has; `shown`: some topic shows it."""

    key: str
    revision: int
    wire: Wire
    deleted: bool = False
    shown: bool = False
    node: str = ""
    networks: frozenset[str] = frozenset()
    overlays: frozenset[str] = frozenset()

    @property
    def topics(self) -> frozenset[str]:
        """Where it is to be seen."""
        if not self.shown:
            return frozenset()
        if not self.node:
            return frozenset((self.key,))
        return frozenset((NODE + self.node, *(NETWORK + network for network in self.overlays)))

    def seen_in(self, topic: str) -> Wire:
        """What that topic may see of it."""
        if topic.startswith(NODE) or not self.node:
            return self.wire
        return _whereabouts(change_of(self.wire), topic.removeprefix(NETWORK))


def read(change: types.Change) -> Fact:
    """Raises Invalid for an owner of no kind."""
    match change.WhichOneof("object"):
        case "port_set":
            return _port_set(change)
        case "network":
            return Fact(NETWORK + change.network.id, change.revision, wire_of(change), shown=True)
        case "node":
            return Fact(NODE + change.node.name, change.revision, wire_of(change))
        case "deleted":
            return Fact(change.deleted.key, change.revision, wire_of(change), deleted=True)
        case kind:
            return Fact(f"{kind}/", change.revision, b"")  # tenants, groups and claims: no node needs them


def wire_of(change: types.Change) -> Wire:
    """A change for the wire."""
    return pb.TopicChanges(changes=[change]).SerializeToString()


def message_of(wires: Iterable[Wire]) -> pb.TopicChanges:
    """The message that holds them all."""
    return pb.TopicChanges.FromString(b"".join(wires))


def change_of(wire: Wire) -> types.Change:
    """One of them, to be read."""
    return pb.TopicChanges.FromString(wire).changes[0]


def tombstone(key: str, revision: int, last: Wire) -> Wire:
    """The order to let go of `key`, made from what was last told of it."""
    of = change_of(last)
    owner = of.port_set.owner if of.WhichOneof("object") == "port_set" else None
    return wire_of(types.Change(revision=revision, deleted=types.Tombstone(key=key, owner=owner)))


def at(revision: int, wire: Wire) -> Wire:
    """The same object, told at another revision: it became visible in a topic by a change of something else."""
    change = change_of(wire)
    change.revision = revision
    return wire_of(change)


def _port_set(change: types.Change) -> Fact:
    port_set = change.port_set
    key = PORT_SET + owner_from_proto(port_set.owner).key
    if not port_set.node or port_set.state == types.PORT_SET_STATE_KEPT:
        return Fact(key, change.revision, wire_of(change))
    networks = _shared(frozenset(port.network_id for port in port_set.ports if port.network_id))
    overlays = _shared(frozenset(port.network_id for port in port_set.ports if port.network_id and port.type in OVERLAYS))
    node = sys.intern(port_set.node)
    return Fact(key, change.revision, wire_of(change), shown=True, node=node, networks=networks, overlays=overlays)


@functools.lru_cache(maxsize=4096)
def _shared(networks: frozenset[str]) -> frozenset[str]:
    """The same object for all port sets on the same networks: it saves a third of their memory."""
    return networks


def _whereabouts(change: types.Change, network: str) -> Wire:
    port_set = change.port_set
    ports = [
        types.Port(id=port.id, network_id=port.network_id, network=port.network, mac=port.mac, addresses=port.addresses)
        for port in port_set.ports
        if port.network_id == network
    ]
    shown = types.PortSet(owner=port_set.owner, node=port_set.node, ports=ports, state=port_set.state, revision=port_set.revision)
    return wire_of(types.Change(revision=change.revision, port_set=shown))
