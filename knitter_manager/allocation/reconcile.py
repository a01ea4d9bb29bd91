"""A node tells what its journal holds, and the manager says what differs.

Usually the store is right: a set whose addresses are another owner's is refused, and the node detaches it. In a new epoch
(recovery.py) what runs wins over what is only planned: the other set gives way, unless it runs too. Where only another node can
tell that, or the network is not known here, nothing is decided and the set keeps running.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import structlog

from knitter_common.convert import port_set_to_proto
from knitter_common.errors import Invalid, KnitterError, NotFound, Refused
from knitter_common.model import Node, Owner, PodOwner, PortSet, PortSetState, Return
from knitter_manager import keys
from knitter_manager.allocation.claiming import claims_of_running
from knitter_manager.allocation.ending import end, let_go, rewrite, take_exactly
from knitter_manager.allocation.jobs import Answer, Attempt, Jobs, store_unavailable
from knitter_manager.allocation.owned import keys_of_port
from knitter_manager.allocation.plan import Plan
from knitter_manager.allocation.sets import PortSets, turn_of
from knitter_manager.records import port_set_of, stored
from knitter_manager.recovery import Recovery
from knitter_manager.state import Cluster
from knitter_manager.store.protocol import Store, StoreDown

log = structlog.get_logger()

_MOST_TOLD = 100_000  # sets that one node may tell of


class _Verdict(Enum):
    """What becomes of a set that runs on a node."""

    KNOWN = "known"
    ADOPTED = "adopted"
    REFUSED = "refused"
    UNDECIDED = "undecided"


@dataclass(slots=True)
class Reconciled:
    """What differs, see ReconcileResponse. `unknown_to_node` are records as they are kept."""

    unknown_to_node: list[bytes] = field(default_factory=list)
    adopted: list[Owner] = field(default_factory=list)
    refused: list[Owner] = field(default_factory=list)
    undecided: list[Owner] = field(default_factory=list)


class Reconciler:
    """`register` stores what the node says of itself, `acquit` that it carries no network any more but these (by id)."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        jobs: Jobs,
        sets: PortSets,
        register: Callable[[Node], Awaitable[Node]],
        acquit: Callable[[str, Collection[str]], Awaitable[None]],
        may_write: Callable[[], None],
        recovery: Recovery,
    ) -> None:
        self._cluster, self._store, self._jobs, self._sets = cluster, store, jobs, sets
        self._register, self._acquit, self._may_write, self._recovery = register, acquit, may_write, recovery
        self._parts: dict[str, list[PortSet]] = {}  # what nodes have told in messages before their last
        self._running: dict[str, frozenset[str]] = {}  # keys of the owners whose sets nodes have told, each its last word
        self._undecided: dict[str, list[PortSet]] = {}  # of this epoch, by node
        self._heard: tuple[str, set[str]] = "", set()  # an epoch, and the nodes that have told their journals to this manager in it

    async def told(self, node: Node, in_use: Sequence[PortSet], more: bool) -> Reconciled:
        """Acts on the last message of a node's telling. Raises KnitterError."""
        self._may_write()
        told = [*self._parts.pop(node.name, ()), *in_use]
        if len(told) > _MOST_TOLD:
            raise Invalid("LIMIT_EXCEEDED", f"in_use: more than {_MOST_TOLD} sets on one node", limit=_MOST_TOLD)
        if more:
            self._parts[node.name] = told
            return Reconciled()
        await self._register(node)
        self._running[node.name] = frozenset(one.owner.key for one in told)
        waited = set(self._recovery.waiting_for)
        waiting = (waited - self._heard_now() - {node.name}) if waited else None
        verdicts = await asyncio.gather(*(self._settled(node.name, one, waiting) for one in told))
        by_verdict = {verdict: [one for one, said in zip(told, verdicts, strict=True) if said is verdict] for verdict in _Verdict}
        self._undecided[node.name] = by_verdict[_Verdict.UNDECIDED]
        outcome = Reconciled(
            unknown_to_node=[self._cluster.sets[key] for key in self._unknown(node.name)],
            adopted=[one.owner for one in by_verdict[_Verdict.ADOPTED]],
            refused=[one.owner for one in by_verdict[_Verdict.REFUSED]],
            undecided=[one.owner for one in by_verdict[_Verdict.UNDECIDED]],
        )
        if any(keys.owed_of(key)[1] == node.name for key in self._cluster.owed):
            left = (*by_verdict[_Verdict.REFUSED], *by_verdict[_Verdict.UNDECIDED])
            await self._acquit(node.name, {port.network_id for one in left for port in one.ports})
        if node.name in waited:
            await self._unbind(node.name)
            await self._told_or_gone(node.name)
        return outcome

    def _unknown(self, node: str) -> list[str]:
        """The owners that the store has on the node, and that its journal does not."""
        return sorted(self._cluster.node(node).owners - self._running.get(node, frozenset()))

    # -- one set that runs -------------------------------------------------------------------------------------------------

    async def _settled(self, node: str, told: PortSet, waiting: Collection[str] | None) -> _Verdict:
        """`waiting`: the nodes that have yet to tell in this epoch; None when the manager had recovered."""
        try:
            return await self._adopt(node, told)
        except (Refused, Invalid, NotFound) as error:
            verdict = await self._judged(node, told, waiting)
            if verdict in (_Verdict.REFUSED, _Verdict.UNDECIDED):
                owner_key, why = told.owner.key, error.message
                log.warning("a set runs on a node and is not its owner's", node=node, owner=owner_key, error=why, verdict=verdict)
            return verdict

    async def _judged(self, node: str, told: PortSet, waiting: Collection[str] | None) -> _Verdict:
        """Who is in the way of a set that runs, and whether that one gives way."""
        rivals = await self._rivals(node, told)
        if not rivals:
            return _Verdict.UNDECIDED  # nobody's: its network or subnet is not known here, or something is under way
        if waiting is None:
            return _Verdict.REFUSED
        views = {self._view(key, waiting) for key in rivals}
        if _Verdict.KNOWN in views:
            return _Verdict.REFUSED
        if _Verdict.UNDECIDED in views:
            return _Verdict.UNDECIDED
        for key in rivals:
            log.warning("what runs wins over what was planned", node=node, owner=told.owner.key, gives_way=key)
            await self._jobs.run(turn_of(keys.owner_of(key)), key, lambda _, key=key: self._giving_way(key))  # type: ignore[misc]
        try:
            return await self._adopt(node, told)
        except (Refused, Invalid, NotFound):
            return _Verdict.UNDECIDED

    async def _rivals(self, node: str, told: PortSet) -> list[str]:
        """The keys of those who hold what it uses, itself on another node included."""
        own = self._cluster.sets.get(told.owner.key)
        message = port_set_to_proto(told)
        segments = {network_id: entry.segment for network_id, entry in self._cluster.networks.items()}
        asked = [key for port in message.ports for key in keys_of_port(port, segments)]
        try:
            found = await self._store.get(asked)
        except StoreDown as error:
            raise store_unavailable(error) from error
        rivals = {self._user_of(record.value.decode()) for record in found.values() if record.value} - {told.owner.key}
        if own is not None and port_set_of(own).node not in ("", node):
            rivals.add(told.owner.key)
        return sorted(rivals)

    def _user_of(self, holder: str) -> str:
        """Whose set uses what an owner or a claim holds; the claim itself where nobody uses it."""
        claim = self._cluster.claims.get(holder)
        return claim.used_by.key if claim is not None and claim.used_by is not None else holder

    def _view(self, owner_key: str, waiting: Collection[str]) -> _Verdict:
        """Of a set in the store: it runs (KNOWN), it is only planned (ADOPTED: the other one is), or nobody can tell yet."""
        record = self._cluster.sets.get(owner_key)
        if record is None:
            return _Verdict.UNDECIDED  # a claim that nobody uses
        held = port_set_of(record)
        if held.node in waiting:
            return _Verdict.UNDECIDED
        told = self._running.get(held.node)
        runs = held.binding is not None if told is None else owner_key in told
        return _Verdict.KNOWN if runs else _Verdict.ADOPTED

    def _giving_way(self, owner_key: str) -> Plan | Answer:
        record = self._cluster.sets.get(owner_key)
        return None if record is None else end(self._cluster, port_set_of(record))

    async def _adopt(self, node: str, told: PortSet) -> _Verdict:
        """Whether the store had to learn it from the node."""
        learned, macs_held = False, dict[str, int]()

        def step(attempt: Attempt) -> Plan | Answer:
            nonlocal learned
            _learn_mac(told, attempt, macs_held)
            plan = self._adoption(node, told, macs_held)
            learned = isinstance(plan, Plan)
            return plan

        await self._jobs.run(turn_of(told.owner), told.owner.key, step)
        return _Verdict.ADOPTED if learned else _Verdict.KNOWN

    def _adoption(self, node: str, told: PortSet, macs_held: Mapping[str, int]) -> Plan | Answer:
        record = self._cluster.sets.get(told.owner.key)
        if record is not None:
            before = port_set_of(record)
            if before.binding is not None and before.node not in ("", node):
                raise Refused("OBJECT_IN_USE", f"{keys.said(told.owner.key)} is used on node {before.node}")
            if _wires(before) == _wires(told):
                after = replace(_carried(before), node=node, binding=told.binding or before.binding, revision=0)
                if after == replace(before, revision=0):
                    return record
                return rewrite(before, after)
            return self._take_over(node, told, before, macs_held)
        return self._take_over(node, told, None, macs_held)

    def _take_over(self, node: str, told: PortSet, before: PortSet | None, macs_held: Mapping[str, int]) -> Plan:
        """What runs is the truth: its addresses become the owner's, unless another has them."""
        key = keys.port_set(told.owner.key)
        state = PortSetState.LENT if before is None and isinstance(told.owner, PodOwner) else PortSetState.RESERVED
        if before is not None:
            state = _carried(before).state
        after = replace(told, node=node, revision=0, error=None, state=state, expire_time=0)
        plan = Plan(conditions={key: before.revision if before else 0})
        try:
            after = claims_of_running(plan, self._cluster, after)
            plan.puts[key] = stored(after)
            let_go(plan, self._cluster, before, after)
            take_exactly(plan, self._cluster, after, before, macs_held)
        except BaseException:
            plan.undo()
            raise
        return plan

    # -- a new epoch -------------------------------------------------------------------------------------------------------

    async def _unbind(self, node: str) -> None:
        """The node has told in the new epoch: what the store has in use there and the node has not is not in use.

        Pods' sets only: those of sandboxes the node gives back itself.
        """
        unused = [owner for owner in map(keys.owner_of, self._unknown(node)) if isinstance(owner, PodOwner)]
        await asyncio.gather(*(self._sets.release(Return(owner, unbind_only=True)) for owner in unused))

    async def _told_or_gone(self, node: str) -> None:
        """One node less to wait for: what waited for its word is judged before anything is allocated.

        While others are waited for, so are nodes with undecided sets: another writer has to hear of those before it decides.
        """
        heard = self._heard_now()
        heard.add(node)
        waiting = set(self._recovery.waiting_for) - heard
        await self._judge_again(waiting)
        undecided = {name for name, sets in self._undecided.items() if sets} if waiting else set()
        if await self._recovery.told(node, waiting | undecided):
            self._undecided.clear()

    def _heard_now(self) -> set[str]:
        epoch, heard = self._heard
        if epoch != self._cluster.epoch:
            heard = set()
            self._heard = self._cluster.epoch, heard
            self._undecided.clear()
        return heard

    async def _judge_again(self, waiting: Collection[str]) -> None:
        for node, sets in list(self._undecided.items()):
            verdicts = await asyncio.gather(*(self._settled(node, one, waiting) for one in sets))
            left = [one for one, said in zip(sets, verdicts, strict=True) if said is _Verdict.UNDECIDED]
            self._undecided[node] = left

    async def end_recovery(self) -> tuple[str, ...]:
        """By an operator's word nobody is waited for any more; returns who was."""
        self._may_write()
        await self._judge_again(())
        self._undecided.clear()
        return await self._recovery.end()

    # -- the end of a node -----------------------------------------------------------------------------------------------

    async def free(self, node: str) -> None:
        """The node is gone or forgotten: what was lent to it is free, and what it used is unbound."""
        endings = []
        for owner_key in list(self._cluster.node(node).owners):
            endings.append(self._sets.without_node(keys.owner_of(owner_key), node))
        for ended in await asyncio.gather(*endings, return_exceptions=True):
            if isinstance(ended, KnitterError):
                log.warning("a set of a node that is gone was not freed", node=node, error=ended.message)
            elif isinstance(ended, BaseException):
                raise ended
        self._running.pop(node, None)
        self._undecided.pop(node, None)
        if node in self._recovery.waiting_for:
            await self._told_or_gone(node)


def _learn_mac(told: PortSet, attempt: Attempt, macs_held: dict[str, int]) -> None:
    """What the store had instead of a free MAC: one of the owner's own, or raises Refused(MAC_TAKEN)."""
    conflict = attempt.conflict
    if conflict is None or not conflict.key.startswith(keys.MAC):
        return
    macs_held.pop(conflict.key, None)
    if conflict.current is None:
        return
    holder, mac = conflict.current.value.decode(), conflict.key.rpartition("/")[2]
    if holder != told.owner.key:
        raise Refused("MAC_TAKEN", f"MAC {mac} is that of {keys.said(holder)}", mac=mac)
    macs_held[conflict.key] = conflict.current.revision


def _carried(before: PortSet) -> PortSet:
    """A set that was kept for the next pod of its name, since its node was gone, runs there nevertheless: it is lent until that
    node gives it back, and no time of its own ends it."""
    return replace(before, state=PortSetState.LENT, expire_time=0) if before.state is PortSetState.KEPT else before


def _wires(port_set: PortSet) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """What of a set is in the kernel."""
    return [(port.network_id, port.interface, port.mac, tuple(one.cidr for one in port.addresses)) for port in port_set.ports]
