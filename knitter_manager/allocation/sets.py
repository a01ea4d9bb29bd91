"""The life of port sets: allocate, bind, unbind, end, give back (design.md, "The unit: a port set").

    reserved ──(owner ends it, a node may carry it)──► lent ──(the node gives it back, or is gone)──► released, its addresses rest
        └───────────────(owner ends it, no node carries it)──────────────────────────────────────────►
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from knitter_common.addresses import mac as canonical_mac
from knitter_common.errors import REASONS, KnitterError, NotFound, Refused, Stale, Unavailable
from knitter_common.model import (
    Allocation,
    Bind,
    Binding,
    NamedOwner,
    Owner,
    PortSet,
    PortSetState,
    Return,
    SandboxOwner,
    Wish,
    default_tenant,
)
from knitter_manager import keys
from knitter_manager.allocation.jobs import Answer, Attempt, Jobs
from knitter_manager.allocation.plan import Plan
from knitter_manager.allocation.planner import Planner, place_of
from knitter_manager.records import port_set_of, stored
from knitter_manager.state import Cluster


class PortSets:
    """`allowed` raises when this manager must not allocate now (it does not write, or it recovers), `may_write` when it must
    not write at all."""

    def __init__(
        self, cluster: Cluster, planner: Planner, jobs: Jobs, may_write: Callable[[], None], allowed: Callable[[], None]
    ) -> None:
        self._cluster, self._planner, self._jobs = cluster, planner, jobs
        self._may_write, self._allowed = may_write, allowed

    def allocate(self, wanted: Allocation) -> "asyncio.Future[Answer]":
        """The owner's set as it is kept, the new one or the one it had. Raises KnitterError, at once or by the future."""
        self._may_write()
        return self._jobs.run(wanted.owner.key, lambda attempt: self._allocate(wanted, attempt))

    def bind(self, bind: Bind) -> "asyncio.Future[Answer]":
        """The set as it is kept, now used by that sandbox. Raises as `allocate`."""
        self._may_write()
        return self._jobs.run(bind.owner.key, lambda _: self._bind(bind))

    def release(self, give_back: Return) -> "asyncio.Future[Answer]":
        """Ends the reservation, or (`unbind_only`) the use of a set. Raises as `allocate`."""
        self._may_write()
        return self._jobs.run(give_back.owner.key, lambda _: self._release(give_back))

    # -- allocate --------------------------------------------------------------------------------------------------------

    def _allocate(self, wanted: Allocation, attempt: Attempt) -> Plan | Answer:
        _refuse_taken_mac(wanted, attempt)
        record = self._cluster.sets.get(wanted.owner.key)
        if record is None:
            self._allowed()
            return self._planner.plan(wanted, None, attempt.number)[0]
        before = port_set_of(record)
        tenant = wanted.tenant or default_tenant(wanted.owner)
        if before.error is None and before.tenant == tenant and _plain(before.wishes) == _plain(wanted.wishes):
            return self._take_up(before, wanted, record)
        if not wanted.replace and before.error is None:
            said = f"{keys.said(wanted.owner.key)} has a set with other wishes, of revision {before.revision}"
            raise Refused("OWNER_HAS_OTHER_WISHES", said, revision=before.revision)
        self._allowed()
        return self._replace(wanted, before, attempt)

    def _take_up(self, before: PortSet, wanted: Allocation, record: bytes) -> Plan | Answer:
        """The same wishes again: the same set, on the node and with the labels that are told now."""
        after = replace(before, revision=0)
        if wanted.node and wanted.node != before.node:
            if before.binding is not None:
                raise _bound_elsewhere(before)
            after = replace(after, node=wanted.node)
        if wanted.binding is not None and not _same_sandbox(wanted.binding, before.binding):
            after = replace(after, binding=wanted.binding)
        if wanted.replace:
            after = replace(after, labels=wanted.labels, sticky=wanted.sticky)
        if before.state in (PortSetState.LENT, PortSetState.KEPT):  # its owner is here after all
            after = replace(after, state=PortSetState.RESERVED)
        return record if after == replace(before, revision=0) else self._rewrite(before, after)

    def _replace(self, wanted: Allocation, before: PortSet, attempt: Attempt) -> Plan:
        if before.binding is not None:
            if wanted.node and wanted.node != before.node:
                raise _bound_elsewhere(before)
            wanted = replace(wanted, binding=wanted.binding or before.binding, node=before.node)
        plan, after = self._planner.plan(wanted, before, attempt.number)
        self.let_go(plan, before, after)
        return plan

    # -- bind ------------------------------------------------------------------------------------------------------------

    def _bind(self, bind: Bind) -> Plan | Answer:
        record = self._cluster.sets.get(bind.owner.key)
        if record is None:
            raise NotFound("OBJECT_NOT_FOUND", f"{keys.said(bind.owner.key)} has no port set; allocate it first")
        before = port_set_of(record)
        if before.error is not None:
            raise _plan_error(before)
        if before.binding is not None and bind.node and before.node and bind.node != before.node:
            raise _bound_elsewhere(before)
        node = bind.node or before.node
        if _same_sandbox(bind.binding, before.binding) and node == before.node:
            return record
        return self._rewrite(before, replace(before, binding=bind.binding, node=node))

    # -- release ---------------------------------------------------------------------------------------------------------

    def _release(self, give_back: Return) -> Plan | Answer:
        record = self._cluster.sets.get(give_back.owner.key)
        if record is None:
            return None
        before = port_set_of(record)
        if give_back.revision and give_back.revision != before.revision:
            said = f"{keys.said(give_back.owner.key)}: its set is at revision {before.revision}, not {give_back.revision}"
            raise Stale("REVISION_STALE", said, revision=before.revision)
        if give_back.container_id and before.binding and before.binding.container_id != give_back.container_id:
            return record  # a late word of an old sandbox
        if give_back.unbind_only:
            if before.state is PortSetState.LENT:
                return self._end(before)
            return record if before.binding is None else self._rewrite(before, replace(before, binding=None))
        if self._carried(before, bool(give_back.container_id)):
            if before.state is PortSetState.LENT:
                return record
            return self._rewrite(before, replace(before, state=PortSetState.LENT))
        return self._end(before)

    def _carried(self, before: PortSet, sandbox_ended: bool) -> bool:
        """Whether a node may still carry the set after its owner's end, so that it must give it back first."""
        if isinstance(before.owner, SandboxOwner) or sandbox_ended or before.error is not None:
            return False
        if before.binding is not None:
            return True
        if isinstance(before.owner, NamedOwner) or not before.node:
            return False
        entry = self._cluster.nodes.get(before.node)
        return entry is not None and entry.node.revision > 0 and not entry.node.gone

    # -- plans -----------------------------------------------------------------------------------------------------------

    def _rewrite(self, before: PortSet, after: PortSet) -> Plan:
        """The same ports, otherwise changed."""
        key = keys.port_set(before.owner.key)
        return Plan(conditions={key: before.revision}, puts={key: stored(after)})

    def _end(self, before: PortSet) -> Plan:
        """The set is gone; its addresses rest."""
        key = keys.port_set(before.owner.key)
        plan = Plan(conditions={key: before.revision}, deletes=[key])
        self.let_go(plan, before, None)
        return plan

    def let_go(self, plan: Plan, before: PortSet | None, after: PortSet | None) -> None:
        """What `before` held and `after` does not: addresses rest, MACs are free."""
        stay = {(port.network_id, one.cidr) for port in after.ports for one in port.addresses} if after else set()
        macs = {(port.network_id, port.mac) for port in after.ports} if after else set()
        for port in before.ports if before else ():
            entry = self._cluster.networks.get(port.network_id)
            for one in port.addresses:
                if (port.network_id, one.cidr) not in stay:
                    plan.puts[keys.address(port.network_id, one.cidr.partition("/")[0])] = b""
            if entry is not None and port.mac and (port.network_id, port.mac) not in macs:
                plan.deletes.append(keys.mac(entry.segment, port.mac))

    def take_exactly(self, plan: Plan, told: PortSet, before: PortSet | None) -> None:
        """The addresses and MACs of a set that runs already. Raises Refused(ADDRESS_TAKEN), NotFound(NETWORK_NOT_FOUND)."""
        had = {(port.network_id, one.cidr) for port in before.ports for one in port.addresses} if before else set()
        macs = {(port.network_id, port.mac) for port in before.ports} if before else set()
        owner = told.owner.key.encode()
        for port in told.ports:
            entry = self._cluster.networks.get(port.network_id)
            if entry is None:
                raise NotFound("NETWORK_NOT_FOUND", f"network {port.network} ({port.network_id}) is not there any more")
            plan.read(entry)
            for one in port.addresses:
                if (port.network_id, one.cidr) in had:
                    continue
                text = one.cidr.partition("/")[0]
                at = entry.space_of(text)
                taken = at[0].take_exactly(at[1]) if at is not None else None
                if at is None or taken is None:
                    raise Refused("ADDRESS_TAKEN", f"{text} of network {port.network} belongs to another owner", address=text)
                plan.taken.append((at[0], taken))
                plan.conditions[keys.address(port.network_id, text)] = taken.mark
                plan.puts[keys.address(port.network_id, text)] = owner
            if port.mac and (port.network_id, port.mac) not in macs:
                plan.puts[keys.mac(entry.segment, port.mac)] = owner

    def without_node(self, owner: Owner, node: str) -> Plan | Answer:
        """What becomes of a set when its node is gone: lent ones and those of its sandboxes end, reservations wait for another
        node."""
        record = self._cluster.sets.get(owner.key)
        if record is None:
            return None
        before = port_set_of(record)
        if before.node != node:
            return record
        if before.state is PortSetState.LENT or isinstance(owner, SandboxOwner):
            return self._end(before)
        return self._rewrite(before, replace(before, node="", binding=None))


