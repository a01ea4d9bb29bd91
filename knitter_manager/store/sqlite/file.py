"""The store's file: its tables, how it is made, opened and refused.

`records` is the current state. `changes` has one row per commit, its puts and deletes packed (rows.py), and ends at `floor`.
The head is the newest row's revision, or `floor` when every row is compacted away. `meta` holds `id` (random, made with the file),
`floor`, and `fence`: the token of the process that writes, which every transaction compares.
"""

import os
import secrets
import sqlite3
from pathlib import Path

from knitter_common.errors import Refused

SCHEMA = 1
_APPLICATION = 0x4B6E6974  # "Knit", in the file's header

_TABLES = """
CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE changes (revision INTEGER PRIMARY KEY, at INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
"""

_HEAD = "SELECT max(coalesce((SELECT max(revision) FROM changes), 0), (SELECT value FROM meta WHERE name = 'floor'))"


def prepare(path: Path) -> None:
    """Makes the file if it is absent or empty, and refuses what this release cannot use. Raises Refused(STORE_UNUSABLE)."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = connect(path)
        try:
            _check_or_make(connection, path)
        finally:
            connection.close()
        _sync_directory(path.parent)
    except OSError as error:
        raise _unusable(path, f"cannot be opened: {error.strerror or error}", "set another path, or give access to it") from error
    except sqlite3.DatabaseError as error:
        raise _unusable(path, f"SQLite refuses it: {error}", "restore a snapshot, or move the file away to begin anew") from error


def connect(path: Path, *, query_only: bool = False) -> sqlite3.Connection:
    """A connection for one thread at a time, without implicit transactions. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False, cached_statements=64)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA query_only = {int(query_only)}")
    except BaseException:
        connection.close()
        raise
    return connection


def identity(path: Path) -> tuple[int, int]:
    """Which file is at the path: its device and its number there; zeros for none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino


def head(connection: sqlite3.Connection) -> int:
    """The newest revision."""
    return int(connection.execute(_HEAD).fetchone()[0])


def meta(connection: sqlite3.Connection, name: str) -> str | int:
    """A value of the table `meta`."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    value: str | int = row[0]
    return value


def set_meta(connection: sqlite3.Connection, name: str, value: str | int) -> None:
    """Replaces a value of the table `meta`."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def _check_or_make(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN")  # one look: another process may be making it at this moment
    made = _check(connection, path)
    connection.execute("ROLLBACK")
    if made:
        return
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise _unusable(path, f"its file system does not bear a write-ahead log (mode {mode})", "set a path on a local disk")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _check(connection, path):
            for statement in filter(str.strip, _TABLES.split(";")):
                connection.execute(statement)
            for name, value in (("id", secrets.token_hex(8)), ("floor", 0), ("fence", "")):
                set_meta(connection, name, value)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _check(connection: sqlite3.Connection, path: Path) -> bool:
    """True for a store that this release knows, False for an empty file."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables == 0 and application == 0:
        return False
    if application != _APPLICATION:
        raise _unusable(path, "it is the database of another program", "set another path")
    if version > SCHEMA:
        known = f"schema {version} of a newer release; this one knows up to {SCHEMA}"
        raise _unusable(path, f"it has {known}", "run the newer release, or restore a snapshot into a new file")
    return True


def _unusable(path: Path, why: str, way_out: str) -> Refused:
    return Refused("STORE_UNUSABLE", f"store {path}: {why}; {way_out}", file=str(path))


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
