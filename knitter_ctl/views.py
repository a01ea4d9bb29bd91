"""The views of `ipam show`: what is asked of the manager, and how it is laid out."""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from knitter_common.model import PortSet
from knitter_ctl import options, usage
from knitter_ctl.kinds import PORT_SET
from knitter_ctl.printing import Columns
from knitter_ctl.session import Session
from knitter_ctl.usage import Told


@dataclass(frozen=True, slots=True)
class Asked:
    """The networks named (all for none), the tenant, the address."""

    networks: tuple[str, ...]
    namespace: str
    address: str

    @property
    def paths(self) -> list[str]:
        """The networks as "tenant/name"."""
        return [options.network_of(name, self.namespace) for name in self.networks]


@dataclass(frozen=True, slots=True)
class View:
    """`what` is what there is none of when nothing is found."""

    what: str
    fetch: Callable[[Session, Asked], Coroutine[Any, Any, list[Told]]]
    columns: Columns
    wide: Columns
    rows: Callable[[Iterable[Told]], Iterable[Told]] = iter


async def _networks(session: Session, asked: Asked) -> list[Told]:
    async with session:
        found = []
        tenant = {"tenant": asked.namespace}  # what a bare name means to it, the manager knows
        for filters in [tenant | {"network": name} for name in asked.networks] or [tenant]:
            found += [usage.network(one) async for page in session.walk("ListNetworkUsage", "networks", **filters) for one in page]
        return found


async def _tenants(session: Session, asked: Asked) -> list[Told]:
    async with session:
        found = [one async for page in session.walk("ListTenantUsage", "tenants") for one in page]
        return [usage.tenant(one) for one in found if asked.namespace in ("", one.tenant)]


async def _nodes(session: Session, asked: Asked) -> list[Told]:
    async with session:
        return [usage.node(one) async for page in session.walk("ListNodeUsage", "nodes") for one in page]


async def _pods(session: Session, asked: Asked) -> list[Told]:
    async with session:
        tenant, paths = {"tenant": asked.namespace}, asked.paths
        found: dict[str, PortSet] = {}
        for filters in [tenant | {"network": path} for path in paths] or [tenant]:
            found |= {one.owner.key: one for one in await session.entries(PORT_SET, **filters)}
        return [usage.pod(found[key], paths) for key in sorted(found)]


async def _address(session: Session, asked: Asked) -> list[Told]:
    async with session:
        found = []
        for path in asked.paths or [""]:
            response = await session.call("GetAddress", network=path, address=asked.address)
            found += [usage.address(one) for one in response.addresses]
        return found


VIEWS = {
    "networks": View("networks", _networks, usage.NETWORK_COLUMNS, usage.NETWORK_WIDE, usage.pools),
    "tenants": View("tenants", _tenants, usage.TENANT_COLUMNS, usage.TENANT_COLUMNS),
    "nodes": View("nodes", _nodes, usage.NODE_COLUMNS, usage.NODE_COLUMNS),
    "pods": View("port sets", _pods, usage.POD_COLUMNS, usage.POD_WIDE, usage.interfaces),
    "address": View("network with that address", _address, usage.ADDRESS_COLUMNS, usage.ADDRESS_COLUMNS),
}
