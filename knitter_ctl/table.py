"""Plain aligned columns: the same text on a terminal and in a pipe, with colours on a terminal only."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

_GAP = "   "
_STYLES = {"good": "32", "warn": "33", "bad": "31", "kept": "36", "head": "1", "dim": "2"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One field. `style` is "", good, warn, bad, kept, head or dim."""

    text: str
    style: str = ""


Row = Sequence[str | Cell]


def coloured(stream: TextIO | None = None) -> bool:
    """Colours are wanted: the stream is a terminal that can, and NO_COLOR (no-color.org) is not set."""
    stream = stream or sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(cell: str | Cell, colours: bool) -> str:
    """The cell's text, in its colour where colours are wanted."""
    if isinstance(cell, str) or not cell.style or not colours or not cell.text:
        return _text(cell)
    return f"\x1b[{_STYLES[cell.style]}m{cell.text}\x1b[0m"


def layout(header: Sequence[str], rows: Iterable[Row], *, colours: bool = False, indent: str = "") -> list[str]:
    """The lines of a table, without an end of line. An empty header is left out; an empty field becomes "-"."""
    body = [[_filled(cell) for cell in row] for row in rows]
    lines = [[Cell(name, "head") for name in header], *body] if header else body
    if not lines:
        return []
    widths = [max(len(cell.text) for cell in column) for column in zip(*lines, strict=True)]
    widths[-1] = 0  # nothing trails the last column
    return [
        indent + _GAP.join(paint(cell, colours) + " " * (width - len(cell.text)) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]


def _filled(cell: str | Cell) -> Cell:
    whole = Cell(cell) if isinstance(cell, str) else cell
    clean = " ".join(whole.text.split())  # a line of a table is one line
    return Cell(clean or "-", whole.style)


def _text(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else cell.text
