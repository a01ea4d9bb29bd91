"""Every List comes in pages that stay right while things come and go between them: what is there all the time is
told exactly once, in order; what went before its page is not told; what came after its place is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from harness.manager import serving

from knitter.v1 import agent_pb2, monitor_pb2
from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_agent.attachment import Attachments
from knitter_agent.journal import open_journal
from knitter_agent.record import Key, Record, State
from knitter_agent.service import AgentServicer, Bounds
from knitter_common.errors import Invalid, from_rpc_error
from knitter_monitor.config import PushSettings
from knitter_monitor.connections import Connections
from knitter_monitor.hub.hub import Hub
from knitter_monitor.service import MonitorService
from knitter_monitor.sources.report import MOST_TOLD, Problem, Report

SERVICE = pb.DESCRIPTOR.services_by_name["ManagerService"]
SIZE = 3

Act = Callable[[Any, str], Awaitable[Any]]


@dataclass(frozen=True)
class Listing:
    """`field` is that of the response; `name` tells an entry's own, `make` and `end` bring one of that name and take it away."""

    rpc: str
    field: str
    name: Callable[[Any], str]
    make: Act
    end: Act


async def make_network(stub: Any, name: str) -> None:
    await stub.CreateNetwork(pb.CreateNetworkRequest(network=types.Network(tenant="admin", name=name)))


async def end_network(stub: Any, name: str) -> None:
    await stub.DeleteNetwork(pb.DeleteNetworkRequest(tenant="admin", name=name))


async def make_tenant(stub: Any, name: str) -> None:
    await stub.CreateTenant(pb.CreateTenantRequest(tenant=types.Tenant(name=name)))


async def end_tenant(stub: Any, name: str) -> None:
    await stub.DeleteTenant(pb.DeleteTenantRequest(name=name))
    async with asyncio.timeout(10):
        while await is_there(stub.GetTenant(pb.GetTenantRequest(name=name))):  # noqa: ASYNC110 - the manager's own doing
            await asyncio.sleep(0.01)


async def is_there(call: Awaitable[Any]) -> bool:
    try:
        await call
    except grpc.aio.AioRpcError as failed:
        return from_rpc_error(failed).reason != "OBJECT_NOT_FOUND"
    return True


async def make_group(stub: Any, name: str) -> None:
    await stub.CreateIPGroup(pb.CreateIPGroupRequest(ip_group=types.IPGroup(tenant="admin", name=name, network="base", size=1)))


async def end_group(stub: Any, name: str) -> None:
    await stub.DeleteIPGroup(pb.DeleteIPGroupRequest(tenant="admin", name=name, network="base"))


async def make_claim(stub: Any, name: str) -> None:
    await stub.CreateIPClaim(pb.CreateIPClaimRequest(ip_claim=types.IPClaim(tenant="admin", name=name, network="base")))


async def end_claim(stub: Any, name: str) -> None:
    await stub.DeleteIPClaim(pb.DeleteIPClaimRequest(tenant="admin", name=name))


async def make_node(stub: Any, name: str) -> None:
    await stub.CreateNode(pb.CreateNodeRequest(node=types.Node(name=name)))


async def end_node(stub: Any, name: str) -> None:
    await stub.DeleteNode(pb.DeleteNodeRequest(name=name))


def owner(name: str) -> types.Owner:
    return types.Owner(named=types.NamedOwner(tenant="admin", name=name))


async def make_set(stub: Any, name: str) -> None:
    wanted = pb.Allocation(owner=owner(name), wishes=[types.Wish(network="base")])
    await stub.Allocate(pb.AllocateRequest(allocation=wanted))


async def end_set(stub: Any, name: str) -> None:
    await stub.Release(pb.ReleaseRequest(release=pb.Return(owner=owner(name))))


