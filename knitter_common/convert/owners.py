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
    if isinstance(owner, PodOwner):
        return types.Owner(pod=types.PodOwner(namespace=owner.namespace, name=owner.name, uid=owner.uid))
    if isinstance(owner, SandboxOwner):
        return types.Owner(
            sandbox=types.SandboxOwner(
                node=owner.node, container_id=owner.container_id, cni_network=owner.cni_network, interface=owner.interface
            )
        )
    return types.Owner(named=types.NamedOwner(tenant=owner.tenant, name=owner.name))


def owner_from_proto(message: types.Owner, field: str = "owner") -> Owner:
    """Raises Invalid(FIELD_INVALID) unless exactly one kind is set, with parts that can be parts of a key: not empty, no "/"."""
    match message.WhichOneof("kind"):
        case "pod":
            pod = message.pod
            owner: Owner = PodOwner(pod.namespace, pod.name, pod.uid)
            if not (pod.namespace and pod.name and pod.uid) or owner.key.count("/") != 3:
                _refuse(f"{field}.pod", {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid})
        case "sandbox":
            box = message.sandbox
            owner = SandboxOwner(box.node, box.container_id, box.cni_network, box.interface)
            if not (box.node and box.container_id and box.cni_network and box.interface) or owner.key.count("/") != 4:
                parts = {"node": box.node, "container_id": box.container_id}
                _refuse(f"{field}.sandbox", parts | {"cni_network": box.cni_network, "interface": box.interface})
        case "named":
            named = message.named
            owner = NamedOwner(named.tenant or ADMIN, named.name)
            if not named.name or owner.key.count("/") != 2:
                _refuse(f"{field}.named", {"tenant": named.tenant or ADMIN, "name": named.name})
        case _:
            raise Invalid("FIELD_INVALID", f"{field}: is missing; set one of pod, sandbox and named", field=field)
    return owner


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
