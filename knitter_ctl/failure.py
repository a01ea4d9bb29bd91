"""Errors for people and exit codes for scripts (docs/knitterctl.md shows the same table).

0 ok            3 not found                          6 exhausted: a pool or a quota is full
1 failed        4 refused: exists, stale, in use     7 denied
2 bad input     5 unavailable: try again later
"""

import sys
from collections.abc import Sequence
from typing import TextIO

from knitter_common.errors import (
    Denied,
    Exhausted,
    Exists,
    Invalid,
    KnitterError,
    NotFound,
    Refused,
    Stale,
    Unavailable,
)
from knitter_ctl.table import Cell, coloured, paint

FAILED = 1
_CODES: dict[type[KnitterError], int] = {
    Invalid: 2,
    NotFound: 3,
    Exists: 4,
    Stale: 4,
    Refused: 4,
    Unavailable: 5,
    Exhausted: 6,
    Denied: 7,
}


class Several(Exception):
    """Some of many failed, each told already; the rest was done."""

    def __init__(self, errors: Sequence[KnitterError]) -> None:
        super().__init__(f"{len(errors)} failed")
        self.errors = tuple(errors)


def exit_code(error: KnitterError | Several) -> int:
    """What the process ends with. Of several errors: their code where they agree, else 1."""
    if isinstance(error, Several):
        codes = {exit_code(one) for one in error.errors}
        return codes.pop() if len(codes) == 1 else FAILED
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), FAILED)


def tell(error: KnitterError, about: str = "", stream: TextIO | None = None) -> None:
    """Two lines on standard error: what is wrong, and the way out. `about` is the object it happened to."""
    stream = stream or sys.stderr
    colours = coloured(stream)
    subject = f"{about}: " if about else ""
    print(f"{paint(Cell('error:', 'bad'), colours)} {error.reason}: {subject}{error.message}", file=stream)
    print(f"{paint(Cell('way out:', 'dim'), colours)} {error.way_out}", file=stream)
