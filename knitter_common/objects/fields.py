"""What the checks of all objects share: a bad field becomes Invalid with its path, value and way out.

A path is written as in the YAML form, below `spec`: "subnets[0].pools[1].start", "metadata.name".
"""

import re
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from knitter_common.errors import Invalid
from knitter_common.names import label_key, label_value, shown
from knitter_common.names import source as known_source

T = TypeVar("T")
V = TypeVar("V")

DESCRIPTION_LENGTH = 1024
MTU = (68, 65535)  # RFC 791; the kernel's ETH_MAX_MTU
_TEXT = re.compile(r"[^\x00-\x1f\x7f]*\Z")


def refuse(field: str, sentence: str, value: object = "") -> NoReturn:
    """Raises Invalid(FIELD_INVALID): "<field>: <sentence>"."""
    raise Invalid("FIELD_INVALID", f"{field}: {sentence}", field=field, value=shown(value, 200) if value != "" else "")


def checked(field: str, parse: Callable[[V], T], value: V) -> T:
    """`parse(value)`; its ValueError becomes Invalid with the field."""
    try:
        return parse(value)
    except ValueError as error:
        refuse(field, str(error), value)


def number(field: str, value: int, low: int, high: int, what: str) -> int:
    """A whole number between bounds, both included."""
    if not low <= value <= high:
        refuse(field, f"{value} is no {what}; it must be from {low} to {high}", value)
    return value


def at_most(field: str, values: Sequence[object], limit: int) -> None:
    """A list's length."""
    if len(values) > limit:
        raise Invalid("LIMIT_EXCEEDED", f"{field}: {len(values)} entries are too many; at most {limit}", field=field, limit=limit)


def source(field: str, value: str) -> str:
    """Where the declaration lives, "" where nobody says."""
    return checked(field, known_source, value) if value else ""


def description(value: str, field: str = "description") -> str:
    """A line for people."""
    if len(value) > DESCRIPTION_LENGTH:
        refuse(field, f"is {len(value)} characters long; at most {DESCRIPTION_LENGTH}")
    if not _TEXT.match(value):
        refuse(field, "has a control character or a second line; write one line of plain text", value)
    return value


def labels(field: str, values: dict[str, str]) -> dict[str, str]:
    """Labels, ordered by key."""
    for key, value in values.items():
        checked(field, label_key, key)
        checked(f"{field}.{key}", label_value, value)
    return dict(sorted(values.items()))


def mtu(field: str, value: int) -> int:
    """An MTU in bytes, or 0 for the default."""
    return number(field, value, *MTU, "MTU in bytes") if value else 0
