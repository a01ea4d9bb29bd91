"""What the agent does with its journal before it serves.

- Another boot id than the journal's: nothing of the kernel's state survived. Every attachment is ended (its set is given back, its
  delegates are told), so that addresses come free by the node's own word.
- Otherwise: intents without done, and undos under way, are undone; what is attached stays as it is, untouched.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog

from knitter_agent.attachment.tools import Tools
from knitter_agent.attachment.undo import Undoer
from knitter_agent.record import Record, State
from knitter_common import failpoints

log = structlog.get_logger()

_PATIENCE = 20.0  # seconds until the agent serves although the kernel is not clean yet; ADDs wait for what is in their way


async def recover(tools: Tools, undoer: Undoer, boot_id: str) -> None:
    """Returns when the kernel is clean of everything that is not attached; giving sets back goes on after that."""
    await failpoints.reach("recover.begin")
    journal = tools.journal
    rebooted = journal.boot_id != boot_id
    if rebooted:
        ending = [replace(record, state=State.DETACHING, wirings=(), netns="") for record in journal.records.values()]
        await journal.put(*ending, meta={"boot_id": boot_id})
        if ending:
            log.warning("the node has rebooted; its attachments are ended", attachments=len(ending))
    await failpoints.reach("recover.marked")
    unfinished: Sequence[Record] = [record for record in journal.records.values() if record.state is not State.ATTACHED]
    if not unfinished:
        return
    log.info("undoing what a former agent left unfinished", attachments=len(unfinished))
    told = [undoer.submit(record).told for record in unfinished]
    _, late = await asyncio.wait(told, timeout=_PATIENCE)
    if late:
        log.error("not everything is undone yet; the agent serves nevertheless", attachments=len(late))
