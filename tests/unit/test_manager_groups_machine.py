"""IP groups, claims and sticky pods in any order, with crashes and restarts: no address with two owners, a group's addresses are
the group's, a claim's are the claim's, and what fails has changed nothing."""

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog
from harness.manager import Clock, held, network, pooled, settings, whole
from hypothesis import HealthCheck
from hypothesis import settings as effort
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from knitter_common.errors import KnitterError
from knitter_common.model import (
    Allocation,
    Bind,
    Binding,
    IPClaim,
    IPGroup,
    LabelSelector,
    NamedOwner,
    Node,
    Owner,
    PodOwner,
    PortSet,
    PortSetState,
    Return,
    Wish,
)
from knitter_manager.core import Core
from knitter_manager.records import port_set_of
from knitter_manager.store.memory import MemorySpace, MemoryStore
from knitter_manager.store.protocol import Store
from knitter_manager.store.sqlite import SqliteStore

T = TypeVar("T")

STICKY_TTL = 100.0  # seconds
OWNERS: tuple[Owner, ...] = (
    PodOwner("t1", "web-0", "u1"),
    PodOwner("t1", "web-0", "u2"),
    PodOwner("t1", "web-0", "u3"),
    PodOwner("t1", "web-1", "u4"),
    NamedOwner("t1", "vm"),
)
GROUPS = (("t1", "own"), ("admin", "own"), ("admin", "other"))
LISTS: tuple[tuple[str, ...], ...] = (
    (),
    ("10.0.0.2", "10.0.0.3"),
    ("10.0.0.3", "2001:db8::3", "10.0.0.7"),
    ("10.0.0.11", "2001:db8::4", "2001:db8::5"),
)
WISHES = (
    (Wish("small"),),
    (Wish("small", ip_group="own"),),
    (Wish("small", ip_group="other"), Wish("small", interface="e1")),
    (Wish("small", addresses=("10.0.0.3",)), Wish("spare", interface="e1")),
    (Wish("small", ip_claim="a"),),
    (Wish("small", ip_claim="a"), Wish("small", interface="e1", ip_claim="b"), Wish("small", interface="e2", ip_group="own")),
)
LABELS: tuple[dict[str, str], ...] = ({}, {"app": "web"})

owners = st.sampled_from(OWNERS)
wishes = st.sampled_from(WISHES)
groups = st.sampled_from(GROUPS)
lists = st.sampled_from(LISTS)
sizes = st.sampled_from([0, 1, 3, 40])
selectors = st.sampled_from([None, LabelSelector({"app": "web"})])
claims = st.sampled_from(["a", "b"])
seldom = st.sampled_from([False, False, False, True])
mostly = st.sampled_from([True, True, False])
wanted_addresses = st.sampled_from([(), ("10.0.0.5",), ("10.0.0.3", "2001:db8::6")])


