"""RepairState: a finding is judged again, and mended in one commit that is conditional on all that was looked at.

An address or a MAC that nobody should have comes free only when no node uses it: the nodes are asked, and one that cannot be asked
is in the way unless the repair is forced. One that a journal has is never freed.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.convert import ip_claim_from_proto
from knitter_common.errors import Invalid, KnitterError, NotFound, Refused, Stale, to_status
from knitter_manager import keys
from knitter_manager.allocation.claiming import stored_claim
from knitter_manager.allocation.jobs import not_writer, store_unavailable
from knitter_manager.allocation.owned import keys_of_claim, keys_of_port, keys_of_set
from knitter_manager.check.journals import Journals, NotAsked
from knitter_manager.check.nodes import WITHIN, NodeChecks
from knitter_manager.check.reading import holder_of, record_of
from knitter_manager.committer import Committer
from knitter_manager.records import message_of
from knitter_manager.state import Cluster
from knitter_manager.store.protocol import Conflict, NotWriter, Record, Store, StoreDown

MOST = 500  # findings of one request

_AT_ONCE = 250  # sets between two turns of the event loop
_ABSENT = Record("", b"", 0)


@dataclass(slots=True)
class _Repair:
    """What is written, on what conditions, and what is said of it. `frees`: the key must not be in use on any node."""

    said: str
    conditions: dict[str, int]
    puts: dict[str, bytes] = field(default_factory=dict)
    deletes: tuple[str, ...] = ()
    frees: bool = False


@dataclass(slots=True)
class _InUse:
    """What the nodes use, by key: the node; and those that could not be asked, with why."""

    by_key: dict[str, str] = field(default_factory=dict)
    not_asked: dict[str, str] = field(default_factory=dict)


class Repairer:
    """Only for the manager that writes: `may_write` raises elsewhere."""

    def __init__(
        self, store: Store, cluster: Cluster, committer: Committer, journals: Journals, may_write: Callable[[], None]
    ) -> None:
        self._store, self._cluster, self._committer, self._journals = store, cluster, committer, journals
        self._may_write = may_write

    async def repair(self, findings: Sequence[pb.Finding], force: bool) -> list[pb.Repair]:
        """What became of each. Raises Invalid(LIMIT_EXCEEDED), Unavailable."""
        self._may_write()
        if len(findings) > MOST:
            raise Invalid("LIMIT_EXCEEDED", f"findings: {len(findings)} are too many; at most {MOST}", field="findings", limit=MOST)
        wanting = await self._wanting({finding.key for finding in findings if finding.key.startswith((keys.ADDRESS, keys.MAC))})
        in_use: _InUse | None = None
        repairs = []
        for finding in findings:
            try:
                repair = await self._judged(finding, wanting)
                if repair.frees:
                    in_use = in_use or await self._in_use()
                    self._refuse_used(finding.key, repair, in_use, force)
                await self._committer.commit(repair.conditions, repair.puts, repair.deletes)
                repairs.append(pb.Repair(key=finding.key, done=repair.said))
            except KnitterError as error:
                repairs.append(pb.Repair(key=finding.key, error=to_status(error)))
            except Conflict as conflict:
                repairs.append(pb.Repair(key=finding.key, error=to_status(_stale(conflict.key, finding.revision))))
            except NotWriter as error:
                raise not_writer(error.writer) from error
            except StoreDown as error:
                raise store_unavailable(error) from error
        return repairs

    # -- judging -----------------------------------------------------------------------------------------------------------

    async def _judged(self, finding: pb.Finding, wanting: Mapping[str, list[str]]) -> _Repair:
        family = finding.key.partition("/")[0]
        match family:
            case "addr" | "mac":
                return await self._of_held(finding, wanting.get(finding.key, []))
            case "claim":
                return await self._of_claim(finding)
            case "net" | "vid":
                return await self._of_network(finding)
        raise Invalid("FIELD_INVALID", f"key: {finding.key!r} is of no kind that can be repaired", field="key", value=finding.key)

    async def _of_held(self, finding: pb.Finding, wanting: Sequence[str]) -> _Repair:
        """An address or a MAC. `wanting`: the records of those that have it, as far as the memory knows."""
        key, rightful = finding.key, finding.rightful
        if rightful and not rightful.startswith((keys.PORT_SET, keys.CLAIM)):
            said = f"rightful: {rightful!r} is no key of a port set or a claim"
            raise Invalid("FIELD_INVALID", said, field="rightful", value=rightful)
        text = key.rpartition("/")[2]
        found = await self._store.get([key, *([rightful] if rightful else ())])
        record = found.get(key, _ABSENT)
        if record.revision != finding.revision:
            raise _stale(key, finding.revision)
        holder = record.value.decode()
        if any(one != rightful for one in wanting):
            others = " and ".join(keys.said(holder_of(one)) for one in wanting if one != rightful)
            raise Refused("OBJECT_IN_USE", f"{text} is that of {others}; compare again", owner=others)
        conditions = {key: record.revision}
        if holder:
            there = await self._there(record_of(holder))
            conditions[record_of(holder)] = there.revision
            if self._has(there, key):
                raise Refused("OBJECT_IN_USE", f"{text} is held by {keys.said(holder)}, which has it: nothing is to be repaired")
        if rightful:
            owner = found.get(rightful, _ABSENT)
            if not self._has(owner, key):
                raise NotFound("OBJECT_NOT_FOUND", f"{keys.said(holder_of(rightful))} is not there, or does not have {text}")
            conditions[rightful] = owner.revision
            return _Repair(f"{text} is held for {keys.said(holder_of(rightful))}", conditions, {key: holder_of(rightful).encode()})
        if not holder and not record.revision:
            raise NotFound("OBJECT_NOT_FOUND", f"{text} has no record, and nobody has it")
        if key.startswith(keys.MAC):
            return _Repair(f"{text} is free", conditions, deletes=(key,), frees=True)
        network_id = key.split("/")[1]
        entry = self._cluster.networks.get(network_id)
        if entry is None or entry.space_of(text) is None:
            conditions[keys.network(network_id)] = entry.network.revision if entry is not None else 0
            return _Repair(f"{text} has no record any more", conditions, deletes=(key,), frees=bool(holder))
        if not holder:
            raise Refused("OBJECT_IN_USE", f"{text} rests, as it should: nothing is to be repaired")
        return _Repair(f"{text} rests, and is free after that", conditions, {key: b""}, frees=True)

    async def _of_claim(self, finding: pb.Finding) -> _Repair:
        """One that says it is used by a set that does not use it."""
        record = await self._there(finding.key)
        if record.revision != finding.revision or not record.revision:
            raise _stale(finding.key, finding.revision)
        claim = replace(ip_claim_from_proto(types.IPClaim.FromString(record.value)), revision=record.revision)
        if claim.used_by is None:
            raise Refused("OBJECT_IN_USE", f"{keys.said(finding.key)} is used by nobody: nothing is to be repaired")
        user = await self._there(keys.port_set(claim.used_by.key))
        message = types.PortSet.FromString(user.value)
        if message.tenant == claim.tenant and any(wish.ip_claim == claim.name for wish in message.wishes):
            raise Refused(
                "OBJECT_IN_USE", f"{keys.said(claim.used_by.key)} uses {keys.said(finding.key)}: nothing is to be repaired"
            )
        conditions = {finding.key: record.revision, keys.port_set(claim.used_by.key): user.revision}
        unused = stored_claim(replace(claim, used_by=None))
        return _Repair(f"{keys.said(finding.key)} is used by nobody", conditions, {finding.key: unused})

    async def _of_network(self, finding: pb.Finding) -> _Repair:
        """A name or a segmentation id that means a network which is not there, or is another one's."""
        record = await self._there(finding.key)
        if record.revision != finding.revision or not record.revision:
            raise _stale(finding.key, finding.revision)
        if record.value.startswith(b"rest "):
            raise Refused("OBJECT_IN_USE", f"{finding.key} rests, as it should: nothing is to be repaired", key=finding.key)
        there = await self._there(keys.network(record.value.decode()))
        if there.revision:
            raise Refused(
                "OBJECT_IN_USE", f"{finding.key} names a network that is there; change or delete the network", key=finding.key
            )
        conditions = {finding.key: record.revision, keys.network(record.value.decode()): 0}
        return _Repair(f"{finding.key} has no record any more", conditions, deletes=(finding.key,))

    async def _there(self, key: str) -> Record:
        return (await self._store.get([key])).get(key, _ABSENT)

    def _has(self, record: Record, key: str) -> bool:
        """Whether the set or claim in this record has the address or MAC of a key."""
        if not record.revision:
            return False
        if record.key.startswith(keys.CLAIM):
            claim = ip_claim_from_proto(types.IPClaim.FromString(record.value))
            entry = self._cluster.names.at(claim.network)
            return entry is not None and key in keys_of_claim(claim, entry.network, entry.segment)
        return key in keys_of_set(types.PortSet.FromString(record.value), self._segments)

    @property
    def _segments(self) -> dict[str, str]:
        return {network_id: entry.segment for network_id, entry in self._cluster.networks.items()}

    async def _wanting(self, wanted: Iterable[str]) -> dict[str, list[str]]:
        """The records of all sets and claims that have the address or MAC of one of these keys."""
        asked, segments = set(wanted), self._segments
        found: dict[str, list[str]] = {}
        if not asked:
            return found
        for key, claim in list(self._cluster.claims.items()):
            entry = self._cluster.names.at(claim.network)
            for one in keys_of_claim(claim, entry.network, entry.segment) if entry is not None else ():
                if one in asked:
                    found.setdefault(one, []).append(key)
        for number, (owner_key, record) in enumerate(list(self._cluster.sets.items())):
            for one in keys_of_set(message_of(record), segments):
                if one in asked:
                    found.setdefault(one, []).append(keys.port_set(owner_key))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return found

    # -- what runs ---------------------------------------------------------------------------------------------------------

    async def _in_use(self) -> _InUse:
        """What the nodes' journals have, claims' addresses included."""
        told, segments = _InUse(), self._segments
        nodes = NodeChecks(self._cluster, self._journals).to_ask()
        async for node, answer in self._journals.ask_all(nodes, WITHIN):
            if isinstance(answer, NotAsked):
                told.not_asked[node] = str(answer)
                continue
            for message in answer:
                told.by_key.update((key, node) for port in message.ports for key in keys_of_port(port, segments))
        return told

    def _refuse_used(self, key: str, repair: _Repair, in_use: _InUse, force: bool) -> None:
        """Raises Refused(OBJECT_IN_USE | NODES_NOT_ASKED)."""
        text = key.rpartition("/")[2]
        if key in in_use.by_key:
            node = in_use.by_key[key]
            said = f"{text} is in use on node {node}, whose agent tells of it when it next connects; restart that agent"
            raise Refused("OBJECT_IN_USE", said, node=node)
        may_run_it = {name: why for name, why in in_use.not_asked.items() if _may_run(name, repair.conditions)}
        if may_run_it and not force:
            some = ", ".join(f"{name} ({why})" for name, why in sorted(may_run_it.items())[:5])
            more = f" and {len(may_run_it) - 5} more" if len(may_run_it) > 5 else ""
            raise Refused("NODES_NOT_ASKED", f"{text} may be in use on nodes whose journals are not known: {some}{more}")


def _may_run(node: str, conditions: Iterable[str]) -> bool:
    """Whether what was held may be in use on the node: what a sandbox held, only on its own."""
    for key in conditions:
        if key.startswith(keys.PORT_SET):
            kind, _, rest = holder_of(key).partition("/")
            return kind != "sandbox" or rest.partition("/")[0] == node
    return True


def _stale(key: str, revision: int) -> Stale:
    return Stale("REVISION_STALE", f"{key} is not at revision {revision} any more; compare again", key=key)
