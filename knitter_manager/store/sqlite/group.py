"""One group of commits: each judged alone, in order, against the file and what the ones before it in the group did."""

import sqlite3
from collections.abc import Sequence
from typing import Protocol

from knitter_manager.store.protocol import AtRevision, Commit, Condition, Conflict, PrefixEmpty, Record
from knitter_manager.store.sqlite import rows


class Asked(Protocol):
    """What a commit asks."""

    @property
    def conditions(self) -> Sequence[Condition]:
        """What must hold."""

    @property
    def puts(self) -> dict[str, bytes]:
        """What to write."""

    @property
    def deletes(self) -> tuple[str, ...]:
        """What to delete."""


class Group:
    """A group inside an open transaction. `commits` are those that passed and changed something."""

    def __init__(self, connection: sqlite3.Connection, head: int) -> None:
        self._connection = connection
        self._head = head
        self._known: dict[str, int] = {}
        self._writes: dict[str, tuple[bytes, int] | None] = {}
        self.commits: list[Commit] = []

    def judge(self, asked: Sequence[Asked]) -> list[int | Exception]:
        """The revision or the Conflict of each."""
        names = {condition.key for one in asked for condition in one.conditions if type(condition) is AtRevision}
        for one in asked:
            names.update(one.deletes)
        self._known = rows.revisions(self._connection, names)
        return [self._judge(one) for one in asked]

    def write(self, at: int) -> None:
        """Writes what passed, and the change log. `at` is the wall clock in seconds."""
        self._flush()
        rows.log(self._connection, self.commits, at)

    def _judge(self, asked: Asked) -> int | Exception:
        known = self._known
        for condition in asked.conditions:
            if type(condition) is AtRevision:
                if known.get(condition.key, 0) != condition.revision:
                    return Conflict(condition.key, self._current(condition.key), self._head)
            elif isinstance(condition, PrefixEmpty) and (found := self._first(condition.prefix)) is not None:
                return Conflict(found.key, found, self._head)
        deletes = tuple(key for key in asked.deletes if known.get(key)) if asked.deletes else ()
        if not asked.puts and not deletes:
            return self._head
        self._head = revision = self._head + 1
        for key in deletes:
            known[key] = 0
            self._writes[key] = None
        for key, value in asked.puts.items():
            known[key] = revision
            self._writes[key] = (value, revision)
        self.commits.append(Commit(revision, asked.puts, deletes))
        return revision

    def _current(self, key: str) -> Record | None:
        if key in self._writes:
            write = self._writes[key]
            return None if write is None else Record(key, *write)
        return next((Record(*row) for row in rows.get(self._connection, [key])), None)

    def _first(self, prefix: str) -> Record | None:
        """The first record below a prefix. What the group has to write is written first, so that the file can tell."""
        self._flush()
        row = rows.first_after(self._connection, prefix)
        return Record(*row) if row is not None and row[0].startswith(prefix) else None

    def _flush(self) -> None:
        rows.write(self._connection, self._writes)
        self._writes.clear()