class GroupsMachine(RuleBasedStateMachine):
    """What was acknowledged is remembered here, and compared after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.groups: dict[tuple[str, str], tuple[str, ...]] = {}
        self.claims: dict[str, tuple[str, ...]] = {}
        self.place()
        self.core = self.run(self.opened())
        self.run(self.set_up())

    def place(self) -> None:
        """Where the store lies."""
        self.space = self.run(self._space())

    async def _space(self) -> MemorySpace:
        return MemorySpace()

    async def store(self) -> Store:
        """Another process's view of it."""
        return MemoryStore(self.space)

    async def opened(self) -> Core:
        """A manager that writes."""
        core = Core(settings(stickyTtl=STICKY_TTL), await self.store(), self.clock, lambda: int(self.clock.now * 1e9))
        await core.load()
        await core.lead("writer:1")
        return core

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """On this machine's own loop."""
        return self.loop.run_until_complete(work)

    async def set_up(self) -> None:
        """Two networks of the tenant and a node; a pool that is nearly too small."""
        subnet = pooled("10.0.0.0/28", ("10.0.0.1", "10.0.0.8"))
        await self.core.networks.create(network("small", subnet, "2001:db8::/124", tenant="t1"))
        await self.core.networks.create(network("spare", "10.1.0.0/29", tenant="t1"))
        await self.core.nodes.create(Node("n1"))
        for (tenant, name), ips in (GROUPS[0], LISTS[2]), (GROUPS[2], LISTS[3]):
            await self.core.groups.create(IPGroup(tenant, name, "t1/small", ips=ips))
            self.groups[tenant, name] = ips
        for name in ("a", "b"):
            claim = await self.core.claims.create(IPClaim("t1", name, "small"))
            self.claims[name] = tuple(one.cidr for one in claim.addresses)

    def attempt(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """What it answers; what is refused has changed nothing."""

        async def attempted() -> T | None:
            await asyncio.sleep(0)
            before = self.picture()
            try:
                return await work()
            except KnitterError:
                assert self.picture() == before
                return None

        return self.run(attempted())

    def picture(self) -> Any:
        """All that anybody holds or has set aside; not that a pod's plan has failed."""
        cluster = self.core.cluster
        aside = {key: group.group for entry in cluster.networks.values() for key, group in entry.groups.items()}
        sets = {key: record for key, record in cluster.sets.items() if port_set_of(record).error is None}
        return sets, dict(cluster.claims), aside

    # -- groups ----------------------------------------------------------------------------------------------------------

    @rule(at=groups, ips=lists, size=sizes, selector=selectors, update=st.booleans())
    def declare_group(self, at: tuple[str, str], ips: tuple[str, ...], size: int, selector: Any, update: bool) -> None:
        """By list, or by count where there is no list."""
        group = IPGroup(at[0], at[1], "t1/small", ips=ips, size=0 if ips else size, pod_selector=selector)
        told = self.attempt(lambda: self.core.groups.update(group) if update else self.core.groups.create(group))
        if told is not None:
            found = tuple(one.address for one in told.addresses)
            assert found == ips or (not ips and len(found) == 2 * size)
            self.groups[at] = found

    @rule(at=groups, sure=seldom)
    def delete_group(self, at: tuple[str, str], sure: bool) -> None:
        """Unless it is used."""
        if not sure:
            return

        async def gone() -> bool:
            await self.core.groups.delete(at[0], "t1/small", at[1], 0, "")
            return True

        if self.attempt(gone):
            self.groups.pop(at, None)

    # -- claims ----------------------------------------------------------------------------------------------------------

    @rule(name=claims, wanted=wanted_addresses, update=st.booleans())
    def declare_claim(self, name: str, wanted: tuple[str, ...], update: bool) -> None:
        """With addresses of its own."""
        claim = IPClaim("t1", name, "small", wanted_addresses=wanted)
        told = self.attempt(lambda: self.core.claims.update(claim) if update else self.core.claims.create(claim))
        if told is not None:
            self.claims[name] = tuple(one.cidr for one in told.addresses)

    @rule(name=claims, sure=seldom)
    def delete_claim(self, name: str, sure: bool) -> None:
        """Unless it is used."""
        if not sure:
            return

        async def gone() -> bool:
            await self.core.claims.delete("t1", name, 0, "")
            return True

        if self.attempt(gone):
            self.claims.pop(name, None)

    # -- sets ------------------------------------------------------------------------------------------------------------

    @rule(owner=owners, wanted=wishes, node=st.sampled_from(["", "n1", "n2"]), labels=st.sampled_from(LABELS), sticky=mostly,
          newest=st.booleans())  # fmt: skip
    def allocate(
        self, owner: Owner, wanted: tuple[Wish, ...], node: str, labels: dict[str, str], sticky: bool, newest: bool
    ) -> None:
        """Also in the place of an earlier pod."""
        asked = Allocation(owner=owner, wishes=wanted, node=node, labels=labels, sticky=sticky, replace=newest)
        self.attempt(lambda: self.core.sets.allocate(asked))

    @rule(owner=owners, container=st.sampled_from(["", "c1"]), unbind_only=st.booleans())
    def release(self, owner: Owner, container: str, unbind_only: bool) -> None:
        """Ends, keeps or unbinds."""
        self.attempt(lambda: self.core.sets.release(Return(owner, container_id=container, unbind_only=unbind_only)))

    @rule(owner=owners, node=st.sampled_from(["n1", "n2"]))
    def bind(self, owner: Owner, node: str) -> None:
        """A sandbox takes it."""
        self.attempt(lambda: self.core.sets.bind(Bind(owner, Binding("c1"), node)))

    @rule(wanted=wishes, sticky=st.booleans())
    def all_at_once(self, wanted: tuple[Wish, ...], sticky: bool) -> None:
        """Every owner, a group and a claim in one breath."""

        async def together() -> None:
            work: list[Awaitable[Any]] = [
                self.core.sets.allocate(Allocation(owner=owner, wishes=wanted, sticky=sticky, replace=True)) for owner in OWNERS
            ]
            work.append(self.core.groups.create(IPGroup("admin", "other", "t1/small", ips=LISTS[1])))
            work.append(self.core.claims.create(IPClaim("t1", "b", "small")))
            *_, group, claim = await asyncio.gather(*work, return_exceptions=True)
            if isinstance(group, IPGroup):
                self.groups["admin", "other"] = tuple(one.address for one in group.addresses)
            if isinstance(claim, IPClaim):
                self.claims["b"] = tuple(one.cidr for one in claim.addresses)

        self.run(together())

    # -- time and trouble --------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 31.0, STICKY_TTL + 1]))
    def wait(self, seconds: float) -> None:
        """Time goes by, and the sweeper comes: no kept set outlives its time."""
        self.clock.now += seconds
        self.run(self.core.sweeper.sweep())
        for port_set in self.sets():
            assert port_set.state is not PortSetState.KEPT or port_set.expire_time > self.clock.now * 1e9

    @rule(wanted=wishes, size=sizes)
    def crash(self, wanted: tuple[Wish, ...], size: int) -> None:
        """In the middle of things that may or may not have been written: then the store says what is."""

        async def crashed() -> None:
            work: list[asyncio.Future[Any]] = [
                self.core.sets.allocate(Allocation(owner=owner, wishes=wanted, replace=True, sticky=True)) for owner in OWNERS
            ]
            work.append(asyncio.ensure_future(self.core.groups.create(IPGroup("t1", "own", "t1/small", size=size))))
            work.append(asyncio.ensure_future(self.core.claims.create(IPClaim("t1", "a", "small"))))
            await asyncio.sleep(0)
            await self.core.abandon()
            for one in work:
                one.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self.core.jobs.close()
            self.core = await self.opened()
            self.groups.clear()
            self.claims.clear()
            for entry in self.core.cluster.networks.values():
                for group in entry.groups.values():
                    self.groups[group.group.tenant, group.group.name] = tuple(one.address for one in group.group.addresses)
            for claim in self.core.cluster.claims.values():
                self.claims[claim.name] = tuple(one.cidr for one in claim.addresses)

        self.run(crashed())

    @rule()
    def restart(self) -> None:
        """Graceful."""

        async def again() -> None:
            await self.core.stop()
            self.core = await self.opened()

        self.run(again())

    # -- what must hold ------------------------------------------------------------------------------------------------------

    def sets(self) -> list[PortSet]:
        """All port sets."""
        return [port_set_of(record) for record in self.core.cluster.sets.values()]

    @invariant()
    def groups_and_claims_are_what_was_answered(self) -> None:
        """Neither more nor less."""
        cluster = self.core.cluster
        found = {
            (group.group.tenant, group.group.name): tuple(one.address for one in group.group.addresses)
            for entry in cluster.networks.values()
            for group in entry.groups.values()
        }
        assert found == self.groups
        assert {claim.name: tuple(one.cidr for one in claim.addresses) for claim in cluster.claims.values()} == self.claims

    @invariant()
    def addresses_are_where_they_belong(self) -> None:
        """One owner each; a group's only by the group, a claim's only by the claim, and counted as such."""
        claimed = {cidr.partition("/")[0] for cidrs in self.claims.values() for cidr in cidrs}
        aside = [address for addresses in self.groups.values() for address in addresses]
        assert len(aside) == len(set(aside))
        assert claimed.isdisjoint(aside)
        used_by = {claim.name: claim.used_by for claim in self.core.cluster.claims.values()}
        users = dict.fromkeys(used_by)
        for port_set in self.sets():
            for at, port in enumerate(port_set.ports):
                addresses = {one.cidr.partition("/")[0] for one in port.addresses}
                name = port_set.wishes[at].ip_claim
                if name:
                    assert tuple(one.cidr for one in port.addresses) == self.claims[name]
                    users[name] = port_set.owner
                    continue
                assert addresses.isdisjoint(claimed)
                if port.network == "t1/small" and not addresses.isdisjoint(aside):
                    assert port.ip_group
                    assert addresses & set(aside) <= {
                        one for (_, group), mine in self.groups.items() for one in mine if group == port.ip_group
                    }
        assert users == used_by
        self.counted(len(claimed))

    def counted(self, claimed: int) -> None:
        """The pools and the tenant count what is held."""
        owned = held(self.core)
        unused = sum(len(claim.addresses) for claim in self.core.cluster.claims.values() if claim.used_by is None)
        spaces = [space for entry in self.core.cluster.networks.values() for space in entry.spaces]
        pools = [pool for space in spaces for pool in space._all()]
        assert sum(pool.held for pool in pools) == len(owned) + unused
        tenant = self.core.cluster.tenant("t1")
        assert tenant.addresses == len(owned) + unused
        assert not tenant.pending_addresses
        assert not any(entry.pending for entry in self.core.cluster.networks.values())

    def teardown(self) -> None:
        """What the store holds beside sets and claims is exactly theirs."""
        self.run(self._final())
        self.run(self._buried())
        self.loop.close()

    async def _buried(self) -> None:
        """What managers that were killed have left is ended."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _final(self) -> None:
        await whole(self.core)
        cluster = self.core.cluster
        expected = held(self.core)
        for claim in cluster.claims.values():
            entry = cluster.names.at(claim.network)
            assert entry is not None
            for one in claim.addresses:
                expected[entry.network.id, one.cidr.partition("/")[0]] = f"claim/t1/{claim.name}"
        await self.core.stop()
        store = await self.store()
        found: dict[tuple[str, str], str] = {}
        async for batch in (await store.load()).batches:
            for record in batch:
                if record.key.startswith("addr/") and record.value:
                    _, network_id, text = record.key.split("/", 2)
                    found[network_id, text] = record.value.decode()
        await store.close()
        assert found == expected


class SqliteGroupsMachine(GroupsMachine):
    """The same on a file."""

    def place(self) -> None:
        """A folder of its own."""
        self.folder = tempfile.TemporaryDirectory(prefix="knitter-groups-")

    async def store(self) -> Store:
        """The file once more."""
        return await SqliteStore.open(Path(self.folder.name) / "store.db")

    def teardown(self) -> None:
        """Also removes the folder."""
        super().teardown()
        self.folder.cleanup()


@pytest.mark.parametrize(("machine", "examples"), [(GroupsMachine, 40), (SqliteGroupsMachine, 5)])
def test_any_order(machine: type[GroupsMachine], examples: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # hundreds of restarts
    quick = effort(max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=quick)
