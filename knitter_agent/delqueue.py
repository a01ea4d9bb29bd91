"""The DELs that the plugin kept on disk while the agent was away: replayed before the agent serves, and watched while it runs.

One file each in `<state>/delq`, named `<time>-<request id>.del`: the octets "KDQ1", the CRC-32 of the rest in network order, and a
knitter.v1.QueuedDetach. An entry goes once its undo is durable in the journal. What cannot be read is renamed to `….bad` and told;
the newest hundred of those stay.

A replayed DEL skips an attachment that is newer than itself (a container id or a path used again), and what another boot queued is
for recovery to end. No namespace is entered by path alone: a delegate gets it only if its cookie is the recorded one.
"""

import asyncio
import zlib
from collections.abc import Sequence
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from knitter.v1.agent_pb2 import QueuedDetach
from knitter_agent.attachment import Attachments
from knitter_agent.cni import parse_call
from knitter_common import failpoints
from knitter_common.errors import KnitterError
from knitter_common.inotify import IGNORED, MOVED_TO, Event, Inotify

MAGIC = b"KDQ1"
SUFFIX = ".del"
ASIDE = ".bad"
UNWATCHED = 5.0  # seconds between two looks where the queue cannot be watched
MOST_ASIDE = 100  # broken entries that are kept to be looked at

_UNDONE = ("CNI_IO_FAILURE", "INTERNAL")  # the journal does not take it, or a defect of ours

log = structlog.get_logger()


class BrokenEntry(Exception):
    """What is in the file is no entry."""


class DelQueue:
    """`boot_id` is this boot's."""

    def __init__(self, directory: Path, attachments: Attachments, boot_id: str) -> None:
        self._directory = directory
        self._attachments = attachments
        self._boot_id = boot_id
        self._inotify: Inotify | None = None

    async def start(self) -> None:
        """Begins to watch, then replays what is there. Returns when every entry's undo is durable."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._inotify = Inotify()
        except OSError as error:  # fs.inotify.max_user_instances, which all of root's daemons share
            log.error("the DEL queue cannot be watched; it is read every few seconds", seconds=UNWATCHED, error=str(error))
        else:
            self._watch()
        await self.replay()
        self._bound_aside()

    async def follow(self) -> None:
        """Replays what comes, until cancelled."""
        while True:
            events = await self._news()
            try:
                if any(event.mask & IGNORED for event in events):
                    log.warning("the directory of the DEL queue was removed; it is made again", directory=str(self._directory))
                    self._watch()
                await self.replay()
            except Exception as error:
                log.error("the DEL queue was not replayed; its entries stay for the next time", exc_info=error)

    async def _news(self) -> Sequence[Event]:
        """Waits until something may have come."""
        if self._inotify is not None:
            return await self._inotify.read()
        await asyncio.sleep(UNWATCHED)
        return ()

    def _watch(self) -> None:
        assert self._inotify is not None
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._inotify.watch(self._directory, MOVED_TO)

    def close(self) -> None:
        """Ends the watch."""
        if self._inotify is not None:
            self._inotify.close()

    async def replay(self) -> int:
        """Carries out every entry there is, the oldest first; returns how many there were."""
        entries = sorted(self._directory.glob(f"*{SUFFIX}"), key=_age)
        if entries:
            log.info("replaying DELs that the plugin kept", entries=len(entries))
        broken = False
        for entry in entries:
            try:
                await failpoints.reach("queue.before-entry")
                await self._carry_out(await asyncio.to_thread(read_entry, entry))
                await failpoints.reach("queue.after-entry")
            except BrokenEntry as error:
                log.error("an entry of the DEL queue is broken; set aside", file=str(entry), error=str(error))
                entry.replace(entry.with_suffix(ASIDE))
                broken = True
                continue
            except OSError as error:
                log.error("an entry of the DEL queue cannot be read; it stays", file=str(entry), error=str(error))
                continue
            except KnitterError as error:
                if error.reason in _UNDONE:
                    log.error("a kept DEL was not carried out; it stays", file=entry.name, reason=error.reason, error=error.message)
                    continue
                log.warning("a kept DEL was carried out, with an error", file=entry.name, reason=error.reason, error=error.message)
            except Exception as error:
                log.error("a kept DEL failed unexpectedly; it stays", file=entry.name, exc_info=error)  # and stops no other
                continue
            entry.unlink(missing_ok=True)
        if broken:
            self._bound_aside()
        return len(entries)

    def _bound_aside(self) -> None:
        """Of the broken entries the newest stay, to be looked at; how many there are is told."""
        aside = sorted(self._directory.glob(f"*{ASIDE}"), key=_age)
        for old in aside[:-MOST_ASIDE]:
            old.unlink(missing_ok=True)
        if aside:
            kept, gone = min(len(aside), MOST_ASIDE), max(len(aside) - MOST_ASIDE, 0)
            log.warning("broken entries of the DEL queue are set aside", directory=str(self._directory), kept=kept, deleted=gone)

    async def _carry_out(self, queued: QueuedDetach) -> None:
        invocation = queued.invocation
        with structlog.contextvars.bound_contextvars(request_id=invocation.request_id):
            call = parse_call("DEL", dict(invocation.environment), invocation.stdin, invocation.request_id)
            if queued.boot_id != self._boot_id:
                log.info("a kept DEL of another boot has nothing to do", container_id=call.container_id)
                return
            await self._attachments.delete_late(call, queued.time_ns)


def read_entry(path: Path) -> QueuedDetach:
    """Reads a file of the queue. Raises BrokenEntry."""
    data = path.read_bytes()
    if data[:4] != MAGIC:
        raise BrokenEntry("it does not begin with KDQ1")
    if len(data) < 8 or int.from_bytes(data[4:8], "big") != zlib.crc32(data[8:]):
        raise BrokenEntry("its checksum is wrong")
    try:
        return QueuedDetach.FromString(data[8:])
    except DecodeError as error:
        raise BrokenEntry(f"it is no QueuedDetach: {error}") from error


def _age(path: Path) -> tuple[int, str]:
    time, _, rest = path.name.partition("-")
    return (int(time) if time.isdigit() else 0, rest)