def _plain(wishes: tuple[Wish, ...]) -> tuple[Wish, ...]:
    """The wishes without where they were written."""
    return tuple(replace(wish, place="") if wish.place else wish for wish in wishes)


def _refuse_taken_mac(wanted: Allocation, attempt: Attempt) -> None:
    """A generated MAC that is taken gives way to another one; a wanted one does not."""
    if attempt.conflict is None or not attempt.conflict.key.startswith(keys.MAC):
        return
    mac = attempt.conflict.key.rpartition("/")[2]
    for at, wish in enumerate(wanted.wishes):
        if wish.mac and canonical_mac(wish.mac) == mac:
            holder = attempt.conflict.current
            who = keys.said(holder.value.decode()) if holder else "an operation under way"
            raise Refused("MAC_TAKEN", f"{place_of(wish, at)}: MAC {mac} of network {wish.network} is that of {who}", mac=mac)


def _same_sandbox(one: Binding, other: Binding | None) -> bool:
    return other is not None and one.container_id == other.container_id and one.netns == other.netns


def _plan_error(port_set: PortSet) -> KnitterError:
    """Why the set has no ports, as it was told when it was planned."""
    assert port_set.error is not None
    reason = port_set.error.reason if port_set.error.reason in REASONS else "INTERNAL"
    return REASONS[reason].kind(reason, port_set.error.message, **port_set.error.metadata)


def _bound_elsewhere(port_set: PortSet) -> Unavailable:
    assert port_set.binding is not None
    sandbox = port_set.binding.container_id[:12]
    said = f"{keys.said(port_set.owner.key)}: its set is used by sandbox {sandbox} on node {port_set.node}"
    return Unavailable("SET_BOUND_ELSEWHERE", said, node=port_set.node, container_id=port_set.binding.container_id)

