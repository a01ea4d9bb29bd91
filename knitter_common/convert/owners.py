"""Owners and selectors ↔ messages."""

from typing import NoReturn

from knitter.v1 import types_pb2 as types
from knitter_common.errors import Invalid
from knitter_common.model import (
    ADMIN,
    LabelRequirement,
    LabelSelector,
    NamedOwner,
    Owner,
    PodOwner,
    SandboxOwner,
    Usability,
)


def owner_to_proto(owner: Owner) -> types.Owner:
    """Whom a port set belongs to."""
    message = types.Owner()
    put_owner(message, owner)
    return message


def put_owner(message: types.Owner, owner: Owner) -> None:
    """Writes an owner into a message that has none."""
    if isinstance(owner, PodOwner):
        pod = message.pod
        pod.namespace, pod.name, pod.uid = owner.namespace, owner.name, owner.uid
    elif isinstance(owner, SandboxOwner):
        box = message.sandbox
        box.node, box.container_id = owner.node, owner.container_id
        box.cni_network, box.interface = owner.cni_network, owner.interface
    else:
        named = message.named
        named.tenant, named.name = owner.tenant, owner.name


def owner_from_proto(message: types.Owner, field: str = "owner") -> Owner:
    """Raises Invalid(FIELD_INVALID) unless exactly one kind is set, with parts that can be parts of a key: not empty, no "/"."""
    match message.WhichOneof("kind"):
        case "sandbox":
            box = message.sandbox
            node, container_id, cni_network, interface = box.node, box.container_id, box.cni_network, box.interface
            if not (node and container_id and cni_network and interface) or "/" in node + container_id + cni_network + interface:
                parts = {"node": node, "container_id": container_id, "cni_network": cni_network, "interface": interface}
                _refuse(f"{field}.sandbox", parts)
            return SandboxOwner(node, container_id, cni_network, interface)
        case "pod":
            pod = message.pod
            namespace, name, uid = pod.namespace, pod.name, pod.uid
            if not (namespace and name and uid) or "/" in namespace + name + uid:
                _refuse(f"{field}.pod", {"namespace": namespace, "name": name, "uid": uid})
            return PodOwner(namespace, name, uid)
        case "named":
            tenant, name = message.named.tenant or ADMIN, message.named.name
            if not name or "/" in tenant + name:
                _refuse(f"{field}.named", {"tenant": tenant, "name": name})
            return NamedOwner(tenant, name)
        case _:
            raise Invalid("FIELD_INVALID", f"{field}: is missing; set one of pod, sandbox and named", field=field)


def _refuse(place: str, parts: dict[str, str]) -> NoReturn:
    name, value = next((name, value) for name, value in parts.items() if not value or "/" in value)
    what = f"{value!r} has a '/'; write it without" if value else "is empty; say which"
    raise Invalid("FIELD_INVALID", f"{place}.{name}: {what}", field=f"{place}.{name}", value=value)


def label_selector_to_proto(selector: LabelSelector) -> types.LabelSelector:
    """Label requirements."""
    return types.LabelSelector(
        match_labels=selector.match_labels,
        match_expressions=[
            types.LabelRequirement(key=entry.key, operator=entry.operator, values=entry.values)
            for entry in selector.match_expressions
        ],
    )


def label_selector_from_proto(message: types.LabelSelector) -> LabelSelector:
    """Label requirements."""
    return LabelSelector(
        match_labels=dict(message.match_labels),
        match_expressions=tuple(
            LabelRequirement(key=entry.key, operator=entry.operator, values=tuple(entry.values))
            for entry in message.match_expressions
        ),
    )


def usability_to_proto(usability: Usability) -> types.Usability:
    """Who may use it; a side that is None is left out."""
    return types.Usability(
        namespaces=_selector(usability.namespaces), pods=_selector(usability.pods), nodes=_selector(usability.nodes)
    )


def usability_from_proto(message: types.Usability) -> Usability:
    """Who may use it; a side left out is None."""
    return Usability(
        namespaces=label_selector_from_proto(message.namespaces) if message.HasField("namespaces") else None,
        pods=label_selector_from_proto(message.pods) if message.HasField("pods") else None,
        nodes=label_selector_from_proto(message.nodes) if message.HasField("nodes") else None,
    )


def _selector(selector: LabelSelector | None) -> types.LabelSelector | None:
    return None if selector is None else label_selector_to_proto(selector)
