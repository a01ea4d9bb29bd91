"""The life of port sets: allocate, bind, unbind, end, give back (design.md, "The unit: a port set").

    reserved ──(owner ends it, a node may carry it)──► lent ──(the node gives it back, or is gone)──► released, its addresses rest
        └───────────────(owner ends it, no node carries it)──────────────────────────────────────────►

A sticky pod's set is not released but kept: the next pod of that namespace and name takes it over, on whatever node; or its
time is over, or somebody releases it by hand.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from knitter_common.addresses import mac as canonical_mac
from knitter_common.errors import REASONS, Denied, Exhausted, Invalid, KnitterError, NotFound, Refused, Stale, Unavailable
from knitter_common.model import (
    MAX_PORTS,
    Allocation,
    Bind,
    Binding,
    NamedOwner,
    Owner,
    PlanError,
    PodOwner,
    PortSet,
    PortSetState,
    Return,
    SandboxOwner,
    Wish,
    default_tenant,
)
from knitter_manager import keys
from knitter_manager.allocation.ending import end, keep, keeps, let_go, lives, rewrite, store
from knitter_manager.allocation.held import HeldBy
from knitter_manager.allocation.jobs import Answer, Attempt, Jobs, Step
from knitter_manager.allocation.plan import Plan
from knitter_manager.allocation.planner import Planner, place_of
from knitter_manager.records import port_set_of
from knitter_manager.state import Cluster


class PortSets:
    """`allowed` raises when this manager must not allocate now (it recovers), `may_write` when it does not write at all.
    `until` tells when a set that is kept from now on ends, in nanoseconds since 1970; 0 means that none is kept."""

    def __init__(
        self,
        cluster: Cluster,
        planner: Planner,
        jobs: Jobs,
        may_write: Callable[[], None],
        allowed: Callable[[], None],
        until: Callable[[], int],
    ) -> None:
        self._cluster, self._planner, self._jobs = cluster, planner, jobs
        self._may_write, self._allowed, self._until = may_write, allowed, until

    def allocate(self, wanted: Allocation) -> "asyncio.Future[Answer]":
        """The owner's set as it is kept, the new one or the one it had. Raises KnitterError, at once or by the future."""
        return self._run(wanted.owner, lambda attempt: self._try_to_allocate(wanted, attempt))

    def bind(self, bind: Bind) -> "asyncio.Future[Answer]":
        """The set as it is kept, now used by that sandbox. Raises as `allocate`."""
        return self._run(bind.owner, lambda _: self._bind(bind))

    def release(self, give_back: Return) -> "asyncio.Future[Answer]":
        """Ends the reservation, or (`unbind_only`) the use of a set. Raises as `allocate`."""
        return self._run(give_back.owner, lambda _: self._release(give_back))

    def expire(self, owner: Owner, now: int) -> "asyncio.Future[Answer]":
        """Ends a kept set whose time is over; `now` is in nanoseconds since 1970. Raises as `allocate`."""

        def step(_: Attempt) -> Plan | Answer:
            record = self._cluster.sets.get(owner.key)
            before = port_set_of(record) if record is not None else None
            over = before is not None and before.state is PortSetState.KEPT and before.expire_time <= now
            return end(self._cluster, before) if before is not None and over else record

        return self._run(owner, step)

    def end_for_good(self, owner: Owner) -> "asyncio.Future[Answer]":
        """Ends a set that does not live, kept or not. Raises as `allocate`."""

        def step(_: Attempt) -> Plan | Answer:
            record = self._cluster.sets.get(owner.key)
            before = port_set_of(record) if record is not None else None
            return record if before is None or lives(before) else end(self._cluster, before)

        return self._run(owner, step)

    async def end_by_hand(self, owner: Owner, revision: int, force: bool) -> PortSet | None:
        """Ends a set that is not in use, kept or not, or with `force` any; returns it as it was, None for none.

        Raises Refused(OBJECT_IN_USE), Stale(REVISION_STALE), and as `allocate`.
        """
        before: PortSet | None = None

        def step(_: Attempt) -> Plan | Answer:
            nonlocal before
            record = self._cluster.sets.get(owner.key)
            before = port_set_of(record) if record is not None else None
            if before is None:
                return None
            _refuse_other_revision(before, revision)
            why = "" if force else self._used(before)
            if why:
                said = f"{keys.said(owner.key)} has {', '.join(_texts(before)) or 'no address'}, and {why}"
                raise Refused("OBJECT_IN_USE", said, owner=owner.key, node=before.node)
            return end(self._cluster, before)

        await self._run(owner, step)
        return before

    def without_node(self, owner: Owner, node: str) -> "asyncio.Future[Answer]":
        """The set's node is gone: lent sets and those of its sandboxes end, reservations wait for another node."""
        return self._run(owner, lambda _: self._without_node(owner, node))

    def _run(self, owner: Owner, step: Step) -> "asyncio.Future[Answer]":
        self._may_write()
        return self._jobs.run(turn_of(owner), owner.key, step)

    # -- allocate --------------------------------------------------------------------------------------------------------

    def _try_to_allocate(self, wanted: Allocation, attempt: Attempt) -> Plan | Answer:
        """A pod's newest plan that fails is stored with its error, where the pod has no ports yet: so its ADD fails at once,
        and says why. The caller is told the same error."""
        try:
            return self._allocate(wanted, attempt)
        except HeldBy as held:
            if not wanted.replace:
                raise
            error = held.error("another owner")
        except (Invalid, NotFound, Refused, Exhausted, Denied) as refused:
            error = refused
        record = self._cluster.sets.get(wanted.owner.key)
        before = port_set_of(record) if record is not None else None
        if not wanted.replace or not isinstance(wanted.owner, PodOwner) or (before is not None and before.ports):
            raise error
        after = PortSet(
            owner=wanted.owner,
            tenant=wanted.tenant or default_tenant(wanted.owner),
            node=wanted.node,
            wishes=wanted.wishes[:MAX_PORTS],
            error=PlanError(error.reason, error.message, error.metadata),
            state=PortSetState.FAILED,
            create_time=before.create_time if before else self._planner.wall(),
            labels=wanted.labels,
            sticky=wanted.sticky,
        )
        if before is not None and after == replace(before, revision=0):
            raise error
        plan = store(Plan(), before, after)
        plan.failure = error
        return plan

    def _allocate(self, wanted: Allocation, attempt: Attempt) -> Plan | Answer:
        _refuse_taken_mac(wanted, attempt)
        record = self._cluster.sets.get(wanted.owner.key)
        before = port_set_of(record) if record is not None else None
        if record is None or before is None or before.state is PortSetState.FAILED:
            self._allowed()
            return self._first(wanted, before, attempt)
        tenant = wanted.tenant or default_tenant(wanted.owner)
        if before.error is None and before.tenant == tenant and _plain(before.wishes) == _plain(wanted.wishes):
            return self._take_up(before, wanted, record)
        if not wanted.replace and before.error is None:
            said = f"{keys.said(wanted.owner.key)} has a set with other wishes, of revision {before.revision}"
            raise Refused("OWNER_HAS_OTHER_WISHES", said, revision=before.revision)
        self._allowed()
        return self._replace(wanted, before, attempt)

    def _first(self, wanted: Allocation, failed: PortSet | None, attempt: Attempt) -> Plan:
        """The owner's first ports; `failed` is its set without any, if it has one."""
        earlier = self._earlier(wanted)
        place = earlier or failed
        plan, after = self._planner.plan(wanted, place, attempt.number)
        let_go(plan, self._cluster, place, after)
        store(plan, place, after)
        plan.conditions[keys.port_set(wanted.owner.key)] = failed.revision if failed else 0
        return plan

    def _earlier(self, wanted: Allocation) -> PortSet | None:
        """The set of an earlier pod of that name that this one takes over. Raises Unavailable while a node has not given it
        back."""
        if not wanted.sticky or not isinstance(wanted.owner, PodOwner):
            return None
        owner_key = self._cluster.sticky.get(f"{wanted.owner.namespace}/{wanted.owner.name}")
        if owner_key is None:
            return None
        before = port_set_of(self._cluster.sets[owner_key])
        if before.state is PortSetState.LENT or self._carried(before, sandbox_ended=False):
            raise _bound_elsewhere(before)
        return before if before.tenant == (wanted.tenant or default_tenant(wanted.owner)) else None

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
            after = replace(after, state=PortSetState.RESERVED, expire_time=0)
        return record if after == replace(before, revision=0) else rewrite(before, after)

    def _replace(self, wanted: Allocation, before: PortSet, attempt: Attempt) -> Plan:
        if before.binding is not None:
            if wanted.node and wanted.node != before.node:
                raise _bound_elsewhere(before)
            wanted = replace(wanted, binding=wanted.binding or before.binding, node=before.node)
        plan, after = self._planner.plan(wanted, before, attempt.number)
        let_go(plan, self._cluster, before, after)
        return store(plan, before, after)

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
        after = replace(before, binding=bind.binding, node=bind.node or before.node)
        if before.state is PortSetState.KEPT:
            after = replace(after, state=PortSetState.RESERVED, expire_time=0)
        elif _same_sandbox(bind.binding, before.binding) and after.node == before.node:
            return record
        return rewrite(before, after)

    # -- release ---------------------------------------------------------------------------------------------------------

    def _release(self, give_back: Return) -> Plan | Answer:
        record = self._cluster.sets.get(give_back.owner.key)
        if record is None:
            return None
        before = port_set_of(record)
        _refuse_other_revision(before, give_back.revision)
        if give_back.container_id and before.binding and before.binding.container_id != give_back.container_id:
            return record  # a late word of an old sandbox
        if before.state is PortSetState.KEPT and (give_back.container_id or give_back.unbind_only):
            return record  # a late word of the node that had it; who ends it by hand names no sandbox
        if give_back.unbind_only:
            if before.state is PortSetState.LENT:
                return self._end(before)
            return record if before.binding is None else rewrite(before, replace(before, binding=None))
        if self._carried(before, bool(give_back.container_id)):
            return record if before.state is PortSetState.LENT else rewrite(before, replace(before, state=PortSetState.LENT))
        return self._end(before)

    def _used(self, before: PortSet) -> str:
        """Why a set is not to be ended by hand, "" where it may be."""
        on = f" on node {before.node}" if before.node else ""
        if before.binding is not None:
            return f"sandbox {before.binding.container_id[:12]}{on} uses them"
        if before.state is PortSetState.LENT:
            return f"node {before.node} has not given them back; wait for it, or forget it when it is gone"
        if isinstance(before.owner, PodOwner) and before.state is PortSetState.RESERVED:
            return "they are reserved for it as long as it is there; delete the pod"
        return ""

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

    def _end(self, before: PortSet) -> Plan:
        until = self._until() if keeps(before) else 0
        return keep(before, until) if until else end(self._cluster, before)

    def _without_node(self, owner: Owner, node: str) -> Plan | Answer:
        record = self._cluster.sets.get(owner.key)
        if record is None:
            return None
        before = port_set_of(record)
        if before.node != node:
            return record
        if before.state is PortSetState.LENT or isinstance(owner, SandboxOwner):
            plan = self._end(before)
        else:
            plan = rewrite(before, replace(before, node="", binding=None))
        for port in before.ports:  # the machine may still run, and carry them until it is heard of
            plan.puts[keys.owed(port.network_id, node)] = b""
        return plan


def _refuse_other_revision(before: PortSet, revision: int) -> None:
    if revision and revision != before.revision:
        said = f"{keys.said(before.owner.key)}: its set is at revision {before.revision}, not {revision}"
        raise Stale("REVISION_STALE", said, revision=before.revision)


def _texts(port_set: PortSet) -> list[str]:
    return [one.cidr.partition("/")[0] for port in port_set.ports for one in port.addresses]


def turn_of(owner: Owner) -> str:
    """Operations of the same turn wait for one another: of one owner, and of all pods of one name, of which one takes over
    from another."""
    return f"pod/{owner.namespace}/{owner.name}" if isinstance(owner, PodOwner) else owner.key


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
    who, sandbox = keys.said(port_set.owner.key), port_set.binding.container_id if port_set.binding is not None else ""
    uses = f"is used by sandbox {sandbox[:12]} on node {port_set.node}" if sandbox else f"was sent to node {port_set.node}"
    said = f"{who} (UID {port_set.owner.uid})" if isinstance(port_set.owner, PodOwner) else who
    return Unavailable(
        "SET_BOUND_ELSEWHERE", f"{said}: its set {uses}, which has not given it back", node=port_set.node, container_id=sandbox
    )
