"""One JSON configuration file per daemon, parsed once into a frozen dataclass.

A key is the camelCase form of a field's name. Every field documents itself through `setting(…)`: the text is what
docs/configuration.md shows. Unknown keys are refused with the nearest known one, except below keys that begin with "x-".

Types a field may have: str, int, float, bool, Seconds, tuple[T, ...], another settings dataclass, dict[str, str], and `T | None`.
"""

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NewType, TypeVar, cast

from knitter_common import strict_json
from knitter_common.errors import Invalid
from knitter_common.place import Place

T = TypeVar("T")

# A span of time in seconds; in the file a number of seconds or a text such as "250ms", "30s", "5m", "1h".
Seconds = NewType("Seconds", float)

MAX_BYTES = 1024 * 1024

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)\Z")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def setting(
    doc: str,
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    address: str = "",
) -> Any:
    """A documented field. `low` and `high` bound a number, `choices` a text; `address` says that a text is one: of a "peer",
    "served" (port 0 means any free one) or "unix" (served, on a unix socket only)."""
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices, "address": address}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def key_of(field_name: str) -> str:
    """`grace_period` → `gracePeriod`."""
    head, *rest = field_name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def load(kind: type[T], path: Path) -> T:
    """Reads a configuration file. Raises Invalid(FIELD_INVALID) naming file, key, value and way out."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("FIELD_INVALID", f"{path}: cannot be read: {error}", file=str(path)) from error
    return parse(kind, strict_json.read(text, Place(str(path), "", "FIELD_INVALID"), MAX_BYTES), str(path))


def parse(kind: type[T], data: object, place: str) -> T:
    """Builds `kind` from parsed JSON. `place` leads every error."""
    if not isinstance(data, Mapping):
        raise Invalid("FIELD_INVALID", f"{place}: must be an object, not {_shown(data)}")
    hints = typing.get_type_hints(kind)
    fields = {key_of(field.name): field for field in dataclasses.fields(cast(Any, kind))}
    for key in data:
        if key not in fields and not str(key).startswith("x-"):
            nearest = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.4)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known keys: {', '.join(sorted(fields))}"
            raise Invalid("FIELD_INVALID", f"{place}: unknown key {key!r}; {hint}", field=str(key))
    values: dict[str, Any] = {}
    for key, field in fields.items():
        if key in data:
            values[field.name] = _value(hints[field.name], data[key], f"{place}: {key}", field.metadata)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise Invalid("FIELD_INVALID", f"{place}: {key} is missing: {field.metadata.get('doc', '')}", field=key)
    try:
        return kind(**values)
    except Invalid as error:  # what the types cannot say, from __post_init__
        raise Invalid(error.reason, f"{place}: {error.message}", **error.metadata) from error


def seconds(value: object, place: str) -> Seconds:
    """A span of time from a number or a text with a unit."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return Seconds(float(value))
    match = _SPAN.match(value) if isinstance(value, str) else None
    if match is None:
        raise Invalid("FIELD_INVALID", f'{place}: {_shown(value)} is not a span of time; write 30, "30s", "250ms", "5m" or "1h"')
    return Seconds(float(match[1]) * _UNIT[match[2]])


def _value(hint: Any, value: object, place: str, metadata: Mapping[str, Any]) -> Any:
    if isinstance(hint, types.UnionType):
        if value is None and types.NoneType in hint.__args__:
            return None
        return _value(next(arm for arm in hint.__args__ if arm is not types.NoneType), value, place, metadata)
    if hint is Seconds:
        return _bounded(seconds(value, place), place, metadata)
    if dataclasses.is_dataclass(hint):
        return parse(cast(type[Any], hint), value, place)
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise Invalid("FIELD_INVALID", f"{place}: must be a list, not {_shown(value)}")
        item = typing.get_args(hint)[0]
        return tuple(_value(item, entry, f"{place}[{index}]", metadata) for index, entry in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(entry, str) for entry in value.values()):
            raise Invalid("FIELD_INVALID", f"{place}: must be an object of texts, not {_shown(value)}")
        return dict(value)
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise Invalid("FIELD_INVALID", f"{place}: must be {names[hint]}, not {_shown(value)}")
    if metadata.get("choices") and value not in metadata["choices"]:
        raise Invalid("FIELD_INVALID", f"{place}: {_shown(value)} is none of {', '.join(metadata['choices'])}")
    if metadata.get("address"):
        _check_address(str(value), place, metadata["address"])
    return _bounded(value, place, metadata) if hint in (int, float) else value


def _check_address(text: str, place: str, kind: str) -> None:
    if text.startswith("unix:/"):
        return
    host, _, port = text.rpartition(":")
    if kind == "unix" or host in ("", "unix") or not port.isdecimal() or not (kind == "peer") <= int(port) < 65536:
        forms = "unix:/path" if kind == "unix" else "host:port or unix:/path"
        raise Invalid("FIELD_INVALID", f"{place}: {_shown(text)} is no address; write {forms}")


def _bounded(value: Any, place: str, metadata: Mapping[str, Any]) -> Any:
    low, high = metadata.get("low"), metadata.get("high")
    if value - value != 0:
        raise Invalid("FIELD_INVALID", f"{place}: {value} is no number to work with; write a finite one")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"at most {high}" if low is None else f"from {low} to {high}"
        raise Invalid("FIELD_INVALID", f"{place}: {value} is out of range; it must be {bounds}")
    return value


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
