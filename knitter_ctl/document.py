"""Objects as documents (`-o json|yaml|name`): apiVersion, kind, metadata, spec as in files, and status with what Knitter set.

What stands at its default is left out; keys are camel case, as in files; times are RFC 3339.
"""

import dataclasses
import enum
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from knitter_common.model import IPGroup, NamedOwner, Network, Owner, PodOwner, PortSet, SandboxOwner
from knitter_ctl.ages import moment
from knitter_ctl.kinds import IP_CLAIM, IP_GROUP, NETWORK, NODE, PORT_SET, TENANT, Kind

API_VERSION = "knitter.io/v1"
_METADATA = ("name", "tenant", "labels", "create_time", "revision", "source")
# Set by Knitter, told in `status`.
_STATUS: dict[Kind, tuple[str, ...]] = {
    NETWORK: ("id", "state"),
    TENANT: ("used", "state"),
    IP_GROUP: ("id", "addresses"),
    IP_CLAIM: ("addresses", "used_by"),
    NODE: ("agent_version", "gone", "last_seen"),
    PORT_SET: ("state", "ports", "binding", "error"),
}
_TIMES = ("create_time", "last_seen", "time")
_OWNER_KINDS: dict[type[Any], str] = {PodOwner: "pod", SandboxOwner: "sandbox", NamedOwner: "named"}


def document(kind: Kind, entry: Any) -> dict[str, Any]:
    """One object. A port set's name is its owner's key."""
    metadata: dict[str, Any] = {"name": entry.owner.key if isinstance(entry, PortSet) else entry.name}
    if tenant := getattr(entry, "tenant", ""):
        metadata["namespace"] = tenant
    for name, told in (("labels", "labels"), ("create_time", "creationTimestamp"), ("revision", "revision"), ("source", "source")):
        if value := getattr(entry, name, None):
            metadata[told] = plain(value, name)
    fields = {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry) if field.name not in _METADATA}
    status = {camel(name): plain(fields.pop(name), name) for name in _STATUS[kind]}
    spec = {camel(name): plain(value, name) for name, value in fields.items()}
    if isinstance(entry, Network) and entry.rest is not None:
        spec["rest"] = f"{entry.rest:g}s"
    if isinstance(entry, IPGroup) and entry.ips:
        spec.pop("size", None)
    whole = {"apiVersion": API_VERSION, "kind": kind.name, "metadata": metadata, "spec": _told(spec), "status": _told(status)}
    return {key: value for key, value in whole.items() if value or key == "spec"}


def plain(value: Any, name: str = "") -> Any:
    """The value as JSON knows it. `name` is the field's, to know times by."""
    match value:
        case PodOwner() | SandboxOwner() | NamedOwner():
            return owner(value)
        case enum.Enum():
            return value.name.lower().replace("_", "-")
        case int() if name in _TIMES:
            return moment(value)
        case None | str() | bool() | int() | float():
            return value
        case Mapping():
            return {str(key): plain(entry) for key, entry in value.items()}
        case list() | tuple():
            return [plain(entry) for entry in value]
        case _ if dataclasses.is_dataclass(value):
            fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
            return _told({camel(name): plain(entry, name) for name, entry in fields})
    raise TypeError(f"{type(value).__name__} has no form as JSON")


def owner(value: Owner) -> dict[str, Any]:
    """As the contract has it: {"pod": {"namespace": …}}."""
    return {_OWNER_KINDS[type(value)]: {camel(field.name): getattr(value, field.name) for field in dataclasses.fields(value)}}


def camel(name: str) -> str:
    """`exported_to` → `exportedTo`."""
    head, *rest = name.split("_")
    return head + "".join("IPs" if word == "ips" else word.capitalize() for word in rest)


def reference(kind: Kind, entry: Any) -> str:
    """`network/t1/control`, `node/n1`, `portset/pod/t1/web/…`, `ipgroup/t1/control/ig0`: what `-o name` prints."""
    if isinstance(entry, PortSet):
        return f"{kind.singular}/{entry.owner.key}"
    parts = [kind.singular, entry.tenant] if kind.tenanted else [kind.singular]
    if isinstance(entry, IPGroup):
        parts.append(entry.network)
    return "/".join([*parts, entry.name])


def as_json(documents: Sequence[Any], single: bool) -> str:
    """One document, or a List of them."""
    whole = documents[0] if single else {"apiVersion": API_VERSION, "kind": "List", "items": list(documents)}
    return json.dumps(whole, indent=2, ensure_ascii=False)


def as_yaml(documents: Iterable[Any]) -> str:
    """Documents with `---` between them, to be applied again as they are."""
    import yaml

    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, default_flow_style=False).rstrip("\n")


def _told(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in (None, "", 0, False, [], {}, ())}
