"""Any order of operations, crashes and reloads: no address with two owners, nothing acknowledged lost, same owner same answer."""

import asyncio
import logging
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog
from harness.manager import Clock, held, network, pooled, start_core, whole
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from knitter_common.errors import KnitterError
from knitter_common.model import Allocation, Bind, Binding, NamedOwner, Node, Owner, PodOwner, PortSet, Return, SandboxOwner, Wish
from knitter_manager.core import Core
from knitter_manager.records import port_set_of
from knitter_manager.store.memory import MemorySpace, MemoryStore
from knitter_manager.store.protocol import Store
from knitter_manager.store.sqlite import SqliteStore

T = TypeVar("T")

OWNERS: tuple[Owner, ...] = (
    PodOwner("admin", "web-0", "u1"),
    PodOwner("admin", "web-1", "u2"),
    SandboxOwner("n1", "c1", "k", "eth0"),
    SandboxOwner("n2", "c2", "k", "eth0"),
    NamedOwner("admin", "vm"),
)
WISHES = (
    (Wish("small"),),
    (Wish("small"), Wish("dual", interface="e1")),
    (Wish("dual", addresses=("10.1.0.5",)),),
    (Wish("small"), Wish("small"), Wish("small")),
    (Wish("wire", mac="02:00:00:00:00:07"),),
)

owners = st.sampled_from(OWNERS)
wishes = st.sampled_from(WISHES)
nodes = st.sampled_from(["", "n1", "n2"])
containers = st.sampled_from(["", "c1", "c2"])


