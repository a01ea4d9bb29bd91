"""Trouble of every kind at every step of a manager's commit, on a file and on etcd: everything or nothing of it is there, who asks
again gets the same answer, and what the manager counts is what it would count if it had just begun."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness import steps
from harness.daemons import Daemons
from harness.judge import disagreements
from harness.manager import serving
from harness.steps import KINDS, Step
from harness.stores import Site, open_site

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import manager_pb2_grpc
from knitter.v1 import types_pb2 as types
from knitter_common import failpoints
from knitter_common.errors import from_rpc_error


def _owner(name: str) -> types.Owner:
    return types.Owner(named=types.NamedOwner(tenant="t1", name=name))


def _allocation(name: str) -> pb.AllocateRequest:
    wishes = [types.Wish(network="dual"), types.Wish(network="flat", interface="e1"), types.Wish(network="dual", ip_claim="idle")]
    return pb.AllocateRequest(allocation=pb.Allocation(owner=_owner(name), wishes=wishes))


async def _allocate(stub: Any) -> Any:
    return (await stub.Allocate(_allocation("new"))).port_set


async def _release(stub: Any) -> Any:
    return await stub.Release(pb.ReleaseRequest(release=pb.Return(owner=_owner("old"))))


async def _claim(stub: Any) -> Any:
    claim = types.IPClaim(tenant="t1", name="more", network="dual")
    return (await stub.CreateIPClaim(pb.CreateIPClaimRequest(ip_claim=claim))).ip_claim


async def _group(stub: Any) -> Any:
    group = types.IPGroup(tenant="t1", name="more", network="dual", size=3)
    return (await stub.CreateIPGroup(pb.CreateIPGroupRequest(ip_group=group))).ip_group


OPERATIONS = {"allocate": _allocate, "release": _release, "claim": _claim, "group": _group}


@pytest.fixture(params=["sqlite", "etcd"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """Two networks, two claims, and a set that uses one of them."""
    async with open_site(request.param, tmp_path) as site:
        async with serving(await site.open()) as (stub, _):
            for name, cidrs in (("dual", ("10.1.0.0/28", "2001:db8::/124")), ("flat", ("10.2.0.0/29",))):
                subnets = [types.Subnet(cidr=cidr) for cidr in cidrs]
                await stub.CreateNetwork(pb.CreateNetworkRequest(network=types.Network(tenant="t1", name=name, subnets=subnets)))
            for name in ("used", "idle"):
                claim = types.IPClaim(tenant="t1", name=name, network="dual")
                await stub.CreateIPClaim(pb.CreateIPClaimRequest(ip_claim=claim))
            wishes = [types.Wish(network="flat"), types.Wish(network="dual", ip_claim="used", interface="e1")]
            await stub.Allocate(pb.AllocateRequest(allocation=pb.Allocation(owner=_owner("old"), wishes=wishes)))
        yield site


@pytest.fixture
def armed() -> Iterator[Callable[[str], None]]:
    yield failpoints.arm
    failpoints.arm("")


async def _answered(operation: Callable[[Any], Any], stub: Any) -> Any:
    """Asked again until a manager has answered it, as clients do."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await operation(stub)
            except grpc.aio.AioRpcError as failed:
                error = from_rpc_error(failed)
                assert error.reason in ("STORE_UNAVAILABLE", "INTERNAL", "NOT_WRITER", "NO_WRITER"), error.message
                await asyncio.sleep(0.02)


async def _picture(stub: Any) -> dict[str, Any]:
    """All that a manager tells of who holds what, and how much."""
    sets = (await stub.ListPortSets(pb.ListPortSetsRequest())).port_sets
    usage = (await stub.ListNetworkUsage(pb.ListNetworkUsageRequest())).networks
    return {
        "sets": sorted(one.SerializeToString(deterministic=True) for one in sets),
        "usage": [str(one) for one in usage],
        "claims": [str(one) for one in (await stub.ListIPClaims(pb.ListIPClaimsRequest())).ip_claims],
        "groups": [str(one) for one in (await stub.ListIPGroups(pb.ListIPGroupsRequest())).ip_groups],
        "tenants": [str(one) for one in (await stub.ListTenants(pb.ListTenantsRequest())).tenants],
    }


async def _agrees(site: Site) -> None:
    reader = await site.open()
    assert await disagreements(reader) == []
    await reader.close()


def _with_kinds(kinds: tuple[str, ...]) -> list[Any]:
    return [
        pytest.param(step, kind, operation, id=f"{step.name}-{kind}-{operation}")
        for step in steps.COMMIT
        for kind in kinds
        for operation in OPERATIONS
    ]


@pytest.mark.parametrize(("step", "kind", "operation"), _with_kinds(KINDS[:-1]))
async def test_trouble_in_a_commit(site: Site, armed: Callable[[str], None], step: Step, kind: str, operation: str) -> None:
    async with serving(await site.open()) as (stub, _):
        before = await _picture(stub)
        armed(f"{step.name}=1*{kind}")
        failed = None
        try:
            await OPERATIONS[operation](stub)
        except grpc.aio.AioRpcError as error:
            failed = from_rpc_error(error)
            assert failed.reason in ("STORE_UNAVAILABLE", "INTERNAL"), failed.message
        assert (failed is None) == kind.startswith("delay"), "the step was not reached"
        await _agrees(site)
        answer = await _answered(OPERATIONS[operation], stub)
        assert await _answered(OPERATIONS[operation], stub) == answer
        after = await _picture(stub)
        assert after != before
        await _agrees(site)
    async with serving(await site.open()) as (stub, _):
        assert await _picture(stub) == after


@pytest.mark.parametrize(("step", "kind", "operation"), _with_kinds(KINDS[-1:]))
async def test_a_manager_killed_in_a_commit(site: Site, tmp_path: Path, step: Step, kind: str, operation: str) -> None:
    settings = site.settings
    place = {"path": settings.path} if site.kind == "sqlite" else {"endpoints": list(settings.endpoints), "prefix": settings.prefix}
    config = {"listen": "127.0.0.1:0", "store": {"kind": site.kind, **place}}
    daemons = Daemons(tmp_path)
    with contextlib.closing(daemons):
        manager = await daemons.start_soon("knitter-manager", config, env={failpoints.VARIABLE: step.rule(kind)})
        async with grpc.aio.insecure_channel(manager.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await OPERATIONS[operation](manager_pb2_grpc.ManagerServiceStub(channel))
        assert await asyncio.to_thread(manager.wait) == -9
        await _agrees(site)
        async with serving(await site.open()) as (stub, _):
            answer = await _answered(OPERATIONS[operation], stub)
            assert await _answered(OPERATIONS[operation], stub) == answer
            await _agrees(site)
