"""The writer thread: gathers the commits that wait, judges each alone, and makes all that pass durable with one fsync.

For one group: one query tells the revisions of all keys that its conditions name, the judging is plain Python, the rows are written
in bulk (rows.py says why), and one COMMIT ends it. Nothing is answered before that. When the disk refuses, or something fails that
no code expects, the whole group gets StoreDown and the next group begins anew, on a new connection, from what the file then says.

A file that somebody moves away, deletes or puts another one in the place of would take commits that nobody ever reads again: before
a group and after its COMMIT the file must be the one that was opened.
"""

import contextlib
import queue
import secrets
import sqlite3
import threading
import time
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from knitter_common import failpoints
from knitter_common.errors import KnitterError
from knitter_common.settings import Seconds, setting
from knitter_manager.store.protocol import Commit, Condition, NotWriter, StoreDown
from knitter_manager.store.sqlite import file
from knitter_manager.store.sqlite.group import Group

log = structlog.get_logger()

_MOST = 1024  # commits in one group: bounds the time until the first of them is answered
_SWEEP = 60.0  # seconds between two looks for changes that are too old
_SLICE = 20_000  # changes dropped by one transaction, at most

Outcome = int | Exception

# what Python or SQLite raise for keys that are no text and values that are no bytes
_MALFORMED = (
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.IntegrityError,
    AttributeError,
    OverflowError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Retention:
    """How long the change log is kept. A change goes when it is older than `age` and not among the `least` newest, or when it is
    not among the `most` newest."""

    age: Seconds = setting("changes younger than this are kept", Seconds(3600.0), low=0)
    least: int = setting("this many of the newest changes are kept, however old", 10_000, low=0)
    most: int = setting("more changes than this are never kept, however young: it bounds the file", 2_000_000, low=1)


class Pending:
    """A commit that waits for its answer."""

    __slots__ = ("conditions", "deletes", "future", "puts")

    def __init__(
        self, conditions: Sequence[Condition], puts: dict[str, bytes], deletes: tuple[str, ...], future: "Future[int]"
    ) -> None:
        self.conditions, self.puts, self.deletes, self.future = conditions, puts, deletes, future


class _Moved(OSError):
    """The file is not at its place any more."""


@dataclass(frozen=True, slots=True)
class _Order:
    """Something else to do between two groups: become the writer, compact, end."""

    run: Callable[[], int]
    future: "Future[int]"


Deliver = Callable[[Sequence[tuple["Future[int]", Outcome]], Sequence[Commit]], None]


class Writer:
    """The thread and its connection. Methods are called on the loop; `deliver` is called there, once per group."""

    def __init__(self, path: Path, retention: Retention, loop: AbstractEventLoop, deliver: Deliver) -> None:
        self._path, self._retention, self._loop, self._deliver = path, retention, loop, deliver
        self._queue: queue.SimpleQueue[Pending | _Order | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._identity = file.identity(path)
        self._fence = ""
        self._head = self._floor = 0
        self._swept = 0.0
        self._ending = False
        self._thread = threading.Thread(target=self._live, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, pending: Pending) -> None:
        """Queues a commit; its future gets a revision or an exception."""
        self._queue.put(pending)

    def take_over(self) -> "Future[int]":
        """Makes this process the one that may write, under a new fence, and tells the head."""
        return self._order(self._take_over)

    def compact(self, revision: int) -> "Future[int]":
        """Drops the changes up to that revision; tells the new floor."""
        return self._order(lambda: self._drop_to(min(revision, self._head)))

    def end(self) -> None:
        """Finishes the group that is under way, fails the rest with StoreDown, and ends. Blocks for that long."""
        self._ending = True
        self._queue.put(None)
        self._thread.join()

    def _order(self, run: Callable[[], int]) -> "Future[int]":
        order = _Order(run, self._loop.create_future())
        self._queue.put(order)
        return order.future

    # -- on the thread -----------------------------------------------------------------------------------------------

    def _live(self) -> None:
        while not self._ending:
            self._turn()
        self._close()
        self._refuse_rest()

    def _turn(self) -> None:
        item = self._queue.get()
        commits: list[Pending] = []
        while item is not None and isinstance(item, Pending):
            commits.append(item)
            if len(commits) >= _MOST:
                break
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
        if commits:
            self._run_group(commits)
        if isinstance(item, _Order):
            self._answer([(item.future, self._guarded(item.run))], ())

    def _refuse_rest(self) -> None:
        """Answers what is queued still."""
        while not self._queue.empty():
            item = self._queue.get()
            if item is not None:
                self._answer([(item.future, StoreDown(f"the store {self._path} is closed"))], ())

    def _answer(self, outcomes: Sequence[tuple["Future[int]", Outcome]], commits: Sequence[Commit]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._deliver, outcomes, commits)

    def _guarded(self, run: Callable[[], int]) -> Outcome:
        try:
            return run()
        except (NotWriter, ValueError) as error:
            return error
        except Exception as error:  # noqa: BLE001 - a defect too: logged, and nobody may wait for an answer that never comes
            return self._failed(error)

    def _run_group(self, commits: Sequence[Pending]) -> None:
        try:
            results, done = self._transact(commits)
        except _MALFORMED as error:
            self._rollback()
            if len(commits) > 1:  # one of them is malformed: each alone, so that it fails alone
                for commit in commits:
                    self._run_group([commit])
                return
            results, done = [ValueError(f"not a commit: {error}")], []
        except NotWriter as error:
            self._rollback()
            results, done = [error] * len(commits), []
        except Exception as error:  # noqa: BLE001 - as in _guarded
            down = self._failed(error)
            results, done = [down] * len(commits), []
        self._answer([(commit.future, result) for commit, result in zip(commits, results, strict=True)], done)

    def _transact(self, commits: Sequence[Pending]) -> tuple[list[Outcome], list[Commit]]:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        self._check_fence(connection)
        group = Group(connection, self._head)
        results = group.judge(commits)
        if group.commits:
            failpoints.at("store.before-commit")
            group.write(int(time.time()))
            self._sweep(connection)
            connection.execute("COMMIT")
            self._head = group.commits[-1].revision
            self._check_place()
            failpoints.at("store.after-commit")
        else:
            connection.execute("ROLLBACK")
        return results, group.commits

    def _check_fence(self, connection: sqlite3.Connection) -> None:
        if file.meta(connection, "fence") != self._fence:
            raise NotWriter("")

    def _take_over(self) -> int:
        connection = self._open()
        self._fence = secrets.token_hex(8)
        connection.execute("BEGIN IMMEDIATE")
        file.set_meta(connection, "fence", self._fence)
        connection.execute("COMMIT")
        self._read_state(connection)
        return self._head

    def _drop_to(self, floor: int) -> int:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        self._check_fence(connection)
        self._drop(connection, floor)
        connection.execute("COMMIT")
        return self._floor

    def _drop(self, connection: sqlite3.Connection, floor: int) -> None:
        if floor > self._floor:
            connection.execute("DELETE FROM changes WHERE revision <= ?", (floor,))
            file.set_meta(connection, "floor", floor)
            self._floor = floor

    def _sweep(self, connection: sqlite3.Connection) -> None:
        """Keeps to the retention, a slice at a time."""
        if time.monotonic() - self._swept < _SWEEP:
            return
        keep, now = self._retention, int(time.time())
        query = "SELECT revision FROM changes WHERE at >= ? ORDER BY revision LIMIT 1"
        young = connection.execute(query, (now - keep.age,)).fetchone()
        too_old = min(self._head if young is None else young[0] - 1, self._head - keep.least)
        target = max(too_old, self._head - keep.most)
        step = min(target, self._floor + _SLICE)
        self._drop(connection, step)
        if step >= target:
            self._swept = time.monotonic()

    def _check_place(self) -> None:
        there = file.identity(self._path)
        if there != self._identity:
            what = "another file is in its place" if any(there) else "it is not there any more"
            raise _Moved(f"{what}; put the file back, or start this manager anew")

    def _open(self) -> sqlite3.Connection:
        self._check_place()
        if self._connection is None:
            connection = file.connect(self._path)
            connection.execute("PRAGMA journal_size_limit = 67108864")
            connection.execute("PRAGMA cache_size = -32768")
            self._read_state(connection)
            self._connection = connection
        return self._connection

    def _read_state(self, connection: sqlite3.Connection) -> None:
        self._head, self._floor = file.head(connection), int(file.meta(connection, "floor"))

    def _rollback(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _failed(self, error: Exception) -> StoreDown:
        """After a disk's refusal, or a defect, only the file knows what was written: the next group asks it on a new connection."""
        defect = not isinstance(error, (sqlite3.Error, OSError, KnitterError))
        log.error("the store failed", file=str(self._path), error=str(error), exc_info=error if defect else None)
        if not isinstance(error, _Moved):  # closed, SQLite would delete the log that lies beside another file
            self._close()
        down = StoreDown(f"store {self._path}: {f'a defect, {error!r}' if defect else error}")
        down.__cause__ = error
        return down

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
