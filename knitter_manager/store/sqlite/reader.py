"""Reads of the store's file, on threads and connections of their own: in WAL mode they never wait for a commit."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from knitter_manager.store.protocol import Commit, Compacted, Record, Snapshot, Span, StoreDown
from knitter_manager.store.sqlite import file, rows

BATCH = 10_000  # records in one batch of a load
_THREADS = 4

T = TypeVar("T")


class Reader:
    """Connections that only read, at most one per thread and one per load that is under way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store-read")
        self._free: list[sqlite3.Connection] = []
        self._loads: set[sqlite3.Connection] = set()
        self._closed = False

    async def get(self, keys: Sequence[str]) -> dict[str, Record]:
        """The records at these keys."""
        return await self._run(lambda connection: {row[0]: Record(*row) for row in rows.get(connection, keys)})

    async def changes(self, after: int, most: int) -> list[Commit]:
        """At most `most` commits after a revision. Raises Compacted."""

        def read(connection: sqlite3.Connection) -> list[Commit]:
            with _transaction(connection):
                floor = int(file.meta(connection, "floor"))
                if after < floor:
                    raise Compacted(floor)
                query = "SELECT revision, body FROM changes WHERE revision > ? ORDER BY revision LIMIT ?"
                return [rows.unpack(*row) for row in connection.execute(query, (after, most))]

        return await self._run(read)

    async def load(self, spans: Sequence[Span]) -> Snapshot:
        """The state, from one read transaction that ends with its batches."""
        connection = await self._call(partial(file.connect, self._path, query_only=True))
        self._loads.add(connection)

        def begin() -> tuple[str, int]:
            connection.execute("BEGIN")
            counter = connection.execute("SELECT value FROM records WHERE key = 'meta/epoch'").fetchone()
            epoch = f"{file.meta(connection, 'id')}.{counter[0].decode() if counter else 0}"
            return epoch, file.head(connection)

        try:
            epoch, head = await self._call(begin)
        except BaseException:
            self._end_load(connection)
            raise
        return Snapshot(epoch, head, self._batches(connection, spans))

    async def _batches(self, connection: sqlite3.Connection, spans: Sequence[Span]) -> AsyncIterator[Sequence[Record]]:
        make = partial(tuple.__new__, Record)
        try:
            for span in spans:
                cursor = await self._call(partial(rows.between, connection, span))
                while batch := await self._call(lambda: list(map(make, cursor.fetchmany(BATCH)))):  # noqa: B023
                    yield batch
        finally:
            self._end_load(connection)

    def _end_load(self, connection: sqlite3.Connection) -> None:
        self._loads.discard(connection)
        connection.close()

    async def _run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await self._call(partial(self._with_connection, read))

    def _with_connection(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = self._free.pop()
        except IndexError:
            connection = file.connect(self._path, query_only=True)
        try:
            found = read(connection)
        except sqlite3.Error:
            connection.close()  # the next read asks the file anew
            raise
        except BaseException:
            self._free.append(connection)
            raise
        self._free.append(connection)
        return found

    async def _call(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreDown(f"the store {self._path} is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except sqlite3.Error as error:
            raise StoreDown(f"store {self._path}: {error}") from error

    async def close(self) -> None:
        """Waits for the reads under way and closes every connection; a load that is not finished ends with StoreDown."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        for connection in (*self._free, *self._loads):
            connection.close()
        self._free.clear()
        self._loads.clear()


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
