"""Objects as documents (`-o json|yaml|name`): apiVersion, kind, metadata, spec as in files, and status with what Knitter set.

What stands at its default is left out; keys are camel case, as in files; times are RFC 3339.
"""

import dataclasses
import enum
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from knitter_common.model import IPGroup, NamedOwner, ObjectState, Owner, PodOwner, PortSet, PortSetState, SandboxOwner
from knitter_common.objects import API_VERSION, time_text, to_dict
from knitter_ctl.kinds import NODE, PORT_SET, Kind

_METADATA = ("name", "tenant", "labels")
_STORED = ("create_time", "revision", "source")
# What Knitter sets of the kinds that no file declares.
_STATUS: dict[Kind, tuple[str, ...]] = {
    NODE: ("agent_version", "gone", "last_seen", *_STORED),
    PORT_SET: ("state", "ports", "binding", "error", *_STORED),
}
_TIMES = ("create_time", "last_seen", "time")
_OWNER_KINDS: dict[type[Any], str] = {PodOwner: "pod", SandboxOwner: "sandbox", NamedOwner: "named"}


def document(kind: Kind, entry: Any) -> dict[str, Any]:
    """One object. A port set's name is its owner's key."""
    if kind not in _STATUS:
        return to_dict(entry)
    fields = {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}
    status = {camel(name): plain(fields.pop(name), name) for name in _STATUS[kind] if name in fields}
    name = entry.owner.key if isinstance(entry, PortSet) else entry.name
    metadata = {"name": name, "namespace": fields.get("tenant", ""), "labels": plain(fields.get("labels", {}))}
    spec = {camel(name): plain(value, name) for name, value in fields.items() if name not in _METADATA}
    return {
        "apiVersion": API_VERSION, "kind": kind.name, "metadata": _told(metadata), "spec": _told(spec), "status": _told(status),
    }  # fmt: skip


def plain(value: Any, name: str = "") -> Any:
    """The value as JSON knows it. `name` is the field's, to know times by."""
    match value:
        case PodOwner() | SandboxOwner() | NamedOwner():
            return owner(value)
        case enum.Enum():
            return value.name if isinstance(value, ObjectState | PortSetState) else value.name.lower().replace("_", "-")
        case int() if name in _TIMES:
            return time_text(value)
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
    return head + "".join(word.capitalize() for word in rest)


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
