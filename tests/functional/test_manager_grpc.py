"""The manager behind gRPC, in this process on port 0: streams, errors with ErrorInfo, pages, the feed, health, hand-over."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from harness.manager import serving, settings

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import manager_pb2_grpc
from knitter.v1 import types_pb2 as types
from knitter_common.errors import from_rpc_error, from_status
from knitter_manager.daemon import ManagerDaemon
from knitter_manager.store.memory import MemorySpace, MemoryStore


@pytest.fixture
async def manager() -> AsyncIterator[Any]:
    async with serving() as (stub, _):
        await stub.CreateNetwork(_network("default", "10.0.0.0/16"))
        await stub.CreateNetwork(_network("tiny", "10.2.0.0/30"))
        yield stub


def _network(name: str, *cidrs: str, **fields: Any) -> pb.CreateNetworkRequest:
    subnets = [types.Subnet(cidr=cidr) for cidr in cidrs]
    return pb.CreateNetworkRequest(network=types.Network(tenant="admin", name=name, subnets=subnets, **fields))


def _owner(name: str) -> types.Owner:
    return types.Owner(named=types.NamedOwner(tenant="admin", name=name))


def _wanted(name: str, *networks: str, **fields: Any) -> pb.Allocation:
    return pb.Allocation(owner=_owner(name), wishes=[types.Wish(network=network) for network in networks], **fields)


async def stream(manager: Any, *messages: Sequence[pb.AllocationOperation]) -> dict[int, pb.AllocationOutcome]:
    """All outcomes, by id."""

    async def requests() -> AsyncIterator[pb.StreamAllocationsRequest]:
        for message in messages:
            yield pb.StreamAllocationsRequest(operations=message)

    return {one.id: one async for answer in manager.StreamAllocations(requests()) for one in answer.outcomes}


async def test_errors_carry_reason_and_metadata(manager: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await manager.GetNetwork(pb.GetNetworkRequest(tenant="admin", name="defaul"))
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    error = from_rpc_error(failed.value)
    assert (error.reason, error.metadata["network"]) == ("NETWORK_NOT_FOUND", "admin/defaul")
    assert "did you mean 'default'" in error.message
    with pytest.raises(grpc.aio.AioRpcError) as wrong:
        await manager.CreateNetwork(_network("x", "10.1.0.7/24"))
    assert wrong.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(wrong.value).metadata["field"] == "subnets[0].cidr"


async def test_creating_the_same_again_is_fine(manager: Any) -> None:
    first = await manager.CreateNetwork(_network("n", "10.3.0.0/24"))
    assert await manager.CreateNetwork(_network("n", "10.3.0.0/24")) == first
    with pytest.raises(grpc.aio.AioRpcError) as other:
        await manager.CreateNetwork(_network("n", "10.4.0.0/24"))
    assert other.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_a_stream_answers_each_operation_and_survives_failures(manager: Any) -> None:
    allocate = [pb.AllocationOperation(id=n, allocate=_wanted(f"o{n}", "default")) for n in range(1, 301)]
    bad = [
        pb.AllocationOperation(id=1000, allocate=_wanted("bad", "nowhere")),
        pb.AllocationOperation(id=1001, allocate=pb.Allocation()),
        pb.AllocationOperation(id=1002),
        pb.AllocationOperation(id=1003, bind=pb.Bind(owner=_owner("o1"))),
        pb.AllocationOperation(id=1004, release=pb.Return(owner=_owner("never"))),
    ]
    outcomes = await stream(manager, allocate[:1], [*allocate[1:100], *bad], allocate[100:])
    assert len(outcomes) == 305
    got = [outcomes[n].port_set for n in range(1, 301)]
    assert len({one.ports[0].addresses[0].cidr for one in got}) == 300
    assert all(one.revision for one in got)
    reasons = {n: from_status(outcomes[n].error).reason for n in (1000, 1001, 1002, 1003)}
    assert reasons == {1000: "NETWORK_NOT_FOUND", 1001: "FIELD_INVALID", 1002: "FIELD_INVALID", 1003: "FIELD_INVALID"}
    assert outcomes[1004].WhichOneof("result") == "released"
    bind = types.Binding(container_id="c1")
    ids = range(1, 301)
    bound = await stream(manager, [pb.AllocationOperation(id=n, bind=pb.Bind(owner=_owner(f"o{n}"), binding=bind)) for n in ids])
    assert {one.port_set.binding.container_id for one in bound.values()} == {"c1"}
    back = [pb.AllocationOperation(id=n, release=pb.Return(owner=_owner(f"o{n}"), container_id="c1")) for n in ids]
    assert {one.WhichOneof("result") for one in (await stream(manager, back)).values()} == {"released"}
    assert not (await manager.ListPortSets(pb.ListPortSetsRequest())).port_sets


async def test_pages_are_ordered_and_stable_while_things_change(manager: Any) -> None:
    await stream(manager, [pb.AllocationOperation(id=n, allocate=_wanted(f"o{n:03}", "default")) for n in range(100)])
    seen, token = [], ""
    while True:
        page = await manager.ListPortSets(pb.ListPortSetsRequest(page_size=7, page_token=token))
        seen += [one.owner.named.name for one in page.port_sets]
        await manager.Release(pb.ReleaseRequest(release=pb.Return(owner=_owner(seen[-3]))))
        await manager.Allocate(pb.AllocateRequest(allocation=_wanted(f"a{len(seen)}", "default")))
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"o{n:03}" for n in range(100)]
    networks = await manager.ListNetworks(pb.ListNetworksRequest(page_size=1))
    assert [one.name for one in networks.networks] == ["default"]
    rest = await manager.ListNetworks(pb.ListNetworksRequest(page_token=networks.next_page_token))
    assert [one.name for one in rest.networks] == ["tiny"]
    assert not rest.next_page_token


async def test_sets_are_found_by_node_network_tenant_and_address(manager: Any) -> None:
    await manager.Allocate(pb.AllocateRequest(allocation=_wanted("a", "default", node="n1")))
    await manager.Allocate(pb.AllocateRequest(allocation=_wanted("b", "tiny", "default", node="n2")))

    async def names(**fields: str) -> list[str]:
        found = await manager.ListPortSets(pb.ListPortSetsRequest(**fields))
        return [one.owner.named.name for one in found.port_sets]

    assert await names(node="n1") == ["a"]
    assert await names(network="admin/tiny") == ["b"]
    assert await names(network="admin/default", node="n2") == ["b"]
    assert await names(tenant="t1") == []
    assert await names(address="10.2.0.1") == ["b"]
    assert await names(address="10.2.0.2") == []
    with pytest.raises(grpc.aio.AioRpcError, match="is no IPv4 or IPv6 address"):
        await names(address="10.2")


class Follower:
    """What a monitor keeps of the feed."""

    def __init__(self) -> None:
        self.sets: dict[str, int] = {}
        self.epoch, self.revision, self.resets, self.synced = "", 0, 0, 0

    def take(self, message: Any) -> str:
        """One message."""
        kind = message.WhichOneof("event")
        match kind:
            case "reset":
                self.sets, self.epoch, self.resets = {}, message.reset.epoch, self.resets + 1
            case "changes":
                for change in message.changes.changes:
                    if change.WhichOneof("object") == "port_set":
                        self.sets[change.port_set.owner.named.name] = change.port_set.revision
                    elif change.WhichOneof("object") == "deleted" and change.deleted.HasField("owner"):
                        self.sets.pop(change.deleted.owner.named.name, None)
                    self.revision = change.revision
            case "synced":
                self.revision, self.synced = message.synced.revision, self.synced + 1
        return str(kind)

    async def until(self, call: Any, kind: str) -> None:
        """Reads until there is one of these."""
        async for message in call:
            if self.take(message) == kind:
                return


async def test_the_feed_resets_syncs_follows_and_resumes(manager: Any) -> None:
    await manager.Allocate(pb.AllocateRequest(allocation=_wanted("a", "default")))
    follower = Follower()
    call = manager.Changes(pb.ChangesRequest())
    await follower.until(call, "synced")
    assert set(follower.sets) == {"a"}
    await manager.Allocate(pb.AllocateRequest(allocation=_wanted("b", "default")))
    await follower.until(call, "changes")
    assert set(follower.sets) == {"a", "b"}
    await follower.until(call, "heartbeat")
    call.cancel()
    await manager.Release(pb.ReleaseRequest(release=pb.Return(owner=_owner("a"))))
    await manager.Allocate(pb.AllocateRequest(allocation=_wanted("c", "default")))
    call = manager.Changes(pb.ChangesRequest(after_revision=follower.revision, epoch=follower.epoch))
    await follower.until(call, "synced")
    assert set(follower.sets) == {"b", "c"}
    assert follower.resets == 1
    for request in (
        pb.ChangesRequest(after_revision=follower.revision, epoch="another"),
        pb.ChangesRequest(after_revision=follower.revision + 100, epoch=follower.epoch),
    ):
        resets = follower.resets
        await follower.until(manager.Changes(request), "synced")
        assert follower.resets == resets + 1
        assert set(follower.sets) == {"b", "c"}


async def test_reconcile_over_several_messages(manager: Any) -> None:
    sets = [(await manager.Allocate(pb.AllocateRequest(allocation=_wanted(n, "default", node="n1")))).port_set for n in "abc"]
    node = types.Node(name="n1", agent_version="1")
    await manager.Reconcile(pb.ReconcileRequest(node=node, in_use=sets[:1], more=True))
    answer = await manager.Reconcile(pb.ReconcileRequest(node=node, in_use=sets[1:2]))
    assert [one.owner.named.name for one in answer.unknown_to_node] == ["c"]
    assert answer.epoch
    assert answer.revision
    listed = await manager.ListNodes(pb.ListNodesRequest())
    assert [one.name for one in listed.nodes] == ["n1"]


async def test_health_says_serving() -> None:
    async with serving() as (_, channel):
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "knitter.v1.ManagerService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_one_writes_and_the_other_follows_and_takes_over() -> None:
    space = MemorySpace()
    first = ManagerDaemon(settings(), MemoryStore(space))
    second = ManagerDaemon(settings(), MemoryStore(space))
    one, two = await first.start(), await second.start()
    async with grpc.aio.insecure_channel(one) as a, grpc.aio.insecure_channel(two) as b:
        writer, follower = manager_pb2_grpc.ManagerServiceStub(a), manager_pb2_grpc.ManagerServiceStub(b)
        await writer.CreateNetwork(_network("default", "10.0.0.0/16"))
        await writer.Allocate(pb.AllocateRequest(allocation=_wanted("a", "default")))
        await Follower().until(follower.Changes(pb.ChangesRequest()), "synced")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await follower.Allocate(pb.AllocateRequest(allocation=_wanted("b", "default")))
        error = from_rpc_error(refused.value)
        assert (error.reason, error.metadata) == ("NOT_WRITER", {"writer": one})
        feed = aiter(writer.Changes(pb.ChangesRequest()))
        await anext(feed)
        stop = asyncio.ensure_future(first.stop())
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async for _ in feed:
                pass
        assert from_rpc_error(ended.value).reason == "SHUTTING_DOWN"
        await asyncio.wait_for(stop, 3)
        got = await follower.Allocate(pb.AllocateRequest(allocation=_wanted("b", "default")))
        assert got.port_set.ports[0].addresses[0].cidr == "10.0.0.2/16"
    await second.stop()
