"""Which records of addresses and MACs a port set or a claim has: one for each that is its own. What a set uses of a claim is the
claim's."""

from collections.abc import Iterator, Mapping

from knitter.v1 import types_pb2 as types
from knitter_common.model import IPClaim, Network, NetworkType

# The device, or its parent, brings the MAC: nobody keeps a record of it.
OWN_MAC = (NetworkType.IPVLAN, NetworkType.HOST_DEVICE)
_OWN_MAC = frozenset((types.NETWORK_TYPE_IPVLAN, types.NETWORK_TYPE_HOST_DEVICE))


def keys_of_set(message: types.PortSet, segments: Mapping[str, str]) -> Iterator[str]:
    """Of a port set. `segments` by network's id; where one is not there, neither is the record of a MAC."""
    wishes = message.wishes
    for at, port in enumerate(message.ports):
        if at < len(wishes) and wishes[at].ip_claim:
            continue
        yield from keys_of_port(port, segments)


def keys_of_port(port: types.Port, segments: Mapping[str, str]) -> Iterator[str]:
    """Of one port, whoever owns its addresses."""
    network_id = port.network_id
    for one in port.addresses:
        yield f"addr/{network_id}/{one.cidr.partition('/')[0]}"
    if port.mac and port.type not in _OWN_MAC and network_id in segments:
        yield f"mac/{segments[network_id]}/{port.mac}"


def keys_of_claim(claim: IPClaim, network: Network, segment: str) -> Iterator[str]:
    """Of a claim on its network."""
    for one in claim.addresses:
        yield f"addr/{network.id}/{one.cidr.partition('/')[0]}"
    if claim.mac and network.type not in OWN_MAC:
        yield f"mac/{segment}/{claim.mac}"
