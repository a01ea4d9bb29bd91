"""Watch over gRPC: heartbeats, slow readers, take-over, shutdown, reports. The hub is fed by hand."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from harness.monitor import NodeState, eventually, network, port_set, released

from knitter.v1 import monitor_pb2 as pb
from knitter.v1 import monitor_pb2_grpc
from knitter.v1 import types_pb2 as types
from knitter_common.errors import KnitterError, from_rpc_error
from knitter_common.serve import GrpcServer, ServerSettings
from knitter_common.settings import Seconds
from knitter_monitor.config import PushSettings
from knitter_monitor.connections import Connections
from knitter_monitor.hub.facts import read
from knitter_monitor.hub.hub import Hub
from knitter_monitor.service import SERVICE, MonitorService


class Monitor:
    """A served hub, and a client of it."""

    def __init__(self, settings: PushSettings) -> None:
        self.hub = Hub(settings)
        self.server = GrpcServer("127.0.0.1:0", ServerSettings(grace=Seconds(0.2)), [SERVICE])
        service = MonitorService(self.hub, Connections(time.time_ns), list, settings, time.time_ns)
        monitor_pb2_grpc.add_MonitorServiceServicer_to_server(service, self.server.grpc)
        self.channels: list[grpc.aio.Channel] = []

    async def start(self, *changes: types.Change) -> None:
        await self.server.start()
        self.hub.replace("e1", [read(change) for change in changes], 10)

    def apply(self, *changes: types.Change) -> None:
        self.hub.apply([read(change) for change in changes])

    def stub(self, *options: tuple[str, int]) -> Any:
        channel = grpc.aio.insecure_channel(self.server.address, options=[*options, ("grpc.use_local_subchannel_pool", 1)])
        self.channels.append(channel)
        return monitor_pb2_grpc.MonitorServiceStub(channel)

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()
        self.hub.close()
        await self.server.stop()


Start = Callable[..., Awaitable[Monitor]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    started = []

    async def begin(*changes: types.Change, **settings: Any) -> Monitor:
        monitor = Monitor(PushSettings(**settings))
        started.append(monitor)
        await monitor.start(*changes)
        return monitor

    yield begin
    for monitor in started:
        await monitor.close()


async def _take(call: Any, state: NodeState, until: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not until():
            message = await call.read()
            assert message is not grpc.aio.EOF
            state.take(message)


def _request(state: NodeState, node: str = "n1") -> pb.WatchRequest:
    state.begin()
    return pb.WatchRequest(node=node, agent_version="1.2.3", epoch=state.epoch, positions=state.positions())


async def _error(call: Any, take: Callable[[pb.WatchResponse], None] = lambda message: None) -> KnitterError:
    try:
        async with asyncio.timeout(10):
            while (message := await call.read()) is not grpc.aio.EOF:
                take(message)
    except grpc.aio.AioRpcError as failure:
        return from_rpc_error(failure)
    raise AssertionError("the call ended without an error")


async def test_changes_arrive_as_they_happen(start: Start) -> None:
    monitor = await start(network(1, "x"), port_set(2, "p", "n1", "x"))
    state = NodeState()
    call = monitor.stub().Watch(_request(state))
    await _take(call, state, lambda: all(topic.synced for topic in state.topics.values()) and len(state.topics) == 2)
    monitor.apply(network(11, "x", mtu=1400))
    await _take(call, state, lambda: state.topics["network/x"].objects["network/x"].network.mtu == 1400)
    monitor.apply(released(12, "p"))
    await _take(call, state, lambda: "network/x" not in state.topics and not state.keys("node/n1"))


async def test_silence_is_filled_with_heartbeats(start: Start) -> None:
    monitor = await start(heartbeat=Seconds(0.05))
    state = NodeState()
    call = monitor.stub().Watch(_request(state))
    await _take(call, state, lambda: state.heartbeats >= 3)


async def test_a_cut_watch_resumes_over_a_new_channel(start: Start) -> None:
    monitor = await start(port_set(2, "p", "n1"))
    state = NodeState()
    call = monitor.stub().Watch(_request(state))
    await _take(call, state, lambda: bool(state.topics) and state.topics["node/n1"].synced)
    await monitor.channels[0].close()
    monitor.apply(released(11, "p"), port_set(12, "q", "n1"))
    call = monitor.stub().Watch(_request(state))
    await _take(call, state, lambda: state.topics["node/n1"].synced)
    assert state.topics["node/n1"].resets == 1
    assert state.keys("node/n1") == {"portset/pod/t1/q/u"}


async def test_the_newer_watch_of_a_node_takes_over(start: Start) -> None:
    monitor = await start(port_set(2, "p", "n1"))
    states = NodeState(), NodeState()
    older = monitor.stub().Watch(_request(states[0]))
    await _take(older, states[0], lambda: bool(states[0].topics))
    newer = monitor.stub().Watch(_request(states[1]))
    await _take(newer, states[1], lambda: bool(states[1].topics) and states[1].topics["node/n1"].synced)
    assert (await _error(older)).reason == "WATCH_TAKEN_OVER"
    monitor.apply(port_set(11, "q", "n1"))
    await _take(newer, states[1], lambda: len(states[1].keys("node/n1")) == 2)
    connections = (await monitor.stub().ListConnections(pb.ListConnectionsRequest())).connections
    assert [(each.node, each.connected, each.agent_version) for each in connections] == [("n1", True, "1.2.3")]


async def test_a_slow_reader_is_cut_with_a_reason_and_resumes(start: Start) -> None:
    sets = [port_set(revision, f"p{revision}", "n1", labels={"filling": "x" * 60_000}) for revision in range(1, 201)]
    monitor = await start(*sets, slow_after=Seconds(0.3), message_bytes=65_536)
    state = NodeState()
    call = monitor.stub(("grpc.http2.lookahead_bytes", 65_536)).Watch(_request(state))
    await _take(call, state, lambda: state.messages >= 2)
    await eventually(lambda: not monitor.hub.watching)
    seen = state.messages
    assert (await _error(call, state.take)).reason == "WATCH_TOO_SLOW"
    assert seen < state.messages < 200
    assert 0 < len(state.keys("node/n1")) < 200
    monitor.apply(released(201, "p1"))
    call = monitor.stub().Watch(_request(state))
    await _take(call, state, lambda: state.topics["node/n1"].synced)
    assert len(state.keys("node/n1")) == 199


async def test_a_monitor_that_is_behind_sends_the_node_away(start: Start) -> None:
    monitor = await start(behind_wait=Seconds(0.05))
    request = pb.WatchRequest(node="n1", epoch="e1", positions=[pb.TopicPosition(topic="node/n1", revision=99)])
    assert (await _error(monitor.stub().Watch(request))).reason == "REPLICA_BEHIND"


async def test_an_ending_monitor_tells_the_nodes(start: Start) -> None:
    monitor = await start()
    state = NodeState()
    call = monitor.stub().Watch(_request(state))
    await _take(call, state, lambda: bool(state.topics))
    monitor.hub.close()
    assert (await _error(call)).reason == "SHUTTING_DOWN"


@pytest.mark.parametrize("name", ["", "a/b"])
async def test_a_watch_without_a_proper_node_is_refused(start: Start, name: str) -> None:
    monitor = await start()
    error = await _error(monitor.stub().Watch(pb.WatchRequest(node=name)))
    assert (error.reason, error.metadata["field"]) == ("FIELD_INVALID", "node")


async def test_what_nodes_report_is_listed(start: Start) -> None:
    monitor = await start(port_set(2, "p", "n1"))
    state = NodeState()
    stub = monitor.stub()
    call = stub.Watch(_request(state))
    await _take(call, state, lambda: bool(state.topics) and state.topics["node/n1"].synced)
    rejections = [pb.Rejection(key=f"portset/{index}", revision=index, reason="INTERNAL", message="no") for index in range(150)]
    applied = [pb.TopicPosition(topic="node/n1", revision=10)]
    await stub.ReportStatus(pb.ReportStatusRequest(node="n1", epoch="e1", applied=applied, rejections=rejections))
    await stub.ReportStatus(pb.ReportStatusRequest(node="n1", epoch="e1", applied=applied, rejections=rejections[149:]))
    (connection,) = (await stub.ListConnections(pb.ListConnectionsRequest())).connections
    assert connection.connected
    assert connection.connect_time.seconds > 1_600_000_000
    assert {position.topic: position.revision for position in connection.sent} == {"node/n1": 10}
    assert list(connection.applied) == applied
    assert [rejection.key for rejection in connection.rejections] == [f"portset/{index}" for index in range(50, 150)]
    call.cancel()
    await eventually(lambda: not monitor.hub.watching)
    (connection,) = (await stub.ListConnections(pb.ListConnectionsRequest())).connections
    assert {position.topic: position.revision for position in connection.sent} == {"node/n1": 10}


async def test_health_is_the_servers_to_say(start: Start) -> None:
    monitor = await start()
    monitor.stub()
    health = health_pb2_grpc.HealthStub(monitor.channels[0])
    before = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert before.status == health_pb2.HealthCheckResponse.NOT_SERVING
