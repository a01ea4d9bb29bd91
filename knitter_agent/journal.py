"""The node's journal: which attachments there are and how to undo each. SQLite on the node's disk.

What it promises: when the step of a change ends, the change is on the disk (WAL, synchronous=FULL; concurrent changes share one
commit), and cancelling the step does not undo it. What a thread writes by itself (`write`) is safe from the end of this process at
once, and from the machine's with the next change or after a second. The records in memory are those on the disk. An empty or broken
file is moved aside and taken as absent, loudly. One process uses a journal at a time. Besides the records it holds the boot id they
were made under.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog

from knitter_agent.drivers.protocol import Wiring
from knitter_agent.record import Delegation, Key, Record, State
from knitter_common import failpoints
from knitter_common.errors import Internal, Unavailable
from knitter_common.groupcommit import GroupCommit
from knitter_common.model import NetworkType
from knitter_common.steps import Step

SCHEMA = 1
LOG_PAGES = 200  # the log is used from its beginning again after so many: syncing a log that grows takes twice as long
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attachment (
  network TEXT NOT NULL, container_id TEXT NOT NULL, interface TEXT NOT NULL,
  state INTEGER NOT NULL, netns TEXT NOT NULL, cookie TEXT NOT NULL, time INTEGER NOT NULL,
  port_set BLOB NOT NULL, wirings TEXT NOT NULL, delegations TEXT NOT NULL, result TEXT NOT NULL,
  args TEXT NOT NULL, path TEXT NOT NULL, attempts INTEGER NOT NULL, answered INTEGER NOT NULL,
  PRIMARY KEY (network, container_id, interface)) STRICT, WITHOUT ROWID;
"""
_COLUMNS = (
    "network, container_id, interface, state, netns, cookie, time,"
    " port_set, wirings, delegations, result, args, path, attempts, answered"
)
_PUT = f"INSERT OR REPLACE INTO attachment ({_COLUMNS}) VALUES ({', '.join('?' * 15)})"
_DROP = "DELETE FROM attachment WHERE network = ? AND container_id = ? AND interface = ?"
_ENDING = f"UPDATE attachment SET state = {int(State.DETACHING)} WHERE network = ? AND container_id = ? AND interface = ?"
_DONE = (
    f"UPDATE attachment SET state = {int(State.ATTACHED)}, result = ?"
    " WHERE network = ? AND container_id = ? AND interface = ? AND time = ?"
)
_ANSWERED = "UPDATE attachment SET answered = 1 WHERE network = ? AND container_id = ? AND interface = ? AND time = ?"
_REWIRE = (
    "UPDATE attachment SET wirings = ? WHERE network = ? AND container_id = ? AND interface = ? AND time = ?"
    f" AND state = {int(State.ATTACHED)}"
)
_WIRINGS = 8  # their place in a row
_META = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"

log = structlog.get_logger()

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Change:
    """Statements that are carried out together or not at all."""

    statements: tuple[tuple[str, Row], ...]


