"""What a monitor and an agent are asked with fields that cannot be: refused with a reason, a message that names the field, the
value and the way out; and the monitor knows of no node by it."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from harness.agent import SmallManager, agent_in
from harness.bad_input import Bad, judged
from harness.messages import any_message
from harness.monitor import port_set
from harness.netns import network_namespace
from harness.rpc import Calls, calls_to, whole_error
from hypothesis import HealthCheck, given, settings

from knitter.v1 import agent_pb2, agent_pb2_grpc, monitor_pb2_grpc
from knitter.v1 import monitor_pb2 as pb
from knitter_common.errors import Internal
from knitter_common.serve import GrpcServer, ServerSettings
from knitter_common.settings import Seconds
from knitter_monitor.config import PushSettings
from knitter_monitor.connections import Connections
from knitter_monitor.hub.facts import read
from knitter_monitor.hub.hub import Hub
from knitter_monitor.service import SERVICE, MonitorService


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Any, Any]]:
    """A monitor's service over a hub that is fed by hand."""
    push = PushSettings(behind_wait=Seconds(0.01))
    hub = Hub(push)
    server = GrpcServer("127.0.0.1:0", ServerSettings(grace=Seconds(0.1)), [SERVICE])
    service = MonitorService(hub, Connections(time.time_ns), list, push, time.time_ns)
    monitor_pb2_grpc.add_MonitorServiceServicer_to_server(service, server.grpc)
    await server.start()
    hub.replace("e1", [read(port_set(5, "web", "n1", "net1"))], 10)
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield monitor_pb2_grpc.MonitorServiceStub(channel), channel
    finally:
        hub.close()
        await server.stop()


@pytest.fixture(scope="module")
def monitor() -> Iterator[Calls]:
    with calls_to(serving()) as calls:
        yield calls


def at(topic: str, revision: int = 1) -> pb.TopicPosition:
    """Where a node is."""
    return pb.TopicPosition(topic=topic, revision=revision)


NAMES = [
    ("", ("node", "is empty", "give it a name")),
    ("n/1", ("node", "'n/1'", "use a-z")),
    ("N_1", ("node", "'N_1'", "use a-z")),
    ("n\0", ("node", "'n\\x00'", "use a-z")),
    ("a" * 300, ("node", "300 characters", "at most 253")),
]
PLACES = [
    ([at("")], ("[0].topic", "is empty", "say which")),
    ([at("node/n1"), at("node/n1")], ("[1].topic", "'node/n1'", "each topic once")),
    ([at("node/n1"), at("network/x", -3)], ("[1].revision", "-3", "or 0")),
]
WATCHES = [Bad("Watch", pb.WatchRequest(node=name), "FIELD_INVALID", *words) for name, words in NAMES]
WATCHES += [
    Bad("Watch", pb.WatchRequest(node="n9", positions=places), "FIELD_INVALID", "positions" + words[0], *words[1:])
    for places, words in PLACES
]
WATCHES.append(
    Bad("Watch", pb.WatchRequest(node="n9", epoch="e1", positions=[at("node/n9", 99)]), "REPLICA_BEHIND", "10", "99", "or wait")
)
REPORTS = [Bad("ReportStatus", pb.ReportStatusRequest(node=name), "FIELD_INVALID", *words) for name, words in NAMES]
REPORTS += [
    Bad("ReportStatus", pb.ReportStatusRequest(node="n9", applied=places), "FIELD_INVALID", "applied" + words[0], *words[1:])
    for places, words in PLACES
]


@pytest.mark.parametrize("bad", WATCHES, ids=repr)
def test_a_watch_that_cannot_be(monitor: Calls, bad: Bad) -> None:
    judged(bad, monitor.first(bad.method, bad.request))
    assert [one.node for one in connections(monitor)] == []


@pytest.mark.parametrize("bad", REPORTS, ids=repr)
def test_a_report_that_cannot_be(monitor: Calls, bad: Bad) -> None:
    judged(bad, monitor.call(bad.method, bad.request))
    assert [one.node for one in connections(monitor)] == []


def connections(monitor: Calls) -> Any:
    """The nodes that the monitor knows of."""
    return monitor.call("ListConnections", pb.ListConnectionsRequest()).connections


@pytest.mark.parametrize("topic", ["banana", "node/another", "network/nowhere", "node/"])
def test_a_topic_that_is_not_the_nodes_is_dropped(monitor: Calls, topic: str) -> None:
    message = monitor.first("Watch", pb.WatchRequest(node="n1", epoch="e1", positions=[at(topic)]))
    assert (message.topic, message.WhichOneof("event")) == (topic, "dropped")


@given(any_message(pb.WatchRequest, {"node": ["n1"], "topic": ["node/n1", "network/net1"], "epoch": ["e1", ""]}))
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_any_watch_is_begun_or_refused(monitor: Calls, request: pb.WatchRequest) -> None:
    assert not isinstance(monitor.first("Watch", request), Internal)


@given(any_message(pb.ReportStatusRequest, {"node": ["n1"], "topic": ["node/n1", "network/net1"]}))
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_any_report_is_taken_or_refused(monitor: Calls, request: pb.ReportStatusRequest) -> None:
    assert not isinstance(monitor.call("ReportStatus", request), Internal)


TOKENS = ["next", "a/b", "a/b/c/d", "/" * 50, "\0", "x" * 100_000]


async def test_pages_of_attachments() -> None:
    async with SmallManager() as manager:
        with network_namespace("node") as node, network_namespace("pod") as pod, agent_in(node, manager.address) as agent:
            for number in range(3):
                assert (await agent.call("ADD", "c1", pod, f"eth{number}"))[0] == 0
            async with grpc.aio.insecure_channel(agent.address) as channel:
                stub: Any = agent_pb2_grpc.AgentServiceStub(channel)
                for token in TOKENS:
                    with pytest.raises(grpc.aio.AioRpcError) as failed:
                        await stub.ListAttachments(agent_pb2.ListAttachmentsRequest(page_token=token))
                    bad = Bad("ListAttachments", None, "FIELD_INVALID", "page_token", repr(token)[:20], "send the next_page_token")
                    judged(bad, whole_error(failed.value))
                seen, token = [], ""
                while not seen or token:
                    page = await stub.ListAttachments(agent_pb2.ListAttachmentsRequest(page_size=1, page_token=token))
                    seen += [one.interface for one in page.attachments]
                    token = page.next_page_token
                assert seen == ["eth0", "eth1", "eth2"]
                everything = await stub.ListAttachments(agent_pb2.ListAttachmentsRequest(page_size=2**32 - 1))
                assert len(everything.attachments) == 3
