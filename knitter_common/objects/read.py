"""YAML → objects: apiVersion knitter.io/v1, kinds Network, Tenant, IPGroup, IPClaim, and `List` of them.

Keys are those of protos/knitter/v1/types.proto in camelCase. `status`, and what only an API server sets in `metadata`, is ignored,
so that what was read out can be applied again. No namespace means admin, or what the reader says. What can be checked without any
other object is checked here (`validate`), and told with file, document, line, object, field, value and way out.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import yaml

from knitter_common.errors import Invalid, KnitterError
from knitter_common.model import (
    ADMIN,
    Dns,
    IPClaim,
    IPGroup,
    LabelRequirement,
    LabelSelector,
    Network,
    NetworkType,
    Pool,
    Quota,
    Route,
    Subnet,
    Tenant,
    Usability,
)
from knitter_common.objects.document import documents
from knitter_common.objects.field import Field, Source, Table
from knitter_common.objects.validate import (
    type_name,
    validate_ip_claim,
    validate_ip_group,
    validate_network,
    validate_tenant,
)

API_VERSION = "knitter.io/v1"
Object = Network | Tenant | IPGroup | IPClaim

_TYPES = {type_name(entry): entry for entry in NetworkType}
_METADATA = ("name", "namespace", "labels", "annotations")
_SERVER_METADATA = (  # set by an API server, ignored
    "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
    "managedFields", "ownerReferences", "finalizers", "selfLink",
)  # fmt: skip


class Loaded(NamedTuple):
    """What a text holds: the good objects, and one error for each bad one."""

    objects: list[Object]
    errors: list[KnitterError]


class _Metadata(NamedTuple):
    name: str
    tenant: str
    labels: Mapping[str, str]


def load_text(text: str, origin: str, default_tenant: str = ADMIN) -> list[Object]:
    """The objects of a YAML text, canonical, in order. `origin` names it in errors; what names no namespace is `default_tenant`'s.

    Raises the first error, an Invalid.
    """
    loaded = read_text(text, origin, default_tenant)
    if loaded.errors:
        raise loaded.errors[0]
    return loaded.objects


def read_text(text: str, origin: str, default_tenant: str = ADMIN) -> Loaded:
    """As `load_text`, but a bad object does not hide the good ones. A text that is no YAML has one error and no object."""
    try:
        nodes = documents(text, origin)
    except Invalid as error:
        return Loaded([], [error])
    objects: list[Object] = []
    errors: list[KnitterError] = []
    first: dict[tuple[str, str, str, str], int] = {}
    visits = [0]
    for number, node in enumerate(nodes, 1):
        source = Source(origin, number if len(nodes) > 1 else 0, visits=visits)
        for entry in _entries(Field(node, "", source), errors):
            try:
                made = _object(entry, default_tenant)
                if identity(made) in first:
                    raise entry.source.error("", f"is declared in line {first[identity(made)]} already; remove one", entry.line)
                first[identity(made)] = entry.line
            except KnitterError as error:
                errors.append(error)
            else:
                objects.append(made)
    return Loaded(objects, errors)


def identity(thing: Object) -> tuple[str, str, str, str]:
    """Kind, tenant, network (of a group) and name: no two objects have the same."""
    match thing:
        case Tenant():
            return ("Tenant", "", "", thing.name)
        case IPGroup():
            return ("IPGroup", thing.tenant, thing.network, thing.name)
        case _:
            return (type(thing).__name__, thing.tenant, "", thing.name)


def _entries(top: Field, errors: list[KnitterError]) -> list[Field]:
    """The object, or those of a List."""
    try:
        table = top.table(None)
        kind = table.get("kind")
        if kind is None or kind.tag != "str" or kind.node.value != "List":
            return [top]
        table = top.table(("apiVersion", "kind", "metadata", "items"))
        items = table.items("items")
    except KnitterError as error:
        errors.append(error)
        return []
    source = top.source
    return [Field(item.node, "", Source(source.origin, source.document, visits=source.visits)) for item in items]


def _object(top: Field, default_tenant: str) -> Object:
    top.source.visit("", top.node)
    table = top.table(("apiVersion", "kind", "metadata", "spec", "status"))
    version = table.need("apiVersion", f"write apiVersion: {API_VERSION}")
    if version.text() != API_VERSION:
        raise version.error(f"{version.text()!r} is not known; write {API_VERSION}", version.text())
    kind = table.need("kind", f"write one of {', '.join(_KINDS)}").choice(_KINDS)
    metadata = _metadata(table.need("metadata", "write metadata: {name: …}"), kind, default_tenant)
    top.source.subject = f"{kind} {metadata.name}" if kind == "Tenant" else f"{kind} {metadata.tenant}/{metadata.name}"
    spec = table.get("spec") or Field(yaml.MappingNode("tag:yaml.org,2002:map", [], top.node.start_mark), "spec", top.source)
    try:
        return _KINDS[kind](metadata, spec)
    except Invalid as error:
        if "file" in error.metadata:
            raise
        raise _placed(error, top.source) from error


def _placed(error: Invalid, source: Source) -> Invalid:
    """An error of `validate` with the place of its field."""
    below = error.metadata.get("field", "")
    path = below if below.startswith("metadata.") else f"spec.{below}"
    sentence = error.message.removeprefix(f"{below}: ")
    return source.error(path, sentence, value=error.metadata.get("value", ""), reason=error.reason)


def _metadata(field: Field, kind: str, default_tenant: str) -> _Metadata:
    table = field.table((*_METADATA, *_SERVER_METADATA))
    name = table.need("name", "give the object a name").text()
    namespace = table.get("namespace")
    if namespace is not None and kind == "Tenant":
        raise namespace.error("a Tenant is in no namespace, it is one; remove it", namespace.text())
    return _Metadata(name, namespace.text() if namespace else default_tenant, table.texts_by_key("labels"))


def _network(metadata: _Metadata, spec: Field) -> Network:
    table = spec.table((
        "type", "public", "exportedTo", "mtu", "subnets", "routes", "dns", "physicalNetwork", "segmentationId", "vlanTransparent",
        "external", "description", "rest", "externalGateway", "masquerade", "usableBy",
    ))  # fmt: skip
    kind, dns, rest = table.get("type"), table.get("dns"), table.get("rest")
    return validate_network(
        Network(
            tenant=metadata.tenant,
            name=metadata.name,
            type=NetworkType.BRIDGE if kind is None else _TYPES[kind.choice(_TYPES)],
            public=table.flag("public"),
            exported_to=table.texts("exportedTo"),
            mtu=table.number("mtu"),
            subnets=tuple(_subnet(entry) for entry in table.items("subnets")),
            routes=tuple(_route(entry) for entry in table.items("routes")),
            dns=None if dns is None else _dns(dns),
            physical_network=table.text("physicalNetwork"),
            segmentation_id=table.number("segmentationId"),
            vlan_transparent=table.flag("vlanTransparent"),
            external=table.flag("external"),
            description=table.text("description"),
            rest=None if rest is None else rest.span(),
            external_gateway=table.flag("externalGateway"),
            masquerade=table.flag("masquerade"),
            usable_by=_usability(table.get("usableBy")),
        )
    )


def _subnet(field: Field) -> Subnet:
    table = field.table(("cidr", "gateway", "pools", "exclude"))
    return Subnet(
        cidr=table.text("cidr"),
        gateway=table.text("gateway"),
        pools=tuple(_pool(entry) for entry in table.items("pools")),
        exclude=table.texts("exclude"),
    )


def _pool(field: Field) -> Pool:
    table = field.table(("start", "end", "usableBy"))
    return Pool(table.text("start"), table.text("end"), _usability(table.get("usableBy")))


def _route(field: Field) -> Route:
    table = field.table(("destination", "gateway", "metric", "mtu"))
    return Route(table.text("destination"), table.text("gateway"), table.number("metric"), table.number("mtu"))


def _dns(field: Field) -> Dns:
    table = field.table(("nameservers", "domain", "search", "options"))
    return Dns(table.texts("nameservers"), table.text("domain"), table.texts("search"), table.texts("options"))


def _usability(field: Field | None) -> Usability | None:
    if field is None:
        return None
    table = field.table(("namespaces", "pods", "nodes"))
    return Usability(_selector(table.get("namespaces")), _selector(table.get("pods")), _selector(table.get("nodes")))


def _selector(field: Field | None) -> LabelSelector | None:
    if field is None:
        return None
    table = field.table(("matchLabels", "matchExpressions"))
    return LabelSelector(table.texts_by_key("matchLabels"), tuple(_requirement(entry) for entry in table.items("matchExpressions")))


def _requirement(field: Field) -> LabelRequirement:
    table = field.table(("key", "operator", "values"))
    return LabelRequirement(table.text("key"), table.text("operator"), table.texts("values"))


def _tenant(metadata: _Metadata, spec: Field) -> Tenant:
    table = spec.table(("quota", "allowedTypes", "allowedPhysicalNetworks", "description"))
    quota = table.get("quota")
    return validate_tenant(
        Tenant(
            name=metadata.name,
            quota=Quota() if quota is None else _quota(quota.table(("networks", "ports", "addresses"))),
            allowed_types=tuple(_TYPES[entry.choice(_TYPES)] for entry in table.items("allowedTypes")),
            allowed_physical_networks=table.texts("allowedPhysicalNetworks"),
            description=table.text("description"),
            labels=metadata.labels,
        )
    )


def _quota(table: Table) -> Quota:
    return Quota(table.number("networks"), table.number("ports"), table.number("addresses"))


def _ip_group(metadata: _Metadata, spec: Field) -> IPGroup:
    table = spec.table(("network", "ips", "size", "podSelector"))
    return validate_ip_group(
        IPGroup(
            tenant=metadata.tenant,
            name=metadata.name,
            network=table.text("network"),
            ips=table.texts("ips"),
            size=table.number("size"),
            pod_selector=_selector(table.get("podSelector")),
        )
    )


def _ip_claim(metadata: _Metadata, spec: Field) -> IPClaim:
    table = spec.table(("network", "interface", "wantedAddresses", "mac"))
    return validate_ip_claim(
        IPClaim(
            tenant=metadata.tenant,
            name=metadata.name,
            network=table.text("network"),
            interface=table.text("interface"),
            wanted_addresses=table.texts("wantedAddresses"),
            mac=table.text("mac"),
        )
    )


_KINDS: Mapping[str, Callable[[_Metadata, Field], Object]] = {
    "Network": _network,
    "Tenant": _tenant,
    "IPGroup": _ip_group,
    "IPClaim": _ip_claim,
}
