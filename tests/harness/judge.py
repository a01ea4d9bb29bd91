"""Whether a store's records agree with each other: who holds what by the sets and the claims, and by the addresses and the MACs."""

from harness.stores import everything
from knitter.v1 import types_pb2 as types
from knitter_common.convert import ip_claim_from_proto, network_from_proto, port_set_from_proto
from knitter_common.model import IPClaim, PortSet
from knitter_manager import keys
from knitter_manager.state.entries import segment_of
from knitter_manager.store import Store


async def disagreements(store: Store) -> list[str]:
    """A sentence for each address, MAC and claim that is not whose it should be; none when all agree."""
    records = await everything(store)
    by_family: dict[str, dict[str, bytes]] = {}
    for key, record in records.items():
        family, _, rest = key.partition("/")
        by_family.setdefault(family, {})[rest] = record.value
    segments = {rest: segment_of(network_from_proto(types.Network.FromString(value))) for rest, value in _of(by_family, "network")}
    networks = {}
    for rest, value in _of(by_family, "network"):
        network = types.Network.FromString(value)
        networks[f"{network.tenant}/{network.name}"] = rest
    claims = {f"claim/{rest}": ip_claim_from_proto(types.IPClaim.FromString(value)) for rest, value in _of(by_family, "claim")}
    sets = {rest: port_set_from_proto(types.PortSet.FromString(value)) for rest, value in _of(by_family, "portset")}
    wanted: dict[str, str] = {}
    found: list[str] = []
    for owner_key, port_set in sets.items():
        found += _of_set(owner_key, port_set, segments, claims, wanted)
    for key, claim in claims.items():
        for one in claim.addresses:
            found += _take(wanted, keys.address(networks[claim.network], one.cidr.partition("/")[0]), key)
        if claim.mac:
            found += _take(wanted, keys.mac(segments[networks[claim.network]], claim.mac), key)
    held = {key: record.value.decode() for key, record in records.items() if key.startswith(("addr/", "mac/")) and record.value}
    found += [f"{key} is {holder}'s by its record, and {wanted.get(key, 'nobody')}'s by the sets and claims"
              for key, holder in held.items() if wanted.get(key) != holder]  # fmt: skip
    found += [f"{key} is {holder}'s and has no record" for key, holder in wanted.items() if key not in held]
    return found


def _of(by_family: dict[str, dict[str, bytes]], family: str) -> list[tuple[str, bytes]]:
    return list(by_family.get(family, {}).items())


def _take(wanted: dict[str, str], key: str, holder: str) -> list[str]:
    """Notes who holds it; a sentence when somebody else does."""
    if wanted.setdefault(key, holder) != holder:
        return [f"{key} has two owners: {wanted[key]} and {holder}"]
    return []


def _of_set(
    owner_key: str, port_set: PortSet, segments: dict[str, str], claims: dict[str, IPClaim], wanted: dict[str, str]
) -> list[str]:
    found = []
    for at, port in enumerate(port_set.ports):
        name = port_set.wishes[at].ip_claim if at < len(port_set.wishes) else ""
        if name:
            claim = claims.get(keys.claim(port_set.tenant, name))
            if claim is None or claim.used_by != port_set.owner:
                found.append(f"{owner_key} uses claim {name}, which does not say so")
            continue
        for one in port.addresses:
            found += _take(wanted, keys.address(port.network_id, one.cidr.partition("/")[0]), owner_key)
        if port.mac:
            found += _take(wanted, keys.mac(segments[port.network_id], port.mac), owner_key)
    return found
