"""What the nodes' journals hold against the sets that the store has on them.

A set is in use on a node when a sandbox uses it there. Between the commit of an operation and the line of the journal that follows
it the two differ for a moment, so a difference counts only when a second look, some time later, shows it again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.convert import owner_from_proto
from knitter_common.errors import Invalid
from knitter_manager import keys
from knitter_manager.check.journals import Journals, NotAsked
from knitter_manager.records import message_of
from knitter_manager.state import Cluster

WITHIN = 5.0  # seconds that a node has for its answer
SETTLE = 1.0  # seconds between the two looks


@dataclass(slots=True)
class Asked:
    """Whose journals are known."""

    nodes: list[str] = field(default_factory=list)
    not_asked: dict[str, str] = field(default_factory=dict)  # node → why


class NodeChecks:
    """`settle` is in seconds."""

    def __init__(self, cluster: Cluster, journals: Journals, settle: float = SETTLE) -> None:
        self._cluster, self._journals, self._settle = cluster, journals, settle

    def to_ask(self) -> list[str]:
        """The nodes whose journals count: those that are registered and not gone, and those with a set in use."""
        return sorted(name for name, entry in self._cluster.nodes.items() if self._counts(name, entry.node.revision))

    def _counts(self, name: str, revision: int) -> bool:
        entry = self._cluster.nodes[name]
        if revision:
            return not entry.node.gone
        return any(_in_use(message_of(self._cluster.sets[owner]), name) for owner in entry.owners)

    async def compare(self, asked: Asked) -> AsyncIterator[list[pb.Finding]]:
        """What differs, some nodes at a time. `asked` learns who was asked."""
        seen: dict[str, set[_Mark]] = {}
        async for node, answer in self._journals.ask_all(self.to_ask(), WITHIN):
            if isinstance(answer, NotAsked):
                asked.not_asked[node] = str(answer)
                continue
            asked.nodes.append(node)
            if marks := {_mark(one) for one in self._differing(node, answer)}:
                seen[node] = marks
        if not seen:
            return
        await asyncio.sleep(self._settle)
        async for node, answer in self._journals.ask_all(list(seen), WITHIN):
            if isinstance(answer, NotAsked):
                asked.nodes.remove(node)
                asked.not_asked[node] = str(answer)
                continue
            yield [finding for finding in self._differing(node, answer) if _mark(finding) in seen[node]]

    def _differing(self, node: str, told: Sequence[types.PortSet]) -> Iterator[pb.Finding]:
        running: dict[str, types.PortSet] = {}
        for message in told:
            try:
                running[owner_from_proto(message.owner).key] = message
            except Invalid as error:
                yield _finding(pb.FINDING_KIND_NOT_IN_STORE, "", message, node, f"the journal has a set of nobody: {error.message}")
        for owner_key in sorted(running):
            record = self._cluster.sets.get(owner_key)
            if record is None:
                said = f"{keys.said(owner_key)} runs on {node} with {_addresses(running[owner_key])}; the store has no set of it"
                yield _finding(pb.FINDING_KIND_NOT_IN_STORE, owner_key, running[owner_key], node, said)
            elif said := _otherwise(message_of(record), running[owner_key], node):
                said = f"{keys.said(owner_key)} on {node}: {said}"
                yield _finding(pb.FINDING_KIND_JOURNAL_DIFFERS, owner_key, message_of(record), node, said)
        entry = self._cluster.nodes.get(node)
        for owner_key in sorted(entry.owners - running.keys()) if entry is not None else ():
            message = message_of(self._cluster.sets[owner_key])
            if _in_use(message, node):
                said = f"{keys.said(owner_key)} has {_addresses(message)} in use on {node}; its journal has nothing of it"
                yield _finding(pb.FINDING_KIND_NOT_IN_JOURNAL, owner_key, message, node, said)


def _in_use(message: types.PortSet, node: str) -> bool:
    """A sandbox uses it there: it is bound, or it is that sandbox's own."""
    return message.HasField("binding") or message.owner.sandbox.node == node


def _otherwise(stored: types.PortSet, told: types.PortSet, node: str) -> str:
    """How the store has it otherwise; "" where it does not."""
    if stored.node not in ("", node):
        return f"the store has it on node {stored.node}"
    mine, theirs = _wires(stored), _wires(told)
    for interface in sorted(mine.keys() | theirs.keys()):
        if mine.get(interface) != theirs.get(interface):
            return f"{interface} is {_said(theirs.get(interface))} in the journal and {_said(mine.get(interface))} in the store"
    there, here = stored.binding.container_id, told.binding.container_id
    if there and here and there != here:
        return f"sandbox {here[:12]} uses it by the journal, and {there[:12]} by the store"
    return ""


_Wire = tuple[str, str, tuple[str, ...]]


def _wires(message: types.PortSet) -> Mapping[str, _Wire]:
    return {port.interface: (port.network_id, port.mac, tuple([one.cidr for one in port.addresses])) for port in message.ports}


def _said(wire: _Wire | None) -> str:
    if wire is None:
        return "not there"
    network_id, mac, addresses = wire
    return f"{','.join(addresses) or 'without address'} with MAC {mac or 'none'} on {network_id}"


def _addresses(message: types.PortSet) -> str:
    return ", ".join(one.cidr.partition("/")[0] for port in message.ports for one in port.addresses) or "no address"


def _finding(kind: pb.FindingKind.ValueType, owner_key: str, message: types.PortSet, node: str, said: str) -> pb.Finding:
    first = message.ports[0] if message.ports else types.Port()
    address = first.addresses[0].cidr.partition("/")[0] if first.addresses else ""
    key = keys.port_set(owner_key) if owner_key else ""
    revision = 0 if kind == pb.FINDING_KIND_NOT_IN_STORE else message.revision
    return pb.Finding(kind=kind, key=key, revision=revision, network=first.network, address=address, node=node, message=said)


_Mark = tuple[int, str, str]


def _mark(finding: pb.Finding) -> _Mark:
    return finding.kind, finding.key, finding.message
