"""At each connect the node tells the manager its journal, and takes in what the manager makes of it.

- Sets that the manager has for this node and the journal does not: the journal is the authority on what is in use, so they are
  given back; unless the journal was lost (new, or moved aside): then each whose namespace still opens is taken back into it.
- Owners whose addresses belong to others by now: the manager says so explicitly, they are detached, and the journal is told again.
- Owners that the manager cannot judge yet, or not at all: they keep running.

The node shows the highest revision it has seen of the manager's epoch: it proves a store that went back in time. Another epoch
may count anew, so revisions seen before are then no proof any more.
"""

import asyncio
from collections.abc import Collection, Sequence

import structlog

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_agent.attachment import Attachments, Tools, cookie_at
from knitter_agent.drivers import settle_defaults
from knitter_agent.manager_client import CHUNK
from knitter_agent.record import Key, Record, State
from knitter_common import convert, failpoints
from knitter_common.managers import Managers
from knitter_common.model import Node, PortSet, SandboxOwner

_OUTDATED = "outdated"  # meta: sets of this revision or a lower one may be of an earlier epoch
_UNDONE = 5.0  # seconds for which the undo of refused sets is waited for
_TOLD = "reconciled"  # meta: this journal has been told to a manager once; it is not a lost one

log = structlog.get_logger()


class Reconciler:
    """Callable: what ManagerClient runs at each connect."""

    def __init__(self, node: Node, tools: Tools, attachments: Attachments, boot_id: str) -> None:
        self._node = node
        self._tools = tools
        self._attachments = attachments
        self._boot_id = boot_id

    async def __call__(self, managers: Managers) -> None:
        """Raises KnitterError when the manager does not take it."""
        journal, in_use = self._tools.journal, self.in_use()
        outdated = int(journal.meta(_OUTDATED) or 0)
        seen = [int(journal.meta("revision") or 0), *(told.revision for told in in_use if told.revision > outdated)]
        highest = max(seen)
        chunks = [in_use[at : at + CHUNK] for at in range(0, len(in_use), CHUNK)] or [[]]
        for number, chunk in enumerate(chunks, 1):
            request = pb.ReconcileRequest(
                node=convert.node_to_proto(self._node),
                epoch=journal.meta("epoch"),
                revision=highest,
                in_use=chunk,
                boot_id=self._boot_id,
                more=number < len(chunks),
            )
            await failpoints.reach("reconcile.before-told")
            response = await managers.call(lambda manager: manager.Reconcile, request, within=10.0)
        await failpoints.reach("reconcile.after-told")
        detached = await self._refused(response.refused)
        await self._unknown([convert.port_set_from_proto(told) for told in response.unknown_to_node])
        self._undecided(response.undecided)
        told = {"epoch": response.epoch, "revision": str(max(response.revision, highest)), _TOLD: "1"}
        if (before := journal.meta("epoch")) and before != response.epoch:
            log.warning("the manager is in a new epoch", epoch=response.epoch, before=before, recovering=response.recovering)
            told |= {"revision": str(response.revision), _OUTDATED: str(max([outdated, *(one.revision for one in in_use)]))}
        await journal.put(meta=told)
        if detached:
            await self(managers)  # others wait for the word that it is not here any more

    def in_use(self) -> list[types.PortSet]:
        """The sets that are in use here, as they were wired."""
        records = self._tools.journal.records.values()
        return [types.PortSet.FromString(record.port_set) for record in records if self._uses(record)]

    def _uses(self, record: Record) -> bool:
        """It has a set, has not given it back already, and is still in the kernel."""
        undo = self._attachments.undoer.pending.get(record.key)
        return bool(record.port_set) and not (undo is not None and (undo.released or undo.clean.done()))

    async def _refused(self, owners: Collection[types.Owner]) -> bool:
        """Whether all of what is another owner's by now is detached; False where there is nothing of the kind."""
        keys = {convert.owner_from_proto(owner).key for owner in owners}
        records = [record for record in self._tools.journal.records.values() if _owner_key(record) in keys and self._uses(record)]
        for record in records:
            log.error("its addresses belong to another owner by now; it is detached", attachment=str(record.key))
        await asyncio.gather(*map(self._attachments.end, records))
        pending = self._attachments.undoer.pending
        undos = [pending[record.key] for record in records if record.key in pending]
        if undos:
            await asyncio.wait([undo.clean for undo in undos], timeout=_UNDONE)
        return bool(records) and all(undo.clean.done() for undo in undos)

    def _undecided(self, owners: Collection[types.Owner]) -> None:
        for owner in owners:
            key = convert.owner_from_proto(owner).key
            log.warning("the manager cannot say whose a running set's addresses are; it keeps running", owner=key)

    async def _unknown(self, sets: Sequence[PortSet]) -> None:
        lost = not self._tools.journal.meta(_TOLD)
        for told in sets:
            owner = told.owner
            if not isinstance(owner, SandboxOwner) or owner.node != self._node.name:
                continue  # a pod's set is the monitor's to end
            key = Key(owner.cni_network, owner.container_id, owner.interface)
            record = await self._recorded(key, told) if lost else None
            if key in self._tools.journal.records or self._attachments.busy(key):
                continue
            if record is not None:
                log.warning("an attachment that the journal lost is taken back", attachment=str(key))
                await self._tools.journal.put(record)
            else:
                log.warning("a set that nothing here uses is given back", attachment=str(key))
                encoded = convert.port_set_to_proto(told).SerializeToString()
                self._attachments.undoer.submit(Record(key, State.DETACHING, "", 0, self._tools.clock(), port_set=encoded))

    async def _recorded(self, key: Key, told: PortSet) -> Record | None:
        """The record that ADD must have written, if the namespace the set is bound to still opens."""
        netns = told.binding.netns if told.binding else ""

        cookie = await cookie_at(self._tools, netns) if netns else None
        if not cookie:
            return None
        wirings = tuple(self._tools.drivers(port.type).plan(port, str(key)) for port in settle_defaults(told.ports))
        encoded = convert.port_set_to_proto(told).SerializeToString()
        return Record(key, State.ATTACHED, netns, cookie, self._tools.clock(), port_set=encoded, wirings=wirings, answered=True)


def _owner_key(record: Record) -> str:
    if not record.port_set:
        return ""
    return convert.owner_from_proto(types.PortSet.FromString(record.port_set).owner).key
