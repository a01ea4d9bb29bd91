"""Objects from files, folders and standard input, all read before anything is sent, in the order of what needs what."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knitter_common.errors import Invalid, KnitterError
from knitter_common.objects import Loaded
from knitter_ctl.failure import Several
from knitter_ctl.kinds import ORDER, Kind, named

SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Declared:
    """One object and where it was written."""

    kind: Kind
    entry: Any
    place: str


Parse = Callable[[str, str], Loaded]  # a text and the name of its place → objects, and an error for each that is bad


class Bad(Several):
    """Bad inputs; nothing was sent."""


def read(names: Sequence[str], *, recursive: bool, parse: Parse, stdin: Callable[[], str]) -> list[Declared]:
    """The objects of all inputs, what is needed first. Raises Bad with every error that is found."""
    found: list[Declared] = []
    errors: list[KnitterError] = []
    for place, text in _texts(names, recursive, stdin):
        if isinstance(text, KnitterError):
            errors.append(text)
            continue
        loaded = parse(text, place)
        found += [Declared(named(type(entry).__name__), entry, place) for entry in loaded.objects]
        errors += loaded.errors
    if errors:
        raise Bad(errors)
    return sorted(found, key=lambda one: ORDER.index(one.kind))


def standard_input() -> str:
    """All of it."""
    return sys.stdin.read()


def _texts(names: Sequence[str], recursive: bool, stdin: Callable[[], str]) -> Iterator[tuple[str, str | KnitterError]]:
    for name in names:
        if name == "-":
            yield "standard input", stdin()
            continue
        for path in _files(Path(name), recursive):
            try:
                yield str(path), path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                yield str(path), Invalid("FIELD_INVALID", f"{path}: cannot be read: {error}", file=str(path))


def _files(path: Path, recursive: bool) -> list[Path]:
    """The file itself, or those of a folder. Raises Invalid for a folder without any."""
    if not path.is_dir():
        return [path]
    entries = path.rglob("*") if recursive else path.iterdir()
    found = sorted(entry for entry in entries if entry.is_file() and entry.suffix in SUFFIXES and not entry.name.startswith("."))
    if not found:
        hint = "" if recursive else "; -R reads the folders below it too"
        raise Invalid("FIELD_INVALID", f"{path}: no file ends with {', '.join(SUFFIXES)}{hint}", file=str(path))
    return found
