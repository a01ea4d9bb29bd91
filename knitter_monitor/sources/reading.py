"""What a folder declares now: its files read and parsed, and what in it cannot be read. Blocking; no state but a cache of files.

    x.yaml, x.yml, x.json   read, also through symbolic links (a ConfigMap's files are links through a link that is swapped)
    .x, ..data              hidden: not read; an editor's or an installer's temporary files are
    folders below           not read

A reading is `whole` when the folder and each of its files could be read and parsed, down to the last object, and something is
declared. Only a whole reading says anything about what has vanished.
"""

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from knitter_monitor.sources.kinds import Declarable, Key, key_of
from knitter_monitor.sources.report import Problem

SUFFIXES = (".yaml", ".yml", ".json")
MOST_BYTES = 4 * 1024 * 1024  # of one file
_HOPS = 40  # as the kernel's limit for symbolic links


@dataclass(frozen=True, slots=True)
class Declared:
    """An object and where it is written: "networks.yaml, document 2"."""

    obj: Declarable
    place: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one file holds."""

    objects: tuple[Declared, ...]
    problems: tuple[Problem, ...]


Parse = Callable[[str, str], Parsed]  # a file's text and its name


@dataclass(slots=True)
class Reading:
    """`contested`: declared more than once, so that none of them counts.

    `watch`: the entries of directories whose change calls for a new reading, an empty set for all; `watched`: they are.
    """

    declared: dict[Key, Declared] = field(default_factory=dict)
    contested: set[Key] = field(default_factory=set)
    problems: set[Problem] = field(default_factory=set)
    watch: dict[Path, set[str]] = field(default_factory=dict)
    readable: bool = True
    watched: bool = True

    @property
    def whole(self) -> bool:
        """What is missing here has vanished."""
        return self.readable and bool(self.declared)

    def names(self, key: Key) -> bool:
        """The object is declared, whether well or not."""
        return key in self.declared or key in self.contested


class FolderReader:
    """Reads one folder again and again; files that did not change are not parsed again."""

    def __init__(self, folder: Path, parse: Parse) -> None:
        self.folder = folder
        self._parse = parse
        self._files: dict[str, tuple[bytes, Parsed]] = {}

    def read(self) -> Reading:
        """Never raises: what goes wrong is a problem of the reading."""
        reading = Reading()
        real = _trail(self.folder, reading.watch)
        if real is None:
            return _unreadable(reading, str(self.folder), f"{self.folder} does not exist")
        try:
            with os.scandir(real) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as error:
            return _unreadable(reading, str(self.folder), f"{self.folder} cannot be read: {error.strerror}")
        reading.watch[real] = set()
        files: dict[str, tuple[bytes, Parsed]] = {}
        for name in (name for name in names if name.endswith(SUFFIXES) and not name.startswith(".")):
            self._file(real, name, reading, files)
        self._files = files
        _gather(reading, (entry for _, parsed in files.values() for entry in parsed.objects))
        return reading

    def _file(self, folder: Path, name: str, reading: Reading, files: dict[str, tuple[bytes, Parsed]]) -> None:
        around: dict[Path, set[str]] = {}
        _trail(folder / name, around)
        for directory, entries in around.items():
            if directory != folder:
                reading.watch.setdefault(directory, set()).update(entries)
        try:
            data = _contents(folder / name)
        except OSError as error:
            _unreadable(reading, name, f"{name} cannot be read: {error.strerror or error}")
            return
        known = self._files.get(name)
        parsed = known[1] if known is not None and known[0] == data else self._parsed(name, data)
        files[name] = (data, parsed)
        reading.problems.update(parsed.problems)
        reading.readable = reading.readable and not parsed.problems

    def _parsed(self, name: str, data: bytes) -> Parsed:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            return Parsed((), (Problem(name, "", "FIELD_INVALID", f"{name}: byte {error.start} is not UTF-8; save it as UTF-8"),))
        return self._parse(text, name)


def _contents(path: Path) -> bytes:
    """Raises OSError also for what is not a regular file (opening a pipe would wait) and for what is too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is not a regular file")
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(f"it is larger than {MOST_BYTES} bytes; split it")
    return data


def _gather(reading: Reading, entries: Iterable[Declared]) -> None:
    places: dict[Key, list[Declared]] = {}
    for entry in entries:
        places.setdefault(key_of(entry.obj), []).append(entry)
    for key, found in places.items():
        if len(found) == 1:
            reading.declared[key] = found[0]
            continue
        reading.contested.add(key)
        where = " and ".join(entry.place for entry in found)
        text = f"{key} is declared more than once: {where}; remove all but one (until then, what is applied stays)"
        reading.problems.add(Problem(found[0].place, str(key), "OBJECT_EXISTS", text))


def _unreadable(reading: Reading, place: str, message: str) -> Reading:
    reading.readable = False
    reading.problems.add(Problem(place, "", "SOURCE_INCOMPLETE", message + "; nothing that is missing is deleted meanwhile"))
    return reading


def _trail(path: Path, watch: dict[Path, set[str]]) -> Path | None:
    """Follows `path` by hand, link by link, noting each entry whose change could lead elsewhere. None: it leads nowhere."""
    pending = list(reversed(path.absolute().parts[1:]))
    at, hops = Path("/"), 0
    while pending:
        part = pending.pop()
        if part == "..":
            at = at.parent
            continue
        step = at / part
        try:
            link = step.readlink() if step.is_symlink() else None
        except OSError:
            link = None
        if link is not None:
            watch.setdefault(at, set()).add(part)
            hops += 1
            if hops > _HOPS:
                return None
            pending.extend(reversed(link.parts[1:] if link.is_absolute() else link.parts))
            at = Path("/") if link.is_absolute() else at
            continue
        if not pending or not step.exists():
            watch.setdefault(at, set()).add(part)
        if not step.exists():
            return None
        at = step
    return at
