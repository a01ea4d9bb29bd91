"""What `describe` tells about an object beside the object: the port sets that use it, a tenant's networks, a network's usage."""

from dataclasses import replace
from typing import Any

from knitter_common.model import PortSet
from knitter_ctl import usage
from knitter_ctl.description import Surroundings
from knitter_ctl.kinds import NETWORK, NODE, PORT_SET, TENANT, Kind
from knitter_ctl.session import Session


async def of(session: Session, kind: Kind, entry: Any) -> Surroundings:
    """One page of port sets is enough to describe by; a node with more says so."""
    if kind is NETWORK:
        around = await _port_sets(session, network=entry.path)
        (used,) = (await session.call("ListNetworkUsage", network=entry.path)).networks
        return replace(around, pools=usage.network(used)["pools"])
    if kind is NODE:
        return await _port_sets(session, node=entry.name)
    if kind is TENANT:
        around = await _port_sets(session, tenant=entry.name)
        networks = [network for network in await session.entries(NETWORK, tenant=entry.name) if network.tenant == entry.name]
        return Surroundings(port_sets=around.port_sets, networks=networks, more=around.more)
    return Surroundings()


async def _port_sets(session: Session, **filters: str) -> Surroundings:
    pages = session.pages(PORT_SET, **filters)
    none: list[PortSet] = []
    first = await anext(pages, none)
    more = await anext(pages, None) is not None if first else False
    await pages.aclose()
    return Surroundings(port_sets=first, more=more)
