"""Where in a JSON text something is written, for errors: what the text is, and the way from its top."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from knitter_common.errors import Invalid
from knitter_common.names import nearest, shown

T = TypeVar("T")

Json = Any  # None, bool, int, float, str, list or dict of the same


@dataclass(frozen=True, slots=True)
class Place:
    """`key` names the text: an annotation's key, a configuration's, a file. `path` is the way below it: "ports[1].attributes".

    `reason` is the reason that errors carry.
    """

    key: str
    path: str = ""
    reason: str = "ANNOTATION_INVALID"

    @classmethod
    def of(cls, place: str, reason: str) -> "Place":
        """The place that `str` wrote into a wish."""
        key, _, path = place.partition(": ")
        return cls(key, path, reason)

    def __str__(self) -> str:
        return f"{self.key}: {self.path}" if self.path else self.key

    def item(self, index: int) -> "Place":
        """An entry of a list, from 0."""
        return replace(self, path=f"{self.path}[{index}]")

    def at(self, name: str) -> "Place":
        """A key of an object."""
        name = name if len(name) <= 40 and name.isprintable() else shown(name, 40)
        return replace(self, path=f"{self.path}.{name}" if self.path else name)

    def error(self, sentence: str, value: object = None, reason: str = "") -> Invalid:
        """Invalid with key, place and value in its metadata: "<key>: <path>: <sentence>"."""
        told = "" if value is None else shown(value, 200)
        return Invalid(reason or self.reason, f"{self}: {sentence}", key=self.key, place=self.path, value=told)

    def checked(self, parse: Callable[[str], T], value: str) -> T:
        """`parse(value)`; its ValueError becomes Invalid with the place."""
        try:
            return parse(value)
        except ValueError as error:
            raise self.error(str(error), value) from None

    def text(self, value: Json) -> str:
        """The value, which must be a text."""
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            raise self.error(f'must be a text; write "{str(value).lower()}", with the quotes', value)
        if isinstance(value, int | float):
            raise self.error(f'must be a text; write "{value}", with the quotes', value)
        raise self.error(f"must be a text, not {kind(value)}", value)

    def object(self, value: Json) -> dict[str, Json]:
        """The value, which must be an object."""
        if not isinstance(value, dict):
            raise self.error(f"must be an object, not {kind(value)}", value)
        return value

    def list(self, value: Json) -> list[Json]:
        """The value, which must be a list."""
        if not isinstance(value, list):
            raise self.error(f"must be a list, not {kind(value)}", value)
        return value

    def known(self, keys: Iterable[str], names: Iterable[str]) -> None:
        """Refuses keys of an object that are not among these."""
        names = tuple(names)
        for name in keys:
            if name not in names:
                raise self.error(f"{shown(name)} is not known here; {nearest(name, names)}", name)

    def choice(self, value: str, names: Iterable[str]) -> str:
        """The value, which must be one of these."""
        names = tuple(names)
        if value in names:
            return value
        hint = nearest(value, names)
        way = f"; {hint}" if hint.startswith("did") else ""
        raise self.error(f"{shown(value)} is none of {', '.join(names)}{way}", value)


def kind(value: Json) -> str:
    """What a JSON value is, for people."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {shown(value)}"
        case str():
            return f"the text {shown(value)}"
        case list():
            return "a list"
        case _:
            return "an object"
