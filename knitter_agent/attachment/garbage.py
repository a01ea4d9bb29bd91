"""GC: what the runtime does not list any more is torn down. The verb is authoritative and immediate.

CNI specification 1.1.0, "GC": `cni.dev/valid-attachments` holds the container id and interface name of everything valid of this
network. Further interfaces live and die with their primary: they are part of its record. Reservations of the manager are never
touched.
"""

import asyncio

import structlog

from knitter_agent.attachment.delegates import Surroundings
from knitter_agent.attachment.remove import Remover
from knitter_agent.attachment.tools import Tools
from knitter_agent.attachment.undo import Undoer
from knitter_agent.cni import Call
from knitter_agent.record import Delegation, Key, State

log = structlog.get_logger()


class Collector:
    """Carries GC out."""

    def __init__(self, tools: Tools, undoer: Undoer, remover: Remover) -> None:
        self._tools = tools
        self._undoer = undoer
        self._remover = remover

    async def collect(self, call: Call) -> None:
        """Returns when the kernel is clean of what was not listed. Raises KnitterError with a delegate's error."""
        valid = set(call.conf.valid or ())
        dead = [
            record
            for key, record in self._tools.journal.records.items()
            if key.network == call.conf.name
            and (key.container_id, key.interface) not in valid
            and (record.state is not State.ATTACHING or key in self._undoer.pending)
        ]
        if dead:
            log.info("garbage: the runtime does not list them", attachments=[str(record.key) for record in dead])
        undos = [undo for undo in await asyncio.gather(*map(self._remover.end, dead)) if undo is not None]
        await asyncio.gather(*(asyncio.shield(undo.told) for undo in undos))
        await self._delegates(call)
        for undo in undos:
            if undo.record.delegations and (error := await asyncio.shield(undo.told)) is not None:
                raise error

    async def _delegates(self, call: Call) -> None:
        chain = tuple(Delegation(conf, call.interface) for conf in call.conf.delegates)
        if chain:
            around = Surroundings(Key(call.conf.name, "", ""), "", "", call.path)
            await self._tools.delegates.collect_garbage(chain, around, lambda name: self._valid(call, name))

    def _valid(self, call: Call, name: str) -> list[dict[str, str]]:
        """What is valid of a delegate's network: what the journal holds of it, also by other networks of ours that share the
        delegate, and what the runtime lists, which knows what a journal that was lost does not."""
        valid = set(call.conf.valid or ())
        for key, record in self._tools.journal.records.items():
            names = {delegation.conf["name"] for delegation in record.delegations}
            if record.state is not State.DETACHING and (key.network == call.conf.name or name in names):
                valid.add((key.container_id, key.interface))
        return [{"containerID": container_id, "ifname": interface} for container_id, interface in sorted(valid)]
