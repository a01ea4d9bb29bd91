"""Giving back by hand: what holds an address, or what an owner has. Returns what was done, in one line."""

from knitter.v1 import manager_pb2 as pb
from knitter_common import convert
from knitter_common.errors import Invalid, NotFound, Refused, from_status
from knitter_common.model import Owner, PortSet
from knitter_ctl import owners, usage
from knitter_ctl.columns import state_of_set
from knitter_ctl.document import reference
from knitter_ctl.kinds import PORT_SET
from knitter_ctl.session import Session


async def owner(session: Session, which: Owner, force: bool, revision: int = 0) -> str:
    """What the owner has. Raises Refused(OBJECT_IN_USE) naming who uses it."""
    response = await session.call("EndPortSet", owner=convert.owner_to_proto(which), revision=revision, force=force)
    if not response.HasField("port_set"):
        return f"portset/{which.key} is not there: nothing to release"
    ended = convert.port_set_from_proto(response.port_set)
    addresses = ", ".join(one.cidr.partition("/")[0] for port in ended.ports for one in port.addresses)
    return f"{reference(PORT_SET, ended)} released, it was {state_of_set(ended)}: {addresses or 'no addresses'}"


async def address(session: Session, text: str, network: str, force: bool) -> str:
    """What holds the address. Raises Refused(OBJECT_IN_USE), Invalid where it is held on several networks."""
    infos = (await session.call("GetAddress", network=network, address=text)).addresses
    if not infos:
        where = f"network {network} has" if network else "no network has"
        said = f"{where} {text} in {'no' if network else 'a'} subnet"
        raise NotFound("OBJECT_NOT_FOUND", said, address=text)
    held = [info for info in infos if info.state == pb.ADDRESS_STATE_HELD]
    if not held:
        told = ", ".join(f"{usage.address(info)['state']} on network {info.network}" for info in infos)
        return f"{text} is held by nobody ({told}): nothing to release"
    if len(held) > 1:
        said = f"{text} is held on networks {', '.join(info.network for info in held)}; say which with --network"
        raise Invalid("FIELD_INVALID", said, field="--network")
    return await _held(session, held[0], force)


async def _held(session: Session, info: pb.AddressInfo, force: bool) -> str:
    if info.ip_claim:
        said = f"{info.address} of network {info.network} is that of claim {info.ip_claim}; delete the claim, once nobody uses it"
        raise Refused("OBJECT_IN_USE", said, ip_claim=info.ip_claim)
    if info.orphan:
        finding = pb.Finding(key=info.key, revision=info.revision)
        (repair,) = (await session.call("RepairState", findings=[finding], force=force)).repairs
        if repair.HasField("error"):
            raise from_status(repair.error)
        return f"{info.address} of network {info.network} released, it was held for nobody: {repair.done}"
    which = convert.owner_from_proto(info.owner)
    found: PortSet = await session.port_set(which)
    if not any(one.cidr.partition("/")[0] == info.address for port in found.ports for one in port.addresses):
        raise Refused("OBJECT_IN_USE", f"{info.address} has just left {owners.short(which)}; try again")
    return await owner(session, which, force, found.revision)
