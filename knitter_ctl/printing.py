"""Many objects in the form that `-o` asks for."""

from collections.abc import Sequence
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
