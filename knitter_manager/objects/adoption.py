"""Moving a declared object to another source, so that it can be changed from there."""

from dataclasses import replace

from google.protobuf.message import Message

from knitter_common import convert
from knitter_common.errors import Invalid, NotFound
from knitter_common.model import ADMIN, IPClaim, IPGroup, Network, Node, Quota, Tenant
from knitter_common.names import nearest
from knitter_common.names import source as known_source
from knitter_common.objects.fields import checked, refuse
from knitter_manager import keys
from knitter_manager.objects.book import Book

KINDS = ("Network", "Tenant", "IPGroup", "IPClaim", "Node")

Object = Network | Tenant | IPGroup | IPClaim | Node


class Adoption:
    """`knitterctl adopt`."""

    def __init__(self, book: Book) -> None:
        self._book = book

    async def move(self, kind: str, tenant: str, name: str, source: str) -> int:
        """The object's revision with the new source. Raises Invalid(FIELD_INVALID), NotFound."""
        if kind not in KINDS:
            raise Invalid("FIELD_INVALID", f"kind: {kind!r} is no kind; {nearest(kind, KINDS)}", field="kind", value=kind)
        checked("source", known_source, source)
        if not name:
            refuse("name", f"is empty; say which {kind}")

        async def step() -> int:
            key, current = self._find(kind, tenant or ADMIN, name)
            if current.source == source:
                return current.revision
            value = _message(replace(current, source=source, revision=0)).SerializeToString()
            return await self._book.commit({key: current.revision}, {key: value})

        return await self._book.change(step)

    def _find(self, kind: str, tenant: str, name: str) -> tuple[str, Object]:
        cluster = self._book.cluster
        match kind:
            case "Network":
                network = cluster.names.at(f"{tenant}/{name}")
                if network is not None:
                    return keys.network(network.network.id), network.network
            case "Tenant":
                known = cluster.tenants.get(name)
                if known is not None and known.tenant.revision:
                    return keys.tenant(name), known.tenant
            case "Node":
                node = cluster.nodes.get(name)
                if node is not None and node.node.revision:
                    return keys.node(name), node.node
            case "IPClaim":
                claim = cluster.claims.get(keys.claim(tenant, name))
                if claim is not None:
                    return keys.claim(tenant, name), claim
            case _:
                path, _, short = name.rpartition("/")
                on = cluster.names.at(path if "/" in path else f"{tenant}/{path}")
                key = keys.group(on.network.id, tenant, short) if on is not None else ""
                if on is not None and key in on.groups:
                    return key, on.groups[key].group
        said = f"there is no {kind} {name!r} of tenant {tenant}; correct the name"
        raise NotFound("OBJECT_NOT_FOUND", said, kind=kind, name=name)


def _message(thing: Object) -> Message:
    match thing:
        case Network():
            return convert.network_to_proto(thing)
        case Tenant():
            return convert.tenant_to_proto(replace(thing, used=Quota()))
        case IPGroup():
            return convert.ip_group_to_proto(thing)
        case IPClaim():
            return convert.ip_claim_to_proto(thing)
        case Node():
            return convert.node_to_proto(thing)