LISTINGS = [
    Listing("ListNetworks", "networks", lambda one: one.name, make_network, end_network),
    Listing("ListNetworkUsage", "networks", lambda one: one.network.removeprefix("admin/"), make_network, end_network),
    Listing("ListTenants", "tenants", lambda one: one.name, make_tenant, end_tenant),
    Listing("ListTenantUsage", "tenants", lambda one: one.tenant, make_tenant, end_tenant),
    Listing("ListIPGroups", "ip_groups", lambda one: one.name, make_group, end_group),
    Listing("ListIPClaims", "ip_claims", lambda one: one.name, make_claim, end_claim),
    Listing("ListNodes", "nodes", lambda one: one.name, make_node, end_node),
    Listing("ListNodeUsage", "nodes", lambda one: one.node, make_node, end_node),
    Listing("ListPortSets", "port_sets", lambda one: one.owner.named.name, make_set, end_set),
]
FIRST = [f"m{number:02}" for number in range(0, 40, 2)]


@pytest.fixture
async def stub() -> AsyncIterator[Any]:
    async with serving(rest="0s") as (made, _):
        network = types.Network(tenant="admin", name="base", subnets=[types.Subnet(cidr="10.1.0.0/24")])
        await made.CreateNetwork(pb.CreateNetworkRequest(network=network))
        yield made


def test_no_listing_is_left_out() -> None:
    assert sorted(one.rpc for one in LISTINGS) == sorted(one.name for one in SERVICE.methods if one.name.startswith("List"))


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda one: one.rpc)
async def test_pages_stay_right_while_things_come_and_go(stub: Any, listing: Listing) -> None:
    for name in FIRST:
        await listing.make(stub, name)
    left, seen, gone, late = list(FIRST), list[str](), set[str](), set[str]()
    request, token = getattr(pb, f"{listing.rpc}Request"), ""
    while True:
        page = await getattr(stub, listing.rpc)(request(page_size=SIZE, page_token=token))
        names = [listing.name(one) for one in getattr(page, listing.field)]
        assert len(names) <= SIZE
        assert page.revision
        seen += names
        token = page.next_page_token
        if not token:
            break
        place = next((name for name in reversed(seen) if name.startswith("m")), "")
        ahead = [name for name in left if name > place]
        if len(ahead) > 4:
            await listing.end(stub, ahead[1])  # one that would have been told next
            gone.add(ahead[1])
            left.remove(ahead[1])
            new = f"m{int(ahead[2][1:]) + 1:02}"
            await listing.make(stub, new)
            late.add(new)
        if place:
            await listing.end(stub, place)  # the very one at which the next page begins
            await listing.make(stub, f"m{int(place[1:]):02}-again")  # after it, and perhaps before the next page's first
            late.add(f"m{int(place[1:]):02}-again")
            left.remove(place) if place in left else late.discard(place)
    ours = [name for name in seen if name.startswith("m")]
    assert len(set(seen)) == len(seen)
    assert ours == sorted(ours)
    assert set(FIRST) - gone <= set(ours)  # there all the time, or until it had been told
    assert not gone & set(ours)
    assert late <= set(ours)
    assert len(late) > 4
    assert len(gone) > 2


async def test_sizes_of_pages_are_bounded(stub: Any) -> None:
    for number in range(1010):
        await make_node(stub, f"n{number:04}")
    for rpc in ("ListNodes", "ListNodeUsage"):
        request = getattr(pb, f"{rpc}Request")
        assert len((await getattr(stub, rpc)(request())).nodes) == 500
        assert len((await getattr(stub, rpc)(request(page_size=5000))).nodes) == 1000


# -- agent and monitor -------------------------------------------------------------------------------------------------------


async def test_pages_of_a_journal_stay_right_and_fit_a_message(tmp_path: Path) -> None:
    large = types.PortSet(labels={"filling": "x" * 30_000}).SerializeToString()

    def record(name: str) -> Record:
        return Record(Key("knitter", name, "eth0"), State.ATTACHED, "", 0, 1, port_set=large)

    journal = open_journal(tmp_path / "journal.db")
    servicer = AgentServicer(cast(Attachments, None), journal, lambda: "", Bounds())
    await journal.put(*(record(f"c{number:03}") for number in range(0, 300, 2)))
    seen, token, pages = list[str](), "", 0
    while True:
        page = await servicer.ListAttachments(agent_pb2.ListAttachmentsRequest(page_size=1000, page_token=token), None)
        assert page.ByteSize() < 4 * 1024 * 1024
        seen += [one.container_id for one in page.attachments]
        pages += 1
        token = page.next_page_token
        if not token:
            break
        number = int(seen[-1][1:])
        await journal.drop([record(seen[-1]).key, record(f"c{number + 2:03}").key])
        await journal.put(record(f"c{number + 1:03}"), record(f"c{number - 1:03}"))
    await journal.close()
    assert seen == sorted(set(seen))
    assert pages > 2
    assert len(seen) == 150  # at each end of a page one has gone, and another come


