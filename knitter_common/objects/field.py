"""One place in a YAML document: reads what is there by what it must be, and says file, line, object, field and way out else.

YAML 1.1 surprises are told, not passed on: `no` where a text is meant, `010` where a number is, `yes` for true.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import yaml

from knitter_common.errors import Invalid
from knitter_common.names import nearest, shown

MAX_VISITS = 200_000  # nodes of one text, an alias counted wherever it stands
MAX_MERGES = 8
_TAG = "tag:yaml.org,2002:"
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_TEXTS = ("str", "timestamp")  # a date is a text here
_KINDS = {"str": "a text", "int": "a number", "float": "a number", "bool": "true or false", "seq": "a list", "map": "an object"}


@dataclass(slots=True)
class Source:
    """Where an object stands: its file, which document of how many, and, once known, what it is."""

    origin: str
    document: int = 0  # from 1; 0 where the text has one
    subject: str = ""
    lines: dict[str, int] = field(default_factory=dict)  # path → line from 1
    visits: list[int] = field(default_factory=lambda: [0])  # shared by the objects of one text

    def error(self, path: str, sentence: str, line: int = 0, value: object = "", reason: str = "FIELD_INVALID") -> Invalid:
        """The error with everything that is known of its place."""
        line = line or self._line(path)
        place = ", ".join(([f"document {self.document}"] if self.document else []) + ([f"line {line}"] if line else []))
        parts = [part for part in (self.origin, place, self.subject, path) if part]
        told = shown(value, 200) if value != "" else ""
        return Invalid(reason, f"{': '.join(parts)}: {sentence}", file=self.origin, line=line, field=path, value=told)

    def visit(self, path: str, node: yaml.Node) -> None:
        """Remembers the line, and refuses aliases that multiply."""
        self.lines[path] = node.start_mark.line + 1
        self.visits[0] += 1
        if self.visits[0] > MAX_VISITS:
            raise self.error(path, f"has more than {MAX_VISITS} values, aliases counted; spread them", reason="LIMIT_EXCEEDED")

    def _line(self, path: str) -> int:
        """That of the field, or of the nearest one around it that is written."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get("", 0)


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the document."""

    node: yaml.Node
    path: str
    source: Source

    @property
    def line(self) -> int:
        """From 1."""
        return int(self.node.start_mark.line) + 1

    @property
    def tag(self) -> str:
        """What YAML takes it for: str, int, float, bool, null, seq, map …; others' tags as written."""
        return str(self.node.tag).removeprefix(_TAG)

    def error(self, sentence: str, value: object = "") -> Invalid:
        """What is wrong here."""
        return self.source.error(self.path, sentence, self.line, value)

    def table(self, known: Iterable[str] | None, merges: int = 0) -> "Table":
        """An object with these keys; None takes any key. `merges` counts the `<<` on the way here."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self._not("an object")
        fields: dict[str, Field] = {}
        merged: list[Field] = []
        for key_node, node in self.node.value:
            if key_node.tag == f"{_TAG}merge":
                if merges >= MAX_MERGES:
                    raise self.error(f"merges ('<<') more than {MAX_MERGES} objects deep; write it out")
                merged += _merged(Field(node, self.path, self.source))
                continue
            key = self._key(key_node)
            if key in fields:
                at = Field(key_node, f"{self.path}.{key}" if self.path else key, self.source)
                raise at.error(f"is written twice, first in line {fields[key].line}; remove one")
            fields[key] = self._at(key, node)
        for entry in merged:
            for key, inner in entry.table(None, merges + 1).fields.items():
                fields.setdefault(key, self._at(key, inner.node))
        table = Table(self, {key: entry for key, entry in fields.items() if entry.tag != "null"})
        if known is not None:
            table.check(fields, tuple(known))
        return table

    def items(self) -> list["Field"]:
        """The entries of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self._not("a list")
        made = [Field(node, f"{self.path}[{index}]", self.source) for index, node in enumerate(self.node.value)]
        for entry in made:
            self.source.visit(entry.path, entry.node)
        return made

    def text(self) -> str:
        """A text."""
        if isinstance(self.node, yaml.ScalarNode):
            value = str(self.node.value)
            if self.tag in _TEXTS or (self.tag in ("int", "float") and ":" in value):  # 10:20:30 is a number to YAML 1.1
                return value
            if self.tag in ("int", "float", "bool"):
                raise self.error(f'{value} is read as {_KINDS[self.tag]}; write "{value}", with the quotes', value)
        raise self._not("a text")

    def number(self) -> int:
        """A whole number."""
        if isinstance(self.node, yaml.ScalarNode) and self.tag in ("int", "float"):
            if _NUMBER.match(self.node.value):
                return int(self.node.value)
            raise self.error(f"{shown(self.node.value)} is no plain whole number; write it in decimal digits", self.node.value)
        raise self._not("a whole number")

    def flag(self) -> bool:
        """true or false."""
        if isinstance(self.node, yaml.ScalarNode) and self.tag == "bool":
            word = self.node.value.lower()
            if word in ("true", "false"):
                return bool(word == "true")
            raise self.error(f"{self.node.value} is no plain truth value; write true or false", self.node.value)
        raise self._not("true or false")

    def span(self) -> float:
        """A span of time in seconds: "30s", "250ms", "1h30m", or a whole number of seconds."""
        if self.tag == "int":
            return float(self.number())
        text = self.text() if self.tag == "str" else str(self.node.value)
        parts = _SPAN.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise self.error(f'{shown(text)} is no span of time; write "30s", "250ms", "5m" or "1h"', text)
        return float(sum(float(number) * _UNIT[unit] for number, unit in parts))

    def choice(self, names: Iterable[str]) -> str:
        """One of these."""
        names, value = tuple(names), self.text()
        if value not in names:
            raise self.error(f"{shown(value)} is none of {', '.join(names)}; {nearest(value, names)}", value)
        return value

    def _at(self, key: str, node: yaml.Node) -> "Field":
        made = Field(node, f"{self.path}.{key}" if self.path else key, self.source)
        self.source.visit(made.path, node)
        return made

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise Field(node, self.path, self.source).error("a key must be a text")
        return str(node.value)

    def _not(self, wanted: str) -> Invalid:
        if self.tag == "null":
            return self.error(f"is empty; it must be {wanted}")
        if self.tag not in _KINDS:
            return self.error(f"has the tag {shown(self.node.tag)}; it must be {wanted}, without a tag", self.node.tag)
        value = f" {shown(str(self.node.value))}" if isinstance(self.node, yaml.ScalarNode) else ""
        return self.error(f"must be {wanted}, not {_KINDS[self.tag]}{value}", value.strip())


