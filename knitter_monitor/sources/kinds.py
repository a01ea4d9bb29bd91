"""The manager's calls for each kind of declared object: one table, so that applying is written once.

Requests and responses of the kinds are alike by name (CreateNetworkRequest, CreateIPGroupRequest, …), which `Kind` relies on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from knitter.v1 import manager_pb2 as pb
from knitter_common import convert
from knitter_common.managers import Managers
from knitter_common.model import IPClaim, IPGroup, Network, Tenant

Declarable = Network | Tenant | IPGroup | IPClaim


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which object: unique among all that can be declared. Ordered as they have to be made: what is named by others first."""

    order: int
    kind: str
    tenant: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.tenant}/{self.name}" if self.tenant else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object: its key, its place in the order, and its calls. All raise KnitterError."""

    name: str
    order: int
    field: str
    to_proto: Callable[[Any], Any]
    from_proto: Callable[[Any], Any]
    words: Callable[[Any], dict[str, str]]  # what names it in Get and Delete

    def key(self, obj: Declarable) -> Key:
        """The object's key."""
        words = self.words(obj)
        name = f"{words['network']}/{obj.name}" if "network" in words else obj.name
        return Key(self.order, self.name, words.get("tenant", ""), name)

    async def create(self, managers: Managers, obj: Declarable) -> Any:
        """Makes it; what is there in the same shape is returned."""
        return await self._write(managers, "Create", obj)

    async def update(self, managers: Managers, obj: Declarable) -> Any:
        """Brings it to this shape if it is at the object's revision."""
        return await self._write(managers, "Update", obj)

    async def get(self, managers: Managers, obj: Declarable) -> Any:
        """Reads it."""
        request = getattr(pb, f"Get{self.name}Request")(**self.words(obj))
        response = await managers.call(lambda manager: getattr(manager, f"Get{self.name}"), request)
        return self.from_proto(getattr(response, self.field))

    async def delete(self, managers: Managers, obj: Declarable) -> None:
        """Deletes it if it is at the object's revision and of its source."""
        request = getattr(pb, f"Delete{self.name}Request")(**self.words(obj), revision=obj.revision, source=obj.source)
        await managers.call(lambda manager: getattr(manager, f"Delete{self.name}"), request)

    async def listed(self, managers: Managers, source: str) -> list[Declarable]:
        """All objects of a source."""
        found: list[Declarable] = []
        token = ""
        while True:
            request = getattr(pb, f"List{self.name}sRequest")(page_size=500, page_token=token)
            page = await managers.call(lambda manager: getattr(manager, f"List{self.name}s"), request)
            found += [self.from_proto(message) for message in getattr(page, self.field + "s") if message.source == source]
            token = page.next_page_token
            if not token:
                return found

    async def _write(self, managers: Managers, verb: str, obj: Declarable) -> Any:
        request = getattr(pb, f"{verb}{self.name}Request")(**{self.field: self.to_proto(obj)})
        response = await managers.call(lambda manager: getattr(manager, f"{verb}{self.name}"), request)
        return self.from_proto(getattr(response, self.field))


def _named(obj: Any) -> dict[str, str]:
    return {"tenant": obj.tenant, "name": obj.name}


def _group(obj: IPGroup) -> dict[str, str]:
    """ "name" and "tenant/name" are the same network in the group's own tenant."""
    network = obj.network.removeprefix(f"{obj.tenant}/")
    return {"tenant": obj.tenant, "network": network, "name": obj.name}


KINDS: dict[type[Any], Kind] = {
    Tenant: Kind("Tenant", 0, "tenant", convert.tenant_to_proto, convert.tenant_from_proto, lambda obj: {"name": obj.name}),
    Network: Kind("Network", 1, "network", convert.network_to_proto, convert.network_from_proto, _named),
    IPGroup: Kind("IPGroup", 2, "ip_group", convert.ip_group_to_proto, convert.ip_group_from_proto, _group),
    IPClaim: Kind("IPClaim", 3, "ip_claim", convert.ip_claim_to_proto, convert.ip_claim_from_proto, _named),
}


def key_of(obj: Declarable) -> Key:
    """The key of any declared object."""
    return KINDS[type(obj)].key(obj)


def of_source(obj: Declarable, source: str, revision: int = 0) -> Declarable:
    """The object as that source declares it."""
    return replace(obj, source=source, revision=revision)


__all__ = ["KINDS", "Declarable", "Key", "Kind", "key_of", "of_source"]