class Journal:
    """Use from one event loop, but for `write`. `records` are all attachments by key; `found_broken` tells that a file had to be
    moved aside."""

    def __init__(self, path: Path, database: sqlite3.Connection, found_broken: bool) -> None:
        """Use `open_journal`."""
        self._path = path
        self._database = database
        self.found_broken = found_broken
        self._meta: dict[str, str] = dict(database.execute("SELECT key, value FROM meta"))
        self._records = {record.key: record for record in map(_of_row, database.execute(f"SELECT {_COLUMNS} FROM attachment"))}
        self._unsure: set[Key] = set()  # a commit failed, or is another thread's: the disk may have it, or not
        self._writing = threading.Lock()
        self._synced = True  # what a commit does now
        self._group: GroupCommit[_Change, None] = GroupCommit(self._apply, "journal")

    @property
    def records(self) -> Mapping[Key, Record]:
        """Every attachment, as it is on the disk."""
        return MappingProxyType(self._records)

    @property
    def boot_id(self) -> str:
        """The boot id that was noted last; "" in a new journal."""
        return self.meta("boot_id")

    def meta(self, key: str) -> str:
        """A noted value, "" when there is none."""
        return self._meta.get(key, "")

    def may_hold(self, key: Key) -> bool:
        """Whether the disk has a record of it, or may have one."""
        return key in self._records or key in self._unsure

    def may_be(self, key: Key, state: State) -> bool:
        """Whether the disk has it in that state, or may have it so."""
        record = self._records.get(key)
        return key in self._unsure or (record is not None and record.state is state)

    def put(self, *records: Record, meta: Mapping[str, str] | None = None) -> Step[None]:
        """Writes these records in one commit. Raises Internal(CNI_IO_FAILURE) when the disk refuses; then `records` are as before,
        and the disk too as far as one can know."""
        statements = [(_PUT, _to_row(record)) for record in records] + [(_META, pair) for pair in (meta or {}).items()]

        def remember() -> None:
            self._records.update((record.key, record) for record in records)
            self._meta.update(meta or {})

        return self._durable(statements, [record.key for record in records], remember)

    def expect(self, record: Record) -> None:
        """Before another thread may `write` this intent: from now on the disk may have it, whatever becomes of that thread."""
        self._records[record.key] = record
        self._unsure.add(record.key)

    def write(self, record: Record) -> None:
        """From any thread: the whole of an intent (ATTACHING); of one that is done (ATTACHED) its state and its result. It survives
        this process at once, the machine's end with the next change. Raises Internal(CNI_IO_FAILURE)."""
        if record.state is State.ATTACHED:
            statement: tuple[str, Row] = (_DONE, (_json(record.result), *record.key, record.time))
        else:
            statement = (_PUT, _to_row(record))
        failpoints.at("journal.before-commit")
        self._commit([statement], synced=False)
        failpoints.at("journal.after-commit")

    def wrote(self, record: Record) -> None:
        """That thread has written this."""
        self._records[record.key] = record
        self._unsure.discard(record.key)

    def sync(self) -> Step[None]:
        """Makes what was written so far safe from the machine's end. Raises as `put`."""
        return self.put(meta={"synced": ""})

    def end(self, keys: Iterable[Key]) -> Step[None]:
        """Marks these records as ending (DETACHING) in one commit; what is not there any more stays gone. Raises as `put`."""
        ending = tuple(keys)

        def mark() -> None:
            for key in ending:
                if (record := self._records.get(key)) is not None:
                    self._records[key] = replace(record, state=State.DETACHING)

        return self._durable([(_ENDING, key) for key in ending], ending, mark)

    def drop(self, keys: Iterable[Key]) -> Step[None]:
        """Deletes these records in one commit; missing ones are no error."""
        gone = tuple(keys)

        def forget() -> None:
            for key in gone:
                self._records.pop(key, None)

        return self._durable([(_DROP, key) for key in gone], gone, forget)

    def rewire(self, *records: Record) -> Step[None]:
        """Writes the wirings of these records, each only where it is still the same attachment and attached. Raises
        Internal(CNI_IO_FAILURE)."""
        statements = [(_REWIRE, (_to_row(record)[_WIRINGS], *record.key, record.time)) for record in records]

        def remember() -> None:
            for record in records:
                current = self._records.get(record.key)
                if current is not None and current.time == record.time and current.state is State.ATTACHED:
                    self._records[record.key] = replace(current, wirings=record.wirings)

        return self._durable(statements, (), remember)

    def note_answered(self, key: Key) -> None:
        """The ADD's answer went out. Written with the next commit, nobody waits for it."""
        record = self._records.get(key)
        if record is not None:
            self._records[key] = replace(record, answered=True)
            self._group.defer(_Change(((_ANSWERED, (*key, record.time)),)))

    async def close(self) -> None:
        """Writes what waits and closes the file."""
        await self._group.close()
        self._database.close()

    def _durable(self, statements: Sequence[tuple[str, Row]], keys: Sequence[Key], remember: Callable[[], None]) -> Step[None]:
        """One commit, and then the same in memory."""

        def settle(outcome: BaseException | None) -> None:
            if outcome is None:
                self._unsure.difference_update(keys)
                remember()
            else:
                self._unsure.update(keys)

        return self._group.submit(_Change(tuple(statements)), settle)

    def _apply(self, batch: Sequence[_Change]) -> Sequence[BaseException | None]:
        """In the group's thread: all changes of a batch in one transaction; if the disk refuses that, each alone."""
        failpoints.at("journal.before-commit")
        try:
            self._commit([statement for change in batch for statement in change.statements], synced=True)
        except Internal as error:
            return [error] if len(batch) == 1 else [self._alone(change) for change in batch]
        failpoints.at("journal.after-commit")
        return [None] * len(batch)

    def _alone(self, change: _Change) -> BaseException | None:
        try:
            self._commit(change.statements, synced=True)
        except Internal as error:
            return error
        return None

    def _commit(self, statements: Sequence[tuple[str, Row]], synced: bool) -> None:
        execute = self._database.execute
        with self._writing:
            try:
                if synced is not self._synced:
                    execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
                    self._synced = synced
                if len(statements) == 1:
                    execute(*statements[0])  # a transaction by itself
                    return
                execute("BEGIN IMMEDIATE")
                for statement, row in statements:
                    execute(statement, row)
                execute("COMMIT")
            except sqlite3.Error as error:
                if self._database.in_transaction:
                    execute("ROLLBACK")
                text = f"the journal {self._path} cannot be written: {error}"
                raise Internal("CNI_IO_FAILURE", text, file=str(self._path)) from error