def _merged(value: Field) -> list[Field]:
    """What stands behind `<<`: an object, or a list of them, earlier ones first."""
    return value.items() if isinstance(value.node, yaml.SequenceNode) else [value]


@dataclass(frozen=True, slots=True)
class Table:
    """An object of the document; a key whose value is empty is as good as absent."""

    field: Field
    fields: Mapping[str, Field]

    def check(self, written: Iterable[str], known: tuple[str, ...]) -> None:
        """Refuses keys that are not known."""
        for key in written:
            if key not in known:
                at = self.fields.get(key, self.field)
                raise self.field.source.error(self.field.path, f"unknown key {shown(key)}; {nearest(key, known)}", at.line, key)

    def get(self, key: str) -> Field | None:
        """The value, or None."""
        return self.fields.get(key)

    def need(self, key: str, hint: str) -> Field:
        """The value, which must be there."""
        found = self.fields.get(key)
        if found is None:
            path = f"{self.field.path}.{key}" if self.field.path else key
            raise self.field.source.error(path, f"is missing; {hint}", self.field.line)
        return found

    def text(self, key: str) -> str:
        """A text; "" where absent."""
        found = self.fields.get(key)
        return "" if found is None else found.text()

    def number(self, key: str) -> int:
        """A whole number; 0 where absent."""
        found = self.fields.get(key)
        return 0 if found is None else found.number()

    def flag(self, key: str) -> bool:
        """true or false; false where absent."""
        found = self.fields.get(key)
        return False if found is None else found.flag()

    def items(self, key: str) -> list[Field]:
        """The entries of a list; none where absent."""
        found = self.fields.get(key)
        return [] if found is None else found.items()

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; none where absent."""
        return tuple(entry.text() for entry in self.items(key))

    def texts_by_key(self, key: str) -> dict[str, str]:
        """An object of texts; {} where absent."""
        found = self.fields.get(key)
        return {} if found is None else {name: entry.text() for name, entry in found.table(None).fields.items()}
