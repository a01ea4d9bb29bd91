"""Many objects, or rows of something else, in the form that `-o` asks for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from knitter_ctl import columns, document, table
from knitter_ctl.kinds import Kind


def lines(kind: Kind, entries: Sequence[Any], form: str, *, single: bool, headers: bool, now: int) -> list[str]:
    """What is printed. `single`: one object was asked for by name, so JSON is that object and no List."""
    match form:
        case "json":
            return [document.as_json([document.document(kind, entry) for entry in entries], single)]
        case "yaml":
            return [document.as_yaml([document.document(kind, entry) for entry in entries])] if entries else []
        case "name":
            return [document.reference(kind, entry) for entry in entries]
        case _:
            wide = form == "wide"
            rows = [columns.row(kind, entry, now, wide) for entry in entries]
            if not rows:
                return []
            return table.layout(columns.header(kind, wide) if headers else (), rows, colours=table.coloured())


Columns = Mapping[str, Callable[[Any], str | table.Cell]]


def rows(
    found: Sequence[Any], columns_of: Columns, form: str, *, headers: bool, documents: Sequence[Any] | None = None
) -> list[str]:
    """What is printed of things that are no objects: `found` are the rows, `documents` what they are as JSON (the same by
    default). The first column is the name."""
    told = found if documents is None else documents
    match form:
        case "json":
            return [document.as_json(told, single=False)]
        case "yaml":
            return [document.as_yaml(told)] if told else []
        case "name":
            names = (next(iter(columns_of.values()))(entry) for entry in found)
            return list(dict.fromkeys(name if isinstance(name, str) else name.text for name in names))
        case _:
            body = [[show(entry) for show in columns_of.values()] for entry in found]
            return table.layout(list(columns_of) if headers and body else (), body, colours=table.coloured())
