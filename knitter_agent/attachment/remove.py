"""DEL: by the record that ADD made. The undo is made durable, answered, and carried out right after.

CNI specification 1.1.0, "DEL": "Plugins should generally complete a DEL action without error even if some resources are missing."
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import structlog

from knitter_agent.attachment.delegates import Surroundings
from knitter_agent.attachment.tools import Tools
from knitter_agent.attachment.undo import Undo, Undoer
from knitter_agent.cni import Call
from knitter_agent.record import Delegation, Key, Record, State
from knitter_common import failpoints
from knitter_common.errors import Internal, KnitterError
from knitter_common.managers import Backoff

_PATIENCE = 1.0  # seconds in which a disk that refused a mark may take it after all

log = structlog.get_logger()


class Remover:
    """Carries DELs out, and whatever else ends attachments."""

    def __init__(self, tools: Tools, undoer: Undoer) -> None:
        self._tools = tools
        self._undoer = undoer

    async def delete(self, call: Call) -> None:
        """Returns when the undo is durable. Raises KnitterError only with a delegate's own error."""
        key = Key(call.conf.name, call.container_id, call.interface)
        async with self._tools.locks.hold(f"id/{call.container_id}"):
            record = self._tools.journal.records.get(key)
            if record is None:
                await self._by_configuration(call, key)
                return
            record = _completed(record, call)
            (undo,) = await self.detach([record])
        if record.delegations and (error := await asyncio.shield(undo.told)) is not None:
            raise error

    async def delete_late(self, call: Call, asked: int) -> None:
        """A DEL that was asked at `asked` (nanoseconds since 1970) and comes only now: a newer attachment stays untouched. Raises
        Internal(CNI_IO_FAILURE) while the journal does not take it."""
        key = Key(call.conf.name, call.container_id, call.interface)
        async with self._tools.locks.hold(f"id/{call.container_id}"):
            record = self._tools.journal.records.get(key)
            if record is not None and record.time > asked:
                log.info("a kept DEL is older than the attachment of that name; skipped", attachment=str(key))
            elif record is not None:
                await self.detach([record])
                if self._tools.journal.may_be(key, State.ATTACHED):
                    raise Internal("CNI_IO_FAILURE", f"the journal does not take the end of {key}")
            else:
                await self._by_configuration(replace(call, netns=""), key)

    async def end(self, seen: Record) -> Undo | None:
        """Ends an attachment, unless it was replaced since it was seen."""
        async with self._tools.locks.hold(f"id/{seen.key.container_id}"):
            record = self._tools.journal.records.get(seen.key)
            if record is None or record.time != seen.time:
                return None
            (undo,) = await self.detach([record])
            return undo

    async def detach(self, records: Sequence[Record]) -> Sequence[Undo]:
        """Ends these attachments: one commit, then the undo is under way, also when the caller is gone. When the disk refuses,
        the undo comes first. Hold the container's lock, or an ADD may be in the middle of making what is undone."""
        return await self._tools.background.finish(self._detach(records))

    async def _detach(self, records: Sequence[Record]) -> Sequence[Undo]:
        ending = [replace(record, state=State.DETACHING) for record in records]
        fresh = [new for new, old in zip(ending, records, strict=True) if old.state is not State.DETACHING]
        try:
            await failpoints.reach("del.before-mark")
            if fresh:
                await self._tools.journal.put(*fresh)
            await failpoints.reach("del.after-mark")
        except KnitterError as error:
            log.error("the journal does not take a DEL; it is carried out before it is answered", error=error.message)
            undos = [self._undoer.submit(record) for record in ending]
            await asyncio.gather(*(asyncio.shield(undo.told) for undo in undos))
            await self._mark_late([record.key for record in ending])
            return undos
        except BaseException:  # a defect must not leave a mark without its undo
            for record in records:
                if self._tools.journal.may_be(record.key, State.DETACHING):
                    self._undoer.submit(await self._undoer.marked(record))
            raise
        return [self._undoer.submit(record) for record in ending]

    async def _mark_late(self, keys: Sequence[Key]) -> None:
        """Until the disk says that they end, or has them no more, but not for ever: a full disk hinders no DEL. What is answered
        before that comes back with a crash, as a row that liveness ends."""
        journal, backoff, until = self._tools.journal, Backoff(first=0.05, most=1.0), time.monotonic() + _PATIENCE
        while left := [key for key in keys if journal.may_hold(key)]:
            try:
                await journal.end(left)
                return
            except KnitterError as error:
                if time.monotonic() > until:
                    log.error("the journal does not take a DEL that is carried out", attachments=len(left), error=error.message)
                    return
                await backoff.wait()

    async def _by_configuration(self, call: Call, key: Key) -> None:
        """Without a record: what today's configuration delegates is deleted, best effort; of ours there is nothing."""
        chain = _configured(call)
        if chain:
            around = Surroundings(key, call.netns, call.arguments, call.path)
            await self._tools.delegates.delete(chain, around, call.conf.prev_result)


def _configured(call: Call) -> tuple[Delegation, ...]:
    return tuple(Delegation(conf, call.interface) for conf in call.conf.delegates)


def _completed(record: Record, call: Call) -> Record:
    """A record that was taken back after the journal was lost knows of no result and no delegates: today's configuration does."""
    if record.state is not State.ATTACHED or record.result is not None:
        return record
    result = call.conf.prev_result
    return replace(record, delegations=_configured(call), result=result, args=call.arguments, path=call.path)
