"""knitter_agent.manager_client against a real gRPC server: gathered, resent, given back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from harness.agent import SmallManager

from knitter.v1 import manager_pb2, types_pb2
from knitter_agent.manager_client import Granted, ManagerClient
from knitter_common import convert
from knitter_common.errors import Exhausted, Unavailable
from knitter_common.managers import Backoff, Managers
from knitter_common.model import Allocation, Owner, Return, SandboxOwner, Wish


def _owner(granted: Granted) -> Owner:
    return convert.owner_from_proto(types_pb2.PortSet.FromString(granted.encoded).owner)


def _wanted(number: int = 1) -> Allocation:
    return Allocation(SandboxOwner("node1", f"c{number}", "knitter", "eth0"), wishes=(Wish(interface="eth0"),))


async def _no_journal(_: Managers) -> None:
    return


@asynccontextmanager
async def _client(manager: SmallManager) -> AsyncIterator[ManagerClient]:
    client = ManagerClient(Managers([manager.address]), _no_journal, Backoff(first=0.01, most=0.05))
    client.start()
    yield client
    await client.close()


async def test_many_at_once_are_answered_each_with_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async with SmallManager() as manager, _client(manager) as client:
        granted = await asyncio.gather(*(client.allocate(_wanted(number), 5) for number in range(50)))
        assert [_owner(one).key for one in granted] == [_wanted(number).owner.key for number in range(50)]
        await asyncio.gather(*(client.release(Return(_wanted(number).owner)) for number in range(50)))
        assert not manager.sets.held


async def test_a_refusal_is_told_and_the_stream_goes_on() -> None:
    async with SmallManager() as manager, _client(manager) as client:
        manager.sets.refuse = Exhausted("POOL_EXHAUSTED", "full", network="t1/a")
        with pytest.raises(Exhausted) as caught:
            await client.allocate(_wanted(), 5)
        assert caught.value.metadata == {"network": "t1/a"}
        manager.sets.refuse = None
        assert (await client.allocate(_wanted(), 5)).ports


async def test_what_passes_is_waited_for_and_told_when_the_patience_is_over() -> None:
    async with SmallManager() as manager, _client(manager) as client:
        manager.sets.refuse = Unavailable("STORE_UNAVAILABLE", "etcd elects")
        waiting = asyncio.create_task(client.allocate(_wanted(), 20))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        with pytest.raises(Unavailable, match="etcd elects") as caught:
            await client.allocate(_wanted(2), 0.3)
        assert caught.value.reason == "STORE_UNAVAILABLE"
        manager.sets.refuse = None
        assert (await waiting).ports
        assert list(manager.sets.held) == [_wanted().owner.key]


async def test_no_manager_is_told_in_time() -> None:
    client = ManagerClient(Managers(["unix:/nonexistent/manager.sock"]), _no_journal)
    client.start()
    with pytest.raises(Unavailable) as caught:
        await client.allocate(_wanted(), 0.2)
    assert caught.value.reason == "MANAGER_UNAVAILABLE"
    assert not client.connected
    await client.close()


async def test_a_release_waits_for_the_manager_to_come_back() -> None:
    async with SmallManager() as manager, _client(manager) as client:
        await client.allocate(_wanted(), 5)
        await manager.stop()
        releasing = asyncio.create_task(client.release(Return(_wanted().owner)))
        await asyncio.sleep(0.1)
        assert not releasing.done()
        await manager.start()
        async with asyncio.timeout(5):
            await releasing
        assert not manager.sets.held


async def test_what_was_unanswered_when_the_stream_broke_is_sent_again() -> None:
    async with SmallManager() as manager, _client(manager) as client:
        await client.allocate(_wanted(0), 5)
        manager.delay = 30
        allocating = asyncio.create_task(client.allocate(_wanted(1), 5))
        await asyncio.sleep(0.05)
        await manager.stop()
        manager.delay = 0
        await manager.start()
        assert (await allocating).ports


async def test_an_allocation_nobody_waits_for_is_given_back() -> None:
    async with SmallManager() as manager, _client(manager) as client:
        await client.allocate(_wanted(0), 5)
        manager.delay = 0.1
        with pytest.raises(Unavailable):
            await client.allocate(_wanted(1), 0.05)
        granted = await client.allocate(_wanted(1), 5)  # waits until the first is given back
        assert [back.owner.key for back in manager.sets.released] == [_wanted(1).owner.key]
        assert _wanted(1).owner.key in manager.sets.held
        assert _owner(granted) == _wanted(1).owner


async def test_an_allocation_that_was_not_sent_is_never_sent() -> None:
    async with SmallManager() as manager, _client(manager) as client:
        await client.allocate(_wanted(0), 5)
        await manager.stop()
        async with asyncio.timeout(5):
            while client.connected:  # noqa: ASYNC110 - another task's doing
                await asyncio.sleep(0.01)
        with pytest.raises(Unavailable):
            await client.allocate(_wanted(1), 0.1)
        await manager.start()
        await client.allocate(_wanted(2), 5)
        assert [one.owner.key for one in manager.sets.allocated] == [_wanted(0).owner.key, _wanted(2).owner.key]
        assert not manager.sets.released


async def _told(managers: Managers) -> None:
    await managers.call(lambda manager: manager.Reconcile, manager_pb2.ReconcileRequest(), within=5)


async def test_the_writer_is_found_and_followed() -> None:
    async with SmallManager() as first, SmallManager() as second:
        first.writer = second.address
        client = ManagerClient(Managers([first.address]), _told, Backoff(first=0.01, most=0.05))
        client.start()
        await client.allocate(_wanted(0), 5)
        assert (len(first.sets.held), len(second.sets.held)) == (0, 1)
        first.writer, second.writer = "", first.address  # the writer hands over while the stream is open
        await client.allocate(_wanted(1), 5)
        await client.release(Return(_wanted(0).owner))
        assert list(first.sets.held) == [_wanted(1).owner.key]
        await client.close()


async def test_another_manager_is_asked_when_one_is_away() -> None:
    async with SmallManager() as second:
        client = ManagerClient(Managers(["unix:/nonexistent/manager.sock", second.address]), _told, Backoff(first=0.01, most=0.05))
        client.start()
        await client.allocate(_wanted(0), 5)
        assert second.sets.held
        await client.close()


async def test_closing_ends_who_waits() -> None:
    async with SmallManager() as manager:
        client = ManagerClient(Managers([manager.address]), _no_journal)
        client.start()
        await client.allocate(_wanted(0), 5)
        manager.delay = 30
        waiting = asyncio.create_task(client.release(Return(_wanted(0).owner)))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(Unavailable):
            await waiting
