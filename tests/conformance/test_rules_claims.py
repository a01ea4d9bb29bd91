"""The rules of claims, through the API, on every store: addresses with a life of their own, which one port set at a time uses."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from harness.rules import Manager, manager_on, named_owner, refusal, told, wish
from harness.stores import Site

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types

CLAIMED = wish("control", ip_claim="vm")


@pytest.fixture
async def manager(site: Site) -> AsyncIterator[Manager]:
    """t1 has `control` in both families and `media` in one; the operator has `public`."""
    async with manager_on(await site.open()) as manager:
        gateways = types.Subnet(cidr="10.1.0.0/28", gateway="10.1.0.1"), types.Subnet(cidr="2001:db8::/124", gateway="2001:db8::1")
        await manager.network("control", *gateways)
        await manager.network("media", "10.3.0.0/29")
        await manager.network("public", "10.2.0.0/28", tenant="admin", public=True)
        yield manager


def held(claim: types.IPClaim) -> list[str]:
    """A claim's addresses, without prefix length."""
    return [one.cidr.partition("/")[0] for one in claim.addresses]


async def free(manager: Manager, address: str, network: str = "control") -> bool:
    """Whether somebody can have that address; who tries gives it back."""
    try:
        await manager.allocate(named_owner("probe"), wish(network, addresses=[address]))
    except grpc.aio.AioRpcError:
        return False
    await manager.release(named_owner("probe"))
    return True


# -- making ----------------------------------------------------------------------------------------------------------------------


async def test_it_takes_any_address_of_each_family_when_it_is_made(manager: Manager) -> None:
    made = await manager.claim("vm", interface="eth0")
    assert [one.cidr for one in made.addresses] == ["10.1.0.2/28", "2001:db8::2/124"]
    assert [one.gateway for one in made.addresses] == ["10.1.0.1", "2001:db8::1"]
    assert (made.network, made.interface, made.source) == ("t1/control", "eth0", "api")
    assert made.mac
    assert not made.HasField("used_by")
    assert await manager.read_claim("vm") == made
    assert await manager.claims() == [made]
    assert not await free(manager, "10.1.0.2")


async def test_or_those_that_it_wants(manager: Manager) -> None:
    made = await manager.claim("vm", "10.1.0.9", "2001:db8::9", mac="02:00:00:00:00:09")
    assert held(made) == ["10.1.0.9", "2001:db8::9"]
    assert made.mac == "02:00:00:00:00:09"


async def test_the_same_again_is_fine_and_something_else_is_not(manager: Manager) -> None:
    made = await manager.claim("vm", "10.1.0.9")
    assert await manager.claim("vm", "10.1.0.9") == made
    with refusal("OBJECT_EXISTS", "another wanted_addresses"):
        await manager.claim("vm", "10.1.0.8")
    many = await asyncio.gather(*(manager.claim("burst") for _ in range(10)))
    assert len({one.revision for one in many}) == 1


async def test_what_somebody_has_makes_nothing(manager: Manager) -> None:
    await manager.pod("web-0", wish("control", addresses=["10.1.0.9"], mac="02:00:00:00:00:07"))
    with refusal("ADDRESS_TAKEN", "10.1.0.9 of network t1/control is held by pod t1/web-0"):
        await manager.claim("vm", "10.1.0.8", "10.1.0.9")
    with refusal("MAC_TAKEN", "pod t1/web-0"):
        await manager.claim("vm", mac="02:00:00:00:00:07")
    with refusal("ADDRESS_UNUSABLE", "10.9.0.1 is in no subnet"):
        await manager.claim("vm", "10.9.0.1")
    with refusal("ADDRESS_UNUSABLE", "is the gateway"):
        await manager.claim("vm", "10.1.0.1")
    assert await manager.claims() == []
    assert await free(manager, "10.1.0.8")


async def test_no_more_than_there_are(manager: Manager) -> None:
    claims = (manager.claim(f"vm-{number}", network="media") for number in range(9))
    outcomes = await asyncio.gather(*claims, return_exceptions=True)
    won = [held(one)[0] for one in outcomes if isinstance(one, types.IPClaim)]
    assert sorted(won) == [f"10.3.0.{last}" for last in range(1, 7)]
    with refusal("POOL_EXHAUSTED", "t1/media"):
        await manager.claim("late", network="media")


