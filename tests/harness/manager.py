"""A manager in the test's own process: its core on any store with a clock that the test moves, or all of it behind gRPC on port 0.

async with core_on(await site.open(), clock=clock) as core:      # loaded, and writing
    await core.networks.create(network("control", "10.1.0.0/24"))
    ports = await allocate(core, named("a"), Wish(network="control"))

async with serving(store) as stub: …
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from knitter.v1 import manager_pb2, manager_pb2_grpc
from knitter_common.model import Allocation, NamedOwner, Network, Owner, Pool, PortSet, Return, Subnet, Wish
from knitter_common.settings import parse
from knitter_manager.config import ManagerSettings
from knitter_manager.core import Core
from knitter_manager.daemon import ManagerDaemon
from knitter_manager.records import port_set_of
from knitter_manager.store import Store


class Clock:
    """A monotonic clock in seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def settings(**keys: Any) -> ManagerSettings:
    """The manager's settings, keys as in the file."""
    return parse(ManagerSettings, {"listen": "127.0.0.1:0", "store": {"kind": "memory"}, "heartbeat": 0.2, **keys}, "test")


@contextlib.asynccontextmanager
async def core_on(store: Store, clock: Clock | None = None, name: str = "writer:1", **keys: Any) -> AsyncIterator[Core]:
    """A core that has loaded and writes. It closes the store at the end, where all must fit together."""
    core = await start_core(store, clock, name, **keys)
    try:
        yield core
        await whole(core)
    finally:
        await core.stop()


async def whole(core: Core) -> None:
    """What the store has fits together, and the core knows the same; unless the test has ended it already."""
    if not core.role.ending.is_set():
        found = [one.message for response in [one async for one in core.checker.check(False)] for one in response.findings]
        assert found == []


async def start_core(store: Store, clock: Clock | None = None, name: str = "writer:1", **keys: Any) -> Core:
    """As `core_on`; the caller ends it, by `stop` or by `abandon`."""
    core = Core(settings(**keys), store, clock or Clock())
    await core.load()
    await core.lead(name)
    return core


@contextlib.asynccontextmanager
async def serving(store: Store | None = None, **keys: Any) -> AsyncIterator[tuple[Any, grpc.aio.Channel]]:
    """A whole manager on port 0: its stub and the channel. At the end all that it holds must fit together."""
    daemon = ManagerDaemon(settings(**keys), store)
    try:
        address = await daemon.start()
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = manager_pb2_grpc.ManagerServiceStub(channel)
            yield stub, channel
            responses = [response async for response in stub.CheckState(manager_pb2.CheckStateRequest())]
            assert [one.message for response in responses for one in response.findings] == []
    finally:
        await daemon.stop()


def network(name: str, *cidrs: str | Subnet, tenant: str = "admin", **fields: Any) -> Network:
    """A network with these subnets."""
    subnets = tuple(one if isinstance(one, Subnet) else Subnet(one) for one in cidrs)
    return Network(tenant=tenant, name=name, subnets=subnets, **fields)


def pooled(cidr: str, *ranges: tuple[str, str], **fields: Any) -> Subnet:
    """A subnet with pools."""
    return Subnet(cidr, pools=tuple(Pool(start, end) for start, end in ranges), **fields)


def named(name: str, tenant: str = "admin") -> NamedOwner:
    """An owner by name."""
    return NamedOwner(tenant, name)


async def allocate(core: Core, owner: Owner, *wishes: Wish, **fields: Any) -> PortSet:
    """The owner's set."""
    record = await core.sets.allocate(Allocation(owner=owner, wishes=wishes, **fields))
    assert record is not None
    return port_set_of(record)


async def release(core: Core, owner: Owner, **fields: Any) -> None:
    """Ends the owner's reservation, or what the fields say."""
    await core.sets.release(Return(owner=owner, **fields))


def addresses(port_set: PortSet) -> list[str]:
    """All addresses of a set, without prefix length."""
    return [one.cidr.partition("/")[0] for port in port_set.ports for one in port.addresses]


def held(core: Core) -> dict[tuple[str, str], str]:
    """Who holds which address, from the sets themselves: (network id, address) → owner's key. Fails on an address with two
    owners."""
    found: dict[tuple[str, str], str] = {}
    for owner_key, record in core.cluster.sets.items():
        for port in port_set_of(record).ports:
            for one in port.addresses:
                place = (port.network_id, one.cidr.partition("/")[0])
                assert place not in found, f"{place} has two owners: {found[place]} and {owner_key}"
                found[place] = owner_key
    return found


def owners(sets: Sequence[PortSet]) -> list[str]:
    """Their owners' keys."""
    return [one.owner.key for one in sets]
