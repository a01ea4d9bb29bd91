"""knitter_common.managers: one of several managers writes, and calls find it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import manager_pb2_grpc
from knitter_common.errors import KnitterError, Refused, Unavailable
from knitter_common.managers import Backoff, Managers
from knitter_common.serve import GrpcServer, ServerSettings

Answer = Callable[[], None]


class _Manager(manager_pb2_grpc.ManagerServiceServicer):
    """Answers GetTenant as its `answer` says, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.answer: Answer = lambda: None
        self.hangs = False

    async def GetTenant(self, request: pb.GetTenantRequest, context: Any) -> pb.GetTenantResponse:
        self.calls += 1
        self.answer()
        if self.hangs:
            await asyncio.Event().wait()
        return pb.GetTenantResponse(tenant={"name": request.name})


Start = Callable[[], Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    servers = []

    async def begin() -> tuple[_Manager, str, GrpcServer]:
        manager = _Manager()
        server = GrpcServer("127.0.0.1:0", ServerSettings(grace=0.1), ["knitter.v1.ManagerService"])
        manager_pb2_grpc.add_ManagerServiceServicer_to_server(manager, server.grpc)
        servers.append(server)
        return manager, await server.start(), server

    yield begin
    for server in servers:
        await server.stop()


def _raises(error: KnitterError) -> Answer:
    def answer() -> None:
        raise error

    return answer


async def test_a_call_follows_the_writer_that_is_named_even_unlisted(start: Start) -> None:
    follower, address, _ = await start()
    writer, other, _ = await start()
    follower.answer = _raises(Unavailable("NOT_WRITER", "not me", writer=other))
    managers = Managers([address])
    response = await managers.call(lambda manager: manager.GetTenant, pb.GetTenantRequest(name="t1"), within=5)
    assert response.tenant.name == "t1"
    await managers.call(lambda manager: manager.GetTenant, pb.GetTenantRequest(name="t1"), within=5)
    assert (follower.calls, writer.calls, managers.current) == (1, 2, other)
    await managers.close()


async def test_a_manager_that_is_away_is_passed_over_within_a_second(start: Start) -> None:
    _, gone, server = await start()
    alive, address, _ = await start()
    await server.stop()
    managers = Managers([gone, address])
    managers.current = gone
    async with asyncio.timeout(1):
        await managers.call(lambda manager: manager.GetTenant, pb.GetTenantRequest(name="t1"))
    assert (alive.calls, managers.current) == (1, address)
    await managers.close()


async def test_a_manager_that_hangs_is_passed_over_after_one_attempt(start: Start) -> None:
    alive, other, _ = await start()
    forever = asyncio.Event()
    listener = await asyncio.start_server(lambda reader, writer: forever.wait(), "127.0.0.1", 0)
    deaf = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    managers = Managers([deaf, other])
    managers.current = deaf
    async with asyncio.timeout(3):
        await managers.call(lambda manager: manager.GetTenant, pb.GetTenantRequest(name="t1"), attempt=0.3)
    assert alive.calls == 1
    await managers.close()
    forever.set()
    listener.close()
    await listener.wait_closed()


async def test_what_does_not_pass_by_waiting_is_raised_at_once(start: Start) -> None:
    manager, address, _ = await start()
    manager.answer = _raises(Refused("OBJECT_IN_USE", "pod p uses it"))
    managers = Managers([address])
    with pytest.raises(Refused, match="pod p uses it"):
        await managers.call(lambda stub: stub.GetTenant, pb.GetTenantRequest(name="t1"))
    assert manager.calls == 1
    await managers.close()


async def test_the_last_reason_is_raised_when_the_time_is_over(start: Start) -> None:
    manager, address, _ = await start()
    manager.answer = _raises(Unavailable("NO_WRITER", "nobody writes"))
    managers = Managers([address])
    with pytest.raises(Unavailable, match="nobody writes") as caught:
        await managers.call(lambda stub: stub.GetTenant, pb.GetTenantRequest(name="t1"), within=0.3)
    assert caught.value.reason == "NO_WRITER"
    assert manager.calls >= 2
    await managers.close()


async def test_a_last_try_that_is_cut_short_does_not_hide_the_reason(start: Start) -> None:
    manager, address, _ = await start()

    def once_then_never() -> None:
        manager.hangs = manager.calls > 1
        if not manager.hangs:
            raise Unavailable("NO_WRITER", "nobody writes")

    manager.answer = once_then_never
    managers = Managers([address])
    with pytest.raises(Unavailable, match="nobody writes"):
        await managers.call(lambda stub: stub.GetTenant, pb.GetTenantRequest(name="t1"), within=0.5)
    assert manager.calls == 2
    await managers.close()


async def test_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Managers([])


def test_a_late_failure_of_a_manager_that_is_not_current_turns_nothing() -> None:
    managers = Managers(["a:1", "b:1", "c:1"])
    managers.current = "b:1"
    managers.learn(Unavailable("MANAGER_UNAVAILABLE", "gone"), "a:1")
    assert managers.current == "b:1"
    managers.learn(Unavailable("MANAGER_UNAVAILABLE", "gone"), "b:1")
    assert managers.current == "c:1"
    managers.learn(Unavailable("RECOVERING", "wait"), "c:1")
    assert managers.current == "c:1"


def test_backoff_grows_to_its_limit_and_starts_again() -> None:
    backoff = Backoff(0.1, 1.0, chance=lambda: 1.0)
    waits = [round(backoff.next(), 3) for _ in range(6)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next() == pytest.approx(0.1)
    assert Backoff(0.1, 1.0, chance=lambda: 0.0).next() == pytest.approx(0.05)