async def test_it_takes_no_address_of_a_group(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.2"])
    assert held(await manager.claim("any"))[0] == "10.1.0.3"
    with refusal("ADDRESS_TAKEN", "set aside for IP group t1/g"):
        await manager.claim("vm", "10.1.0.2")
    with refusal("ADDRESS_TAKEN", "held by claim t1/any"):
        await manager.group("h", ips=["10.1.0.3"])


async def test_a_tenant_claims_on_networks_that_it_can_use(manager: Manager) -> None:
    made = await manager.claim("vm", network="public")
    assert made.network == "admin/public"
    with refusal("NETWORK_NOT_FOUND"):
        await manager.claim("vm", tenant="t2", network="t1/control")


async def test_its_addresses_count_for_its_tenant(manager: Manager) -> None:
    await manager.claim("vm")
    tenant = (await manager.stub.GetTenant(pb.GetTenantRequest(name="t1"))).tenant
    assert tenant.used.addresses == 2
    tenant.quota.addresses = 3
    await manager.stub.UpdateTenant(pb.UpdateTenantRequest(tenant=tenant))
    await manager.pod("web-0", CLAIMED)
    assert (await manager.stub.GetTenant(pb.GetTenantRequest(name="t1"))).tenant.used.addresses == 2
    with refusal("QUOTA_EXCEEDED"):
        await manager.claim("second")
    assert len(await manager.claims()) == 1


# -- using ---------------------------------------------------------------------------------------------------------------------


async def test_a_set_uses_it_and_gives_it_back_to_it(manager: Manager) -> None:
    made = await manager.claim("vm")
    used = await manager.pod("vm-pod", CLAIMED, wish("media"))
    assert list(used.ports[0].addresses) == list(made.addresses)
    assert used.ports[0].mac == made.mac
    assert (await manager.read_claim("vm")).used_by == used.owner
    await manager.end_pod("vm-pod")
    after = await manager.read_claim("vm")
    assert not after.HasField("used_by")
    assert (after.addresses, after.mac) == (made.addresses, made.mac)
    assert not await free(manager, held(made)[0])
    assert told(await manager.pod("vm-pod-2", CLAIMED)) == held(made)


async def test_a_second_user_is_refused_and_takes_nothing(manager: Manager) -> None:
    await manager.claim("vm")
    await manager.pod("vm-pod", CLAIMED)
    with refusal("OBJECT_IN_USE", "claim t1/vm is used by pod t1/vm-pod"):
        await manager.pod("other", wish("media"), CLAIMED)
    assert len(await manager.sets()) == 1
    assert await free(manager, "10.3.0.1", "media")


async def test_of_many_at_once_one_gets_it(manager: Manager) -> None:
    await manager.claim("vm")
    outcomes = await asyncio.gather(*(manager.pod(f"vm-{number}", CLAIMED) for number in range(8)), return_exceptions=True)
    (winner,) = [one for one in outcomes if isinstance(one, types.PortSet)]
    assert (await manager.read_claim("vm")).used_by == winner.owner


async def test_a_newer_plan_moves_in_and_out_of_it(manager: Manager) -> None:
    made = await manager.claim("vm")
    before = await manager.pod("pod", wish("control"))
    inside = await manager.pod("pod", CLAIMED, replace=True)
    assert told(inside) == held(made)
    assert await free(manager, told(before)[0])
    outside = await manager.pod("pod", wish("control"), replace=True)
    assert not set(told(outside)) & set(held(made))
    assert not (await manager.read_claim("vm")).HasField("used_by")


@pytest.mark.parametrize(
    ("wanted", "reason", "said"),
    [
        (wish("media", ip_claim="vm"), "WISH_INVALID", "claim t1/vm is for network t1/control, not t1/media"),
        (wish("control", ip_claim="wm"), "OBJECT_NOT_FOUND", "tenant t1 has no claim 'wm'"),
        (wish("control", ip_claim="vm", addresses=["10.1.0.9"]), "WISH_INVALID", "brings its own addresses"),
        (wish("control", ip_claim="vm", mac="02:00:00:00:00:01"), "WISH_INVALID", "brings its own addresses"),
    ],
)
async def test_a_wish_must_fit_the_claim(manager: Manager, wanted: types.Wish, reason: str, said: str) -> None:
    await manager.claim("vm")
    with refusal(reason, said):
        await manager.pod("pod", wanted)
    assert not (await manager.read_claim("vm")).HasField("used_by")


async def test_one_owner_uses_it_once(manager: Manager) -> None:
    await manager.claim("vm")
    twice = wish("control", interface="a", ip_claim="vm"), wish("control", interface="b", ip_claim="vm")
    with refusal("WISH_INVALID", "another interface of the same owner"):
        await manager.pod("pod", *twice)


async def test_a_claim_is_its_tenants(manager: Manager) -> None:
    await manager.claim("vm", network="public")
    with refusal("OBJECT_NOT_FOUND", "tenant t2 has no claim"):
        await manager.pod("thief", wish("admin/public", ip_claim="vm"), tenant="t2")


# -- changing and ending ---------------------------------------------------------------------------------------------------------


async def test_it_changes_while_nobody_uses_it(manager: Manager) -> None:
    made = await manager.claim("vm", "10.1.0.9")
    now = await manager.change_claim("vm", "10.1.0.8", interface="eth1")
    assert held(now) == ["10.1.0.8", held(made)[1]]
    assert (now.mac, now.interface) == (made.mac, "eth1")
    assert await free(manager, "10.1.0.9")
    moved = await manager.change_claim("vm", network="media", mac="02:00:00:00:00:05")
    assert held(moved) == ["10.3.0.1"]
    assert await free(manager, held(made)[1])
    await manager.pod("web-0", wish("control", mac=made.mac))


async def test_it_does_not_change_while_it_is_used(manager: Manager) -> None:
    await manager.claim("vm", "10.1.0.9")
    await manager.pod("vm-pod", CLAIMED)
    before = await manager.read_claim("vm")
    with refusal("OBJECT_IN_USE", "claim t1/vm is used by pod t1/vm-pod"):
        await manager.change_claim("vm", "10.1.0.8")
    assert await manager.change_claim("vm", "10.1.0.9") == before


async def test_a_change_that_fails_has_changed_nothing(manager: Manager) -> None:
    await manager.pod("web-0", wish("control", addresses=["10.1.0.8"]))
    made = await manager.claim("vm", "10.1.0.9")
    with refusal("ADDRESS_TAKEN"):
        await manager.change_claim("vm", "10.1.0.7", "10.1.0.8")
    with refusal("REVISION_STALE"):
        await manager.change_claim("vm", "10.1.0.7", revision=made.revision + 5)
    assert await manager.read_claim("vm") == made
    assert await free(manager, "10.1.0.7")


async def test_it_is_not_deleted_while_it_is_used(manager: Manager) -> None:
    made = await manager.claim("vm")
    await manager.pod("vm-pod", CLAIMED)
    with refusal("OBJECT_IN_USE", "pod t1/vm-pod"):
        await manager.delete_claim("vm")
    await manager.end_pod("vm-pod")
    await manager.delete_claim("vm")
    await manager.delete_claim("vm")
    with refusal("OBJECT_NOT_FOUND"):
        await manager.read_claim("vm")
    for address in held(made):
        assert await free(manager, address)
    await manager.pod("web-0", wish("control", mac=made.mac))


async def test_a_network_with_one_cannot_be_deleted(manager: Manager) -> None:
    await manager.claim("vm")
    request = pb.DeleteNetworkRequest(tenant="t1", name="control")
    with refusal("OBJECT_IN_USE", "claim t1/vm"):
        await manager.stub.DeleteNetwork(request)
    cut = types.Network(tenant="t1", name="control", subnets=[types.Subnet(cidr="10.1.0.0/28", gateway="10.1.0.1")])
    with refusal("OBJECT_IN_USE", "claim t1/vm"):
        await manager.stub.UpdateNetwork(pb.UpdateNetworkRequest(network=cut))
    await manager.delete_claim("vm")
    await manager.stub.DeleteNetwork(request)


async def test_claims_and_their_users_outlive_the_manager(site: Site) -> None:
    async with manager_on(await site.open()) as manager:
        await manager.network("control", "10.1.0.0/28")
        await manager.claim("idle")
        await manager.claim("vm")
        await manager.pod("vm-pod", CLAIMED)
        before = await manager.claims()
    async with manager_on(await site.open()) as manager:
        assert await manager.claims() == before
        assert told(await manager.pod("other", wish("control"))) == ["10.1.0.3"]
        await manager.end_pod("vm-pod")
        assert told(await manager.pod("next", CLAIMED)) == held(before[1])
        assert (await manager.stub.GetTenant(pb.GetTenantRequest(name="t1"))).tenant.used.addresses == 3
