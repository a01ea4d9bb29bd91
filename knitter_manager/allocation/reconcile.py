"""A node tells what its journal holds, and the manager says what differs: what runs wins over what is only planned."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from knitter_common.errors import Invalid, KnitterError, NotFound, Refused
from knitter_common.model import Node, Owner, PodOwner, PortSet, PortSetState
from knitter_manager import keys
from knitter_manager.allocation.ending import let_go, rewrite, take_exactly
from knitter_manager.allocation.jobs import Answer, Attempt, Jobs
from knitter_manager.allocation.plan import Plan
from knitter_manager.allocation.sets import PortSets, turn_of
from knitter_manager.records import port_set_of, stored
from knitter_manager.state import Cluster

log = structlog.get_logger()

_MOST_TOLD = 100_000  # sets that one node may tell of


@dataclass(slots=True)
class Reconciled:
    """What differs, see ReconcileResponse. `unknown_to_node` are records as they are kept."""

    unknown_to_node: list[bytes] = field(default_factory=list)
    adopted: list[Owner] = field(default_factory=list)
    refused: list[Owner] = field(default_factory=list)


class Reconciler:
    """`register` stores what the node says of itself."""

    def __init__(
        self,
        cluster: Cluster,
        jobs: Jobs,
        sets: PortSets,
        register: Callable[[Node], Awaitable[Node]],
        may_write: Callable[[], None],
    ) -> None:
        self._cluster, self._jobs, self._sets, self._register, self._may_write = cluster, jobs, sets, register, may_write
        self._parts: dict[str, list[PortSet]] = {}  # what nodes have told in messages before their last

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
        outcome = Reconciled()
        known = {one.owner.key for one in told}
        answers = await asyncio.gather(*(self._adopt(node.name, one) for one in told), return_exceptions=True)
        for one, answer in zip(told, answers, strict=True):
            if isinstance(answer, Refused | Invalid | NotFound):
                owner_key, why = one.owner.key, answer.message
                log.warning("a set that runs on a node belongs to others", node=node.name, owner=owner_key, error=why)
                outcome.refused.append(one.owner)
            elif isinstance(answer, BaseException):
                raise answer
            elif answer:
                outcome.adopted.append(one.owner)
        for owner_key in sorted(self._cluster.node(node.name).owners - known):
            outcome.unknown_to_node.append(self._cluster.sets[owner_key])
        return outcome

    async def _adopt(self, node: str, told: PortSet) -> bool:
        """Whether the store had to learn it from the node."""
        learned = False

        def step(attempt: Attempt) -> Plan | Answer:
            nonlocal learned
            plan = self._adoption(node, told)
            learned = isinstance(plan, Plan)
            return plan

        await self._jobs.run(turn_of(told.owner), told.owner.key, step)
        return learned

    def _adoption(self, node: str, told: PortSet) -> Plan | Answer:
        record = self._cluster.sets.get(told.owner.key)
        if record is not None:
            before = port_set_of(record)
            if _wires(before) == _wires(told):
                after = replace(before, node=node, binding=told.binding or before.binding, revision=0)
                if after == replace(before, revision=0):
                    return record
                return rewrite(before, after)
            if before.binding is not None and before.node != node:
                raise Refused("OBJECT_IN_USE", f"{keys.said(told.owner.key)} is used on node {before.node}")
            return self._take_over(node, told, before)
        return self._take_over(node, told, None)

    def _take_over(self, node: str, told: PortSet, before: PortSet | None) -> Plan:
        """What runs is the truth: its addresses become the owner's, unless another has them."""
        key = keys.port_set(told.owner.key)
        state = PortSetState.LENT if before is None and isinstance(told.owner, PodOwner) else PortSetState.RESERVED
        after = replace(told, node=node, revision=0, error=None, state=before.state if before else state)
        plan = Plan(conditions={key: before.revision if before else 0}, puts={key: stored(after)})
        try:
            let_go(plan, self._cluster, before, after)
            take_exactly(plan, self._cluster, after, before)
        except BaseException:
            plan.undo()
            raise
        return plan

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


def _wires(port_set: PortSet) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """What of a set is in the kernel."""
    return [(port.network_id, port.interface, port.mac, tuple(one.cidr for one in port.addresses)) for port in port_set.ports]


