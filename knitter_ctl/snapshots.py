"""Snapshot files: fetched from a manager, sent to one, read without one; and a whole state moved from one store to another."""

import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any

import grpc

from knitter.v1 import manager_pb2 as pb
from knitter_common.errors import Internal, Invalid, KnitterError, Unavailable, from_rpc_error
from knitter_common.managers import PASSING, Backoff
from knitter_common.snapshot import Header, Reader, Trailer
from knitter_ctl.session import Session

_PIECE = 512 * 1024  # bytes in one message


async def save(session: Session, path: Path) -> tuple[Header, Trailer]:
    """Writes a snapshot; the file is there whole, or not at all. Raises KnitterError."""
    with _usable(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                made = await fetch(session, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)
        return made


async def fetch(session: Session, file: IO[bytes]) -> tuple[Header, Trailer]:
    """A manager's snapshot into an empty file, judged on the way; begun again at another manager if need be."""
    backoff, begin = Backoff(most=1.0), time.monotonic()
    while True:
        asked = session.managers.current
        file.seek(0)
        file.truncate()
        reader = Reader()
        try:
            async for response in session.managers.stub(asked).SaveSnapshot(pb.SaveSnapshotRequest()):
                file.write(response.data)
                for _ in reader.feed(response.data):
                    pass
            return reader.end()
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure)
            if error.reason not in PASSING or time.monotonic() - begin > session.timeout:
                raise error from failure
            session.managers.learn(error, asked)
        await backoff.wait()


async def restore(session: Session, path: Path, only_if_empty: bool) -> pb.RestoreSnapshotResponse:
    """Sends a file to the manager that writes. Raises KnitterError."""
    with _usable(path):
        inspect(path)
        with path.open("rb") as file:
            return await send(session, file, only_if_empty=only_if_empty, complete=False)


async def send(session: Session, file: IO[bytes], *, only_if_empty: bool, complete: bool) -> pb.RestoreSnapshotResponse:
    """The file to the manager that writes, found within the session's time; how long the restore itself takes is not bounded."""
    backoff, begin = Backoff(most=1.0), time.monotonic()
    while True:
        try:
            asked = await _writer(session)
            try:
                call = session.managers.stub(asked).RestoreSnapshot(_pieces(file, only_if_empty, complete))
                return await call
            except grpc.aio.AioRpcError as failure:
                raise from_rpc_error(failure) from failure
        except KnitterError as error:
            if error.reason not in ("NOT_WRITER", "NO_WRITER") or time.monotonic() - begin > session.timeout:
                raise
        await backoff.wait()


async def _pieces(file: IO[bytes], only_if_empty: bool, complete: bool) -> AsyncIterator[pb.RestoreSnapshotRequest]:
    file.seek(0)
    yield pb.RestoreSnapshotRequest(only_if_empty=only_if_empty, complete=complete)
    while piece := file.read(_PIECE):
        yield pb.RestoreSnapshotRequest(data=piece)


async def _writer(session: Session) -> str:
    status = await session.call("GetStatus")
    if not status.writer:
        raise Unavailable("NO_WRITER", "no manager writes at the moment")
    return str(session.managers.current if status.writing else status.writer)


def inspect(path: Path) -> tuple[Header, Trailer, dict[str, int]]:
    """What a file says of itself, and how many records of each kind it has; the whole file is judged. Raises Invalid."""
    reader, kinds = Reader(), dict[str, int]()
    with _usable(path), path.open("rb") as file:
        while piece := file.read(_PIECE):
            for entries in reader.feed(piece):
                for key, _ in entries:
                    kind = key.partition("/")[0]
                    kinds[kind] = kinds.get(kind, 0) + 1
    return *reader.end(), kinds


async def migrate(source: Session, target: Session) -> tuple[Trailer, pb.RestoreSnapshotResponse]:
    """The state of one manager's store to another one's, which is empty. Afterwards the old one takes no writes.

    When it fails, the old one is as it was, unless the new one has the state already. Raises KnitterError.
    """
    with tempfile.TemporaryFile(prefix="knitter-migrate-") as file:
        before = (await source.call("GetStatus")).frozen
        await source.call("SetFrozen", frozen=True)
        done: Any = None
        try:
            _, sent = await fetch(source, file)
            done = await send(target, file, only_if_empty=True, complete=True)
            file.seek(0)
            _, arrived = await fetch(target, file)
            if (arrived.records, arrived.content) != (sent.records, sent.content):
                said = f"the new store has {arrived.records} records ({arrived.content}), not {sent.records} ({sent.content})"
                raise Internal("INTERNAL", f"{said}; both managers are as they are: stop the new one, and unfreeze the old one")
            return sent, done
        except BaseException:
            if done is None and not before:
                with contextlib.suppress(KnitterError):  # the first error is the one to tell; `store unfreeze` is the way out
                    await source.call("SetFrozen", frozen=False)
            raise


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Invalid("FIELD_INVALID", f"{path}: {error.strerror or error}", field="FILE") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