async def test_pages_of_a_monitors_connections_stay_right() -> None:
    connections = Connections(lambda: 1)
    for number in range(0, 20, 2):
        connections.reported(f"n{number:02}", {"node/n": number}, ())
    hub, settings = cast(Hub, None), cast(PushSettings, None)
    service = MonitorService(hub, connections, list, settings, lambda: 1)
    seen, token = list[str](), ""
    while True:
        request = monitor_pb2.ListConnectionsRequest(page_size=SIZE, page_token=token)
        page = await service.ListConnections(request, None)
        assert len(page.connections) <= SIZE
        seen += [one.node for one in page.connections]
        token = page.next_page_token
        if not token:
            break
        connections.reported(f"n{int(seen[-1][1:]) + 1:02}", {}, ())
        connections.reported(f"n{int(seen[-1][1:]) - 1:02}", {}, ())
    assert seen == sorted(set(seen))
    assert {f"n{number:02}" for number in range(0, 20, 2)} <= set(seen)
    assert len(seen) > 10
    with pytest.raises(Invalid, match="send the next_page_token"):
        await service.ListConnections(monitor_pb2.ListConnectionsRequest(page_token="a/b"), None)


def test_the_problems_of_a_source_fit_a_message() -> None:
    report = Report("files:x", "/x")
    report.put({Problem(f"{number:05}.yaml", "", "FIELD_INVALID", "y" * 2000) for number in range(5000)}, 1)
    told = report.to_proto()
    assert told.problem_count == 5000
    assert told.ByteSize() < 4 * 1024 * 1024
    assert [one.place for one in told.problems][:2] == ["00000.yaml", "00001.yaml"]
    report.put({Problem(f"{number:05}.yaml", "", "FIELD_INVALID", "y") for number in range(5000)}, 1)
    assert len(report.to_proto().problems) == MOST_TOLD


def test_every_listing_of_every_service_is_known() -> None:
    services = (agent_pb2.DESCRIPTOR.services_by_name["AgentService"], monitor_pb2.DESCRIPTOR.services_by_name["MonitorService"])
    listings = {method.name for service in services for method in service.methods if method.name.startswith("List")}
    assert listings == {"ListAttachments", "ListConnections", "ListSources"}  # sources are few: one for each that is configured


@pytest.mark.parametrize("few", [True, False])
async def test_pages_of_what_is_on_a_node_and_a_network(stub: Any, few: bool) -> None:
    """Found by sorting where they are few among all, by walking where they are not."""
    network = types.Network(tenant="admin", name="large", subnets=[types.Subnet(cidr="10.2.0.0/16")])
    await stub.CreateNetwork(pb.CreateNetworkRequest(network=network))

    async def requests() -> AsyncIterator[pb.StreamAllocationsRequest]:
        for number in range(400):
            on = "n1" if number % 20 == 0 or not few else "n2"
            wishes = [types.Wish(network="large")] + [types.Wish(network="base")] * (number % 100 == 0)
            wanted = pb.Allocation(owner=owner(f"s{number:03}"), node=on, wishes=wishes)
            yield pb.StreamAllocationsRequest(operations=[pb.AllocationOperation(id=number, allocate=wanted)])

    assert len([one async for answer in stub.StreamAllocations(requests()) for one in answer.outcomes]) == 400
    for filters, step in (({"node": "n1"}, 20 if few else 1), ({"node": "n1", "network": "admin/base"}, 100)):
        names, token = list[str](), ""
        while True:
            page = await stub.ListPortSets(pb.ListPortSetsRequest(page_size=7, page_token=token, **filters))
            names += [one.owner.named.name for one in page.port_sets]
            token = page.next_page_token
            if not token:
                break
        assert names == [f"s{number:03}" for number in range(0, 400, step)]
