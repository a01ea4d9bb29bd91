"""Port sets as the manager keeps them: one serialized `knitter.v1.PortSet` each, decoded when somebody asks.

In the store the message has no revision. In memory its revision is appended as one more field, which protobuf reads as a part of
the message: what is kept can be sent as it is, and a million sets are a million `bytes`.
"""

from typing import NamedTuple

from knitter.v1 import types_pb2 as types
from knitter_common.convert import network_to_proto, port_set_from_proto, port_set_to_proto, time_from_proto
from knitter_common.model import Network, PortSet

_REVISION_TAG = bytes(((types.PortSet.DESCRIPTOR.fields_by_name["revision"].number << 3) | 0,))  # a varint


class Holding(NamedTuple):
    """What the indices and counters need of a set."""

    tenant: str
    node: str
    networks: tuple[str, ...]
    ports: int
    addresses: int  # its own; those of claims count for the claim
    sticky: str = ""  # of a pod that keeps its addresses: "namespace/name"
    expires: int = 0  # when a kept one ends, in nanoseconds since 1970


def stored(port_set: PortSet) -> bytes:
    """The value for the store."""
    message = port_set_to_proto(port_set)
    message.revision = 0
    return message.SerializeToString()


def kept(value: bytes, revision: int) -> bytes:
    """A value of the store with its revision, as it is kept in memory."""
    digits = bytearray(_REVISION_TAG)
    while revision > 0x7F:
        digits.append(revision & 0x7F | 0x80)
        revision >>= 7
    digits.append(revision)
    return value + digits


def message_of(record: bytes) -> types.PortSet:
    """What was kept, as a message."""
    return types.PortSet.FromString(record)


def port_set_of(record: bytes) -> PortSet:
    """What was kept, as a port set."""
    return port_set_from_proto(types.PortSet.FromString(record))


def holding_of(record: bytes) -> Holding:
    """What the indices need of it."""
    message = types.PortSet.FromString(record)
    ports, wishes = message.ports, message.wishes
    if len(ports) == 1 and not message.sticky:  # nearly all of a million: each access to a message counts
        port = ports[0]
        count = 0 if wishes and wishes[0].ip_claim else len(port.addresses)
        return tuple.__new__(Holding, (message.tenant, message.node, (port.network_id,), 1, count, "", 0))
    sticky, expires = "", 0
    if message.sticky and ports and message.owner.HasField("pod"):
        sticky = f"{message.owner.pod.namespace}/{message.owner.pod.name}"
        expires = time_from_proto(message.expire_time) if message.HasField("expire_time") else 0
    own = [len(port.addresses) for at, port in enumerate(ports) if not (at < len(wishes) and wishes[at].ip_claim)]
    networks = tuple({port.network_id for port in ports})
    return Holding(message.tenant, message.node, networks, len(ports), sum(own), sticky, expires)


def stored_network(network: Network) -> bytes:
    """The value for the store."""
    message = network_to_proto(network)
    message.revision = 0
    return message.SerializeToString()