def open_journal(path: Path) -> Journal:
    """Opens or makes the journal. Raises Unavailable(STORE_UNAVAILABLE): another process has it, or it is of a newer release."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size == 0:
        log.error("the journal is empty; taken as absent", file=str(path))
    try:
        return Journal(path, _connect(path), False)
    except sqlite3.OperationalError as error:
        raise Unavailable("STORE_UNAVAILABLE", f"the journal {path} cannot be opened: {error}", file=str(path)) from error
    except (sqlite3.DatabaseError, ValueError, KeyError, TypeError) as error:
        aside = _move_aside(path)
        log.error("the journal is broken; moved aside and taken as absent", file=str(path), moved_to=str(aside), error=str(error))
        return Journal(path, _connect(path), True)


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        problems = database.execute("PRAGMA quick_check").fetchone()
        if problems[0] != "ok":
            raise sqlite3.DatabaseError(problems[0])
        database.executescript(_TABLES)
        row = database.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        if row is not None and int(row[0]) > SCHEMA:
            text = f"the journal {path} is of a newer release (schema {row[0]}); run that one"
            raise Unavailable("STORE_UNAVAILABLE", text, file=str(path))
        if row != (str(SCHEMA),):  # opening one that is there writes nothing: a full disk must not keep the agent from serving
            database.execute(_META, ("schema", str(SCHEMA)))
    except BaseException:
        database.close()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return database


def _move_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.replace(aside.with_name(aside.name + suffix))
    return aside


def _to_row(record: Record) -> Row:
    return (
        *record.key,
        int(record.state),
        record.netns,
        str(record.cookie),
        record.time,
        record.port_set,
        _json([{"type": int(wired.type), "interface": wired.interface, "facts": dict(wired.facts)} for wired in record.wirings]),
        _json([asdict(delegation) for delegation in record.delegations]),
        _json(record.result),
        record.args,
        record.path,
        record.attempts,
        int(record.answered),
    )


def _of_row(row: Sequence[Any]) -> Record:
    *key, state, netns, cookie, time, port_set, wirings, delegations, result, args, path, attempts, answered = row
    return Record(
        Key(*key),
        State(state),
        netns,
        int(cookie),
        time,
        port_set,
        tuple(Wiring(NetworkType(entry["type"]), entry["interface"], entry["facts"]) for entry in json.loads(wirings)),
        tuple(Delegation(**entry) for entry in json.loads(delegations)),
        json.loads(result),
        args,
        path,
        attempts,
        bool(answered),
    )


_json = json.JSONEncoder(separators=(",", ":")).encode
