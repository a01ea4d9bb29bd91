"""Objects from files, folders and standard input, all read before anything is sent, in the order of what needs what."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knitter_common.errors import Invalid
from knitter_ctl.kinds import ORDER, Kind, named

SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Declared:
    """One object and where it was written."""

    kind: Kind
    entry: Any
    place: str


Parse = Callable[[str, str], Iterable[Any]]  # a text and the name of its place → objects


def read(names: Sequence[str], *, recursive: bool, parse: Parse, stdin: Callable[[], str]) -> list[Declared]:
    """The objects of all inputs, what is needed first.

    Raises Invalid, which names every bad input, not only the first.
    """
    found: list[Declared] = []
    bad: list[Invalid] = []
    for place, text in _texts(names, recursive, stdin):
        try:
            found += [Declared(named(type(entry).__name__), entry, place) for entry in parse(text, place)]
        except Invalid as error:
            bad.append(error)
    if len(bad) == 1:
        raise bad[0]
    if bad:
        raise Invalid("FIELD_INVALID", f"{len(bad)} inputs are bad: " + "; ".join(error.message for error in bad))
    return sorted(found, key=lambda one: ORDER.index(one.kind))


def standard_input() -> str:
    """All of it."""
    return sys.stdin.read()


def _texts(names: Sequence[str], recursive: bool, stdin: Callable[[], str]) -> Iterable[tuple[str, str]]:
    for name in names:
        if name == "-":
            yield "standard input", stdin()
            continue
        for path in _files(Path(name), recursive):
            try:
                yield str(path), path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise Invalid("FIELD_INVALID", f"{path}: cannot be read: {error}", file=str(path)) from error


def _files(path: Path, recursive: bool) -> list[Path]:
    if not path.is_dir():
        return [path]
    entries = path.rglob("*") if recursive else path.iterdir()
    found = sorted(entry for entry in entries if entry.is_file() and entry.suffix in SUFFIXES and not entry.name.startswith("."))
    if not found:
        hint = "" if recursive else "; -R reads the folders below it too"
        raise Invalid("FIELD_INVALID", f"{path}: no file ends with {', '.join(SUFFIXES)}{hint}", file=str(path))
    return found


def parser(namespace: str) -> Parse:
    """How a text becomes objects; what names no namespace belongs to `namespace`, else to admin."""
    from knitter_common import objects
    from knitter_common.model import ADMIN

    return lambda text, place: objects.load_text(text, place, default_tenant=namespace or ADMIN)
