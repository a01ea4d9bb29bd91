"""Rows in bulk: as few calls of SQLite as can be, since each one gives the interpreter's lock away.

With a busy event loop a lock given away takes up to a switch interval (5 ms) to come back, so the writer thread does not call
once per row. Statements over many rows come in a few sizes, prepared once: keys are padded with NULL, which equals nothing.
"""

import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from knitter_manager.store.protocol import Commit, Span

_SIZES = (256, 64, 16, 4, 1)
_Row = tuple[object, ...]


def _values(row: str, size: int) -> str:
    return ",".join([row] * size)


_PUT = {size: f"INSERT OR REPLACE INTO records VALUES {_values('(?,?,?)', size)}" for size in _SIZES}
_LOG = {size: f"INSERT INTO changes VALUES {_values('(?,?,?)', size)}" for size in _SIZES}
_DELETE = {size: f"DELETE FROM records WHERE key IN ({_values('?', size)})" for size in _SIZES}
_GET = {size: f"SELECT key, value, revision FROM records WHERE key IN ({_values('?', size)})" for size in _SIZES}
_REVISIONS = {
    size: f"WITH k(i, key) AS (VALUES {','.join(f'({i},?)' for i in range(size))}) "
    "SELECT group_concat(k.i || ' ' || r.revision, ' ') FROM k CROSS JOIN records r ON r.key = k.key"
    for size in _SIZES
}


def revisions(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, int]:
    """The revision of each key that exists."""
    found: dict[str, int] = {}
    for size, part in _padded(keys):
        text = connection.execute(_REVISIONS[size], part).fetchone()[0]
        if text:
            numbers = [int(number) for number in text.split(" ")]
            for index, revision in zip(numbers[::2], numbers[1::2], strict=True):
                found[str(part[index])] = revision
    return found


def get(connection: sqlite3.Connection, keys: Iterable[str]) -> Iterator[tuple[str, bytes, int]]:
    """Key, value and revision of each key that exists."""
    for size, part in _padded(keys):
        yield from connection.execute(_GET[size], part)


def between(connection: sqlite3.Connection, span: Span) -> sqlite3.Cursor:
    """Key, value and revision of each record in a span, in order of key."""
    query = "SELECT key, value, revision FROM records WHERE key >= ?"
    if span.end:
        return connection.execute(f"{query} AND key < ? ORDER BY key", span)
    return connection.execute(f"{query} ORDER BY key", (span.begin,))


def first_after(connection: sqlite3.Connection, prefix: str) -> tuple[str, bytes, int] | None:
    """The first record whose key is the prefix or sorts after it."""
    query = "SELECT key, value, revision FROM records WHERE key >= ? ORDER BY key LIMIT 1"
    row: tuple[str, bytes, int] | None = connection.execute(query, (prefix,)).fetchone()
    return row


def write(connection: sqlite3.Connection, writes: Mapping[str, tuple[bytes, int] | None]) -> None:
    """Puts value and revision at each key; None deletes it."""
    for size, part in _split([(key, *write) for key, write in writes.items() if write is not None]):
        connection.execute(_PUT[size], part)
    for size, keys in _padded(key for key, write in writes.items() if write is None):
        connection.execute(_DELETE[size], keys)


def log(connection: sqlite3.Connection, commits: Sequence[Commit], at: int) -> None:
    """Appends commits to the change log. `at` is the wall clock in seconds."""
    for size, part in _split([(commit.revision, at, pack(commit)) for commit in commits]):
        connection.execute(_LOG[size], part)


_ENTRY = struct.Struct("<Iq")  # length of the key, length of the value or -1 for a delete


def pack(commit: Commit) -> bytes:
    """A commit's puts and deletes as the change log keeps them: for each key its two lengths, the key in UTF-8, the value."""
    parts: list[bytes] = []
    for key, value in commit.puts.items():
        name = key.encode()
        parts += (_ENTRY.pack(len(name), len(value)), name, value)
    for key in commit.deletes:
        name = key.encode()
        parts += (_ENTRY.pack(len(name), -1), name)
    return b"".join(parts)


def unpack(revision: int, body: bytes) -> Commit:
    """The commit that `pack` packed."""
    puts: dict[str, bytes] = {}
    deletes: list[str] = []
    offset = 0
    while offset < len(body):
        key_length, value_length = _ENTRY.unpack_from(body, offset)
        offset += _ENTRY.size
        key = body[offset : offset + key_length].decode()
        offset += key_length
        if value_length < 0:
            deletes.append(key)
        else:
            puts[key] = body[offset : offset + value_length]
            offset += value_length
    return Commit(revision, puts, tuple(deletes))


def _split(rows: Sequence[_Row]) -> Iterator[tuple[int, list[object]]]:
    """The rows in parts of exactly the prepared sizes, flattened to parameters."""
    begin = 0
    for size in _SIZES:
        while len(rows) - begin >= size:
            yield size, list(chain.from_iterable(rows[begin : begin + size]))
            begin += size


def _padded(keys: Iterable[str]) -> Iterator[tuple[int, list[str | None]]]:
    """The keys in parts of the prepared sizes, the last one padded with None."""
    rest = list(keys)
    for begin in range(0, len(rest), _SIZES[0]):
        part: list[str | None] = [*rest[begin : begin + _SIZES[0]]]
        size = next(size for size in reversed(_SIZES) if size >= len(part))
        part += [None] * (size - len(part))
        yield size, part