class ManagerMachine(RuleBasedStateMachine):
    """What was acknowledged is remembered here, and compared after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.known: dict[str, PortSet] = {}
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
        return await start_core(await self.store(), self.clock)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """On this machine's own loop."""
        return self.loop.run_until_complete(work)

    async def set_up(self) -> None:
        """Three networks and a node."""
        await self.core.networks.create(network("small", pooled("10.0.0.0/24", ("10.0.0.1", "10.0.0.4"))))
        await self.core.networks.create(network("dual", "10.1.0.0/29", "2001:db8::/125"))
        await self.core.networks.create(network("wire"))
        await self.core.nodes.create(Node("n1"))

    async def tell(self, owner: Owner, work: Any) -> None:
        """Does it, and remembers what the answer says."""
        try:
            record = await work()
        except KnitterError:
            record = self.core.cluster.sets.get(owner.key)
            if record is None or port_set_of(record).error is None:
                return
            assert not port_set_of(record).ports  # a pod's plan that failed is kept, with its error
        self.learn(owner, record)

    def learn(self, owner: Owner, record: bytes | None) -> None:
        """An answer: the set as it is now, or None for none."""
        if record is None:
            self.known.pop(owner.key, None)
        else:
            self.known[owner.key] = port_set_of(record)

    @initialize()
    def begin(self) -> None:
        """Nothing is there."""
        assert not self.core.cluster.sets

    @rule(owner=owners, wanted=wishes, node=nodes, replace=st.booleans())
    def allocate(self, owner: Owner, wanted: tuple[Wish, ...], node: str, replace: bool) -> None:
        """Twice at once: both get the same."""
        asked = Allocation(owner=owner, wishes=wanted, node=node, replace=replace)

        async def twice() -> bytes | None:
            both = [self.core.sets.allocate(asked), self.core.sets.allocate(asked)]
            await asyncio.wait(both)
            first, second = await asyncio.gather(*both)
            assert first == second
            return first

        self.run(self.tell(owner, twice))

    @rule(owner=owners, container=containers, unbind_only=st.booleans())
    def release(self, owner: Owner, container: str, unbind_only: bool) -> None:
        """Ends or unbinds."""
        back = Return(owner, container_id=container, unbind_only=unbind_only)
        self.run(self.tell(owner, lambda: self.core.sets.release(back)))

    @rule(owner=owners, container=st.sampled_from(["c1", "c2"]), node=nodes)
    def bind(self, owner: Owner, container: str, node: str) -> None:
        """A sandbox takes it."""
        self.run(self.tell(owner, lambda: self.core.sets.bind(Bind(owner, Binding(container), node))))

    @rule(wanted=wishes)
    def all_at_once(self, wanted: tuple[Wish, ...]) -> None:
        """Every owner, releasing and allocating in one breath."""

        async def together() -> None:
            work = []
            for number, owner in enumerate(OWNERS):
                if number % 2:
                    work.append(self.tell(owner, lambda owner=owner: self.core.sets.release(Return(owner))))
                asked = Allocation(owner=owner, wishes=wanted, replace=True)
                work.append(self.tell(owner, lambda asked=asked: self.core.sets.allocate(asked)))
            await asyncio.gather(*work)

        self.run(together())

    @rule(seconds=st.sampled_from([1.0, 31.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by, and the sweeper comes."""
        self.clock.now += seconds
        self.run(self.core.sweeper.sweep())

    @rule(wanted=wishes)
    def crash(self, wanted: tuple[Wish, ...]) -> None:
        """In the middle of allocations that may or may not have been written."""

        async def crashed() -> None:
            planned = []
            for owner in OWNERS:
                with_error = Allocation(owner=owner, wishes=wanted, replace=True)
                planned.append(self.core.sets.allocate(with_error))
            await asyncio.sleep(0)
            await self.core.abandon()
            for owner, future in zip(OWNERS, planned, strict=True):
                if future.done() and future.exception() is None:
                    self.learn(owner, future.result())
                elif future.done() and not isinstance(future.exception(), KnitterError):
                    raise AssertionError(repr(future.exception()))
            self.core = await self.opened()
            for owner, future in zip(OWNERS, planned, strict=True):
                if not future.done() or future.exception() is not None:  # unknown: what the store says is true
                    self.learn(owner, self.core.cluster.sets.get(owner.key))

        self.run(crashed())

    @rule()
    def restart(self) -> None:
        """Graceful."""

        async def again() -> None:
            await self.core.stop()
            self.core = await self.opened()

        self.run(again())

    @invariant()
    def nothing_is_lost_and_nothing_is_double(self) -> None:
        """The state is what was acknowledged."""
        sets = {key: port_set_of(record) for key, record in self.core.cluster.sets.items()}
        assert sets == self.known
        owned = held(self.core)
        spaces = [space for entry in self.core.cluster.networks.values() for space in entry.spaces]
        assert sum(pool.held for space in spaces for pool in space.pools) == len(owned)
        for entry in self.core.cluster.networks.values():
            assert not entry.pending
            assert entry.sets == sum(any(port.network_id == entry.network.id for port in one.ports) for one in sets.values())
        tenant = self.core.cluster.tenant("admin")
        assert tenant.addresses == len(owned)
        assert not tenant.pending_addresses
        assert not tenant.pending_ports

    def teardown(self) -> None:
        """What the store holds beside the sets is exactly theirs."""
        self.run(self._final())
        self.loop.close()

    async def _final(self) -> None:
        await whole(self.core)
        owned = held(self.core)
        await self.core.stop()
        store = await self.store()
        found: dict[tuple[str, str], str] = {}
        snapshot = await store.load()
        async for batch in snapshot.batches:
            for record in batch:
                if record.key.startswith("addr/") and record.value:
                    _, network_id, text = record.key.split("/", 2)
                    found[network_id, text] = record.value.decode()
        await store.close()
        assert found == owned


class SqliteMachine(ManagerMachine):
    """The same on a file."""

    def place(self) -> None:
        """A folder of its own."""
        self.folder = tempfile.TemporaryDirectory(prefix="knitter-machine-")

    async def store(self) -> Store:
        """The file once more."""
        return await SqliteStore.open(Path(self.folder.name) / "store.db")

    def teardown(self) -> None:
        """Also removes the folder."""
        super().teardown()
        self.folder.cleanup()


@pytest.mark.parametrize(("machine", "examples"), [(ManagerMachine, 40), (SqliteMachine, 6)])
def test_any_order(machine: type[ManagerMachine], examples: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # hundreds of restarts
    quick = settings(max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=quick)
