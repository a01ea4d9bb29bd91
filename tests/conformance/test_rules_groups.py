"""The rules of IP groups, through the API, on every store: a named set of addresses of one network, reserved as a whole, so that
a set of pods always gets addresses from it."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from harness.rules import Manager, manager_on, members, named_owner, pod_owner, refusal, told, users, wish
from harness.stores import Site

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types

GROUP = wish("control", ip_group="g")


@pytest.fixture
async def manager(site: Site) -> AsyncIterator[Manager]:
    """t1 has `control`, 10.1.0.0/28 and 2001:db8::/124, with gateways; the operator has `public`."""
    async with manager_on(await site.open()) as manager:
        gateways = types.Subnet(cidr="10.1.0.0/28", gateway="10.1.0.1"), types.Subnet(cidr="2001:db8::/124", gateway="2001:db8::1")
        await manager.network("control", *gateways)
        await manager.network("public", "10.2.0.0/28", tenant="admin", public=True)
        yield manager


async def everything(manager: Manager, *taken: str) -> None:
    """All IPv4 addresses of `control` but these can still be had by anybody."""
    free = sorted({f"10.1.0.{last}" for last in range(2, 15)} - set(taken))
    for address in free:
        await manager.allocate(named_owner(address), wish("control", addresses=[address]))
    for address in free:
        await manager.release(named_owner(address))


# -- making ----------------------------------------------------------------------------------------------------------------------


async def test_by_list_it_holds_these_addresses_in_their_order(manager: Manager) -> None:
    made = await manager.group("g", ips=["10.1.0.9", "2001:db8::0:7", "10.1.0.3"])
    assert members(made) == ["10.1.0.9", "2001:db8::7", "10.1.0.3"]
    assert (made.network, made.source, users(made)) == ("t1/control", "api", {})
    assert made.id
    assert made.revision
    assert await manager.read_group("g") == made
    assert await manager.groups() == [made]


async def test_by_count_it_holds_as_many_of_each_family(manager: Manager) -> None:
    made = await manager.group("g", size=4)
    assert len([one for one in members(made) if ":" in one]) == 4
    assert len(set(members(made))) == 8
    assert made.size == 4
    assert not made.ips


async def test_a_list_and_a_count_exclude_each_other(manager: Manager) -> None:
    with refusal("FIELD_INVALID", "size"):
        await manager.group("g", ips=["10.1.0.3"], size=1)


@pytest.mark.parametrize(
    ("ips", "reason", "said"),
    [
        (["10.1.0.3", "10.9.0.1"], "ADDRESS_UNUSABLE", "10.9.0.1 is in no subnet of network t1/control"),
        (["10.1.0.3", "10.1.0.3"], "FIELD_INVALID", "10.1.0.3 is ips[0] again"),
        (["10.1.0.3", "10.1.0.1"], "ADDRESS_UNUSABLE", "10.1.0.1 of network t1/control is the gateway"),
        (["10.1.0.3", "10.1.0.15"], "ADDRESS_UNUSABLE", "10.1.0.15 of network t1/control is excluded, or the subnet's own"),
        (["10.1.0.3", "ten"], "FIELD_INVALID", "ips[1]"),
        ([f"10.1.0.{last}" for last in range(40)], "LIMIT_EXCEEDED", "32"),
    ],
)
async def test_a_wrong_list_makes_nothing(manager: Manager, ips: list[str], reason: str, said: str) -> None:
    with refusal(reason, said):
        await manager.group("g", ips=ips)
    assert await manager.groups() == []
    await everything(manager)


async def test_with_an_address_that_somebody_has_nothing_is_made(manager: Manager) -> None:
    await manager.pod("web-0", wish("control", addresses=["10.1.0.4"]))
    with refusal("ADDRESS_TAKEN", "ips[1]: 10.1.0.4 of network t1/control is held by pod t1/web-0"):
        await manager.group("g", ips=["10.1.0.3", "10.1.0.4", "10.1.0.5"])
    assert await manager.groups() == []
    await everything(manager, "10.1.0.4")


async def test_two_groups_share_no_address(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.3"])
    with refusal("ADDRESS_TAKEN", "10.1.0.3 of network t1/control is one of IP group t1/g"):
        await manager.group("h", ips=["10.1.0.2", "10.1.0.3"])
    assert [one.name for one in await manager.groups()] == ["g"]


async def test_more_than_is_free_is_refused_whole(manager: Manager) -> None:
    with refusal("POOL_EXHAUSTED", "13 free IPv4 addresses, and 20 are wanted"):
        await manager.group("g", size=20)
    await everything(manager)


async def test_a_large_one_is_made_whole(manager: Manager) -> None:
    await manager.network("wide", "10.64.0.0/16", "2001:db8:64::/64")
    made = await manager.group("g", size=1000, network="wide")
    assert len(set(members(made))) == 2000
    assert made == await manager.group("g", size=1000, network="wide")
    smaller = await manager.change_group("g", size=10, network="wide")
    assert members(smaller) == members(made)[:10] + members(made)[1000:1010]
    await manager.delete_group("g", network="wide")


async def test_an_empty_one_gives_nobody_an_address(manager: Manager) -> None:
    assert members(await manager.group("g")) == []
    with refusal("GROUP_EXHAUSTED", "t1/g"):
        await manager.pod("web-0", GROUP)
    assert await manager.sets() == []


async def test_its_name_is_unique_per_tenant_and_network(manager: Manager) -> None:
    made = await manager.group("g", ips=["10.1.0.3"])
    assert await manager.group("g", ips=["10.1.0.3"]) == made
    with refusal("OBJECT_EXISTS", "another ips"):
        await manager.group("g", ips=["10.1.0.4"])
    await manager.network("media", "10.3.0.0/28")
    await manager.group("g", ips=["10.3.0.3"], network="media")
    await manager.group("g", ips=["10.1.0.4"], tenant="admin", network="t1/control")
    assert [(one.tenant, one.network) for one in await manager.groups(network="t1/control")] == [
        ("admin", "t1/control"),
        ("t1", "t1/control"),
    ]
    assert len(await manager.groups(tenant="t1")) == 2


async def test_identical_creates_at_once_are_one(manager: Manager) -> None:
    made = await asyncio.gather(*(manager.group("g", size=3) for _ in range(10)))
    assert len({one.id for one in made}) == 1


async def test_on_a_public_network_it_is_the_operators_to_make(manager: Manager) -> None:
    with refusal("TENANT_DENIED", "network admin/public is public", "operator's to make"):
        await manager.group("g", size=2, network="public")
    await manager.group("g", size=2, tenant="admin", network="public")
    assert len(told(await manager.pod("web-0", wish("public", ip_group="g")))) == 1


async def test_no_tenant_makes_one_on_anothers_network(manager: Manager) -> None:
    with refusal("NETWORK_NOT_FOUND"):
        await manager.group("g", size=1, tenant="t2", network="t1/control")
    await manager.network("lent", "10.4.0.0/28", exported_to=["t2"])
    with refusal("TENANT_DENIED", "tenant t1's"):
        await manager.group("g", size=1, tenant="t2", network="t1/lent")


# -- taking and giving back ------------------------------------------------------------------------------------------------------


async def test_a_pod_takes_the_first_unused_one_of_each_family(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.9", "10.1.0.3", "2001:db8::9", "2001:db8::3"])
    first, second = await manager.pod("web-0", GROUP), await manager.pod("web-1", GROUP)
    assert told(first) == ["10.1.0.9", "2001:db8::9"]
    assert told(second) == ["10.1.0.3", "2001:db8::3"]
    assert first.ports[0].ip_group == "g"
    assert users(await manager.read_group("g")) == {
        "10.1.0.9": "web-0", "2001:db8::9": "web-0", "10.1.0.3": "web-1", "2001:db8::3": "web-1"
    }  # fmt: skip


async def test_what_is_released_is_the_groups_and_the_first_again(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.3", "10.1.0.4", "10.1.0.5"])
    for number in range(2):
        await manager.pod(f"web-{number}", GROUP)
    await manager.end_pod("web-0")
    assert users(await manager.read_group("g")) == {"10.1.0.4": "web-1"}
    with refusal("ADDRESS_TAKEN"):
        await manager.pod("other", wish("control", addresses=["10.1.0.3"]))
    assert told(await manager.pod("web-2", GROUP))[0] == "10.1.0.3"


async def test_none_left_is_an_error_and_nothing_is_taken(manager: Manager) -> None:
    await manager.network("media", "10.3.0.0/28")
    await manager.group("g", ips=["10.1.0.3", "2001:db8::3"])
    await manager.pod("web-0", GROUP)
    with refusal("GROUP_EXHAUSTED", "wishes[1]", "IP group t1/g of network t1/control") as refused:
        await manager.pod("web-1", wish("media"), GROUP)
    assert refused.error.grpc_code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(await manager.sets()) == 1
    assert told(await manager.pod("web-2", wish("media"))) == ["10.3.0.1"]


async def test_a_family_that_the_group_has_not_comes_from_the_pool(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.9"])
    assert told(await manager.pod("web-0", GROUP)) == ["10.1.0.9", "2001:db8::2"]


async def test_the_tenants_own_is_found_before_the_operators(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.3"], tenant="admin", network="t1/control")
    assert told(await manager.pod("web-0", GROUP))[0] == "10.1.0.3"
    await manager.group("g", ips=["10.1.0.4"])
    assert told(await manager.pod("web-1", GROUP))[0] == "10.1.0.4"


async def test_a_group_that_is_not_there_is_an_error(manager: Manager) -> None:
    await manager.group("signalling", ips=["10.1.0.3"])
    with refusal("OBJECT_NOT_FOUND", "did you mean 'signalling'?"):
        await manager.pod("web-0", wish("control", ip_group="signaling"))


async def test_pods_that_match_take_from_it_without_naming_it(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.9", "10.1.0.10"], labels={"app": "web"})
    assert told(await manager.pod("web-0", wish("control"), labels={"app": "web", "tier": "a"}))[0] == "10.1.0.9"
    assert told(await manager.pod("db-0", wish("control"), labels={"app": "db"}))[0] == "10.1.0.2"
    assert told(await manager.pod("web-1", wish("control"), labels={"app": "web"}))[0] == "10.1.0.10"
    with refusal("GROUP_EXHAUSTED", "t1/g"):
        await manager.pod("web-2", wish("control"), labels={"app": "web"})


async def test_an_address_of_a_group_goes_to_nobody_else(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.2", "10.1.0.3"])
    assert told(await manager.pod("other", wish("control")))[0] == "10.1.0.4"
    with refusal("ADDRESS_TAKEN", "10.1.0.3 of network t1/control is set aside for IP group t1/g"):
        await manager.pod("thief", wish("control", addresses=["10.1.0.3"]))
    named = wish("control", ip_group="g", addresses=["10.1.0.3"])
    assert told(await manager.pod("web-0", named))[0] == "10.1.0.3"
    with refusal("ADDRESS_TAKEN", "held by pod t1/web-0"):
        await manager.pod("web-1", named)
    with refusal("ADDRESS_UNUSABLE", "10.1.0.9 is not one of IP group g"):
        await manager.pod("web-2", wish("control", ip_group="g", addresses=["10.1.0.9"]))


async def test_a_newer_plan_without_the_group_gives_the_address_back(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.9"])
    await manager.pod("web-0", GROUP)
    moved = await manager.pod("web-0", wish("control"), replace=True)
    assert told(moved)[0] == "10.1.0.2"
    assert users(await manager.read_group("g")) == {}
    assert told(await manager.pod("web-0", GROUP, replace=True))[0] == "10.1.0.9"
    assert told(await manager.pod("web-1", wish("control")))[0] != "10.1.0.9"


async def test_as_many_win_as_there_are_addresses(manager: Manager) -> None:
    await manager.group("g", ips=[f"10.1.0.{last}" for last in range(3, 8)])
    wishes = wish("control", ip_group="g")
    outcomes = await asyncio.gather(*(manager.pod(f"web-{number}", wishes) for number in range(12)), return_exceptions=True)
    won = [told(one)[0] for one in outcomes if isinstance(one, types.PortSet)]
    assert sorted(won) == [f"10.1.0.{last}" for last in range(3, 8)]
    assert len(users(await manager.read_group("g"))) == 5


# -- changing and ending ---------------------------------------------------------------------------------------------------------


async def test_what_is_used_cannot_be_taken_out(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.3", "10.1.0.4"])
    await manager.pod("web-0", GROUP)
    before = await manager.read_group("g")
    with refusal("OBJECT_IN_USE", "10.1.0.3 is used by pod t1/web-0"):
        await manager.change_group("g", ips=["10.1.0.4", "10.1.0.5"])
    with refusal("OBJECT_IN_USE", "10.1.0.3 is used by pod t1/web-0"):
        await manager.change_group("g")
    assert await manager.read_group("g") == before
    with refusal("ADDRESS_TAKEN"):
        await manager.pod("other", wish("control", addresses=["10.1.0.4"]))
    await everything(manager, "10.1.0.3", "10.1.0.4")


async def test_it_cannot_shrink_below_what_is_used(manager: Manager) -> None:
    made = await manager.group("g", size=3)
    for number in range(2):
        await manager.pod(f"web-{number}", GROUP)
    with refusal("OBJECT_IN_USE", "cannot shrink to 1: 2 are used", "pod t1/web-1"):
        await manager.change_group("g", size=1)
    assert members(await manager.read_group("g")) == members(made)
    await manager.end_pod("web-0")
    smaller = await manager.change_group("g", size=1)
    assert users(smaller) == dict.fromkeys(members(smaller), "web-1")
    larger = await manager.change_group("g", size=5)
    assert set(members(smaller)) < set(members(larger))
    assert len(members(larger)) == 10


async def test_unused_ones_come_and_go(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.3", "10.1.0.4"])
    await manager.pod("web-0", GROUP)
    now = await manager.change_group("g", ips=["10.1.0.5", "10.1.0.3"], labels={"app": "web"})
    assert members(now) == ["10.1.0.5", "10.1.0.3"]
    assert users(now) == {"10.1.0.3": "web-0"}
    assert told(await manager.pod("other", wish("control", addresses=["10.1.0.4"])))[0] == "10.1.0.4"
    assert told(await manager.pod("web-1", wish("control"), labels={"app": "web"}))[0] == "10.1.0.5"


async def test_a_stale_revision_and_a_foreign_source_change_nothing(manager: Manager) -> None:
    made = await manager.group("g", ips=["10.1.0.3"], source="files:site")
    with refusal("SOURCE_FOREIGN", "files:site"):
        await manager.change_group("g", ips=["10.1.0.4"])
    with refusal("SOURCE_FOREIGN", "files:site"):
        await manager.delete_group("g")
    with refusal("REVISION_STALE"):
        await manager.change_group("g", ips=["10.1.0.4"], revision=made.revision + 7, source="files:site")
    assert await manager.read_group("g") == made


async def test_one_that_is_used_cannot_be_deleted(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.3"])
    await manager.pod("web-0", GROUP)
    with refusal("OBJECT_IN_USE", "10.1.0.3 is used by pod t1/web-0"):
        await manager.delete_group("g")
    await manager.end_pod("web-0")
    await manager.delete_group("g")
    await manager.delete_group("g")
    with refusal("OBJECT_NOT_FOUND"):
        await manager.read_group("g")
    await everything(manager)


async def test_a_network_with_one_cannot_be_deleted(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.3"])
    request = pb.DeleteNetworkRequest(tenant="t1", name="control")
    with refusal("OBJECT_IN_USE", "g"):
        await manager.stub.DeleteNetwork(request)
    await manager.delete_group("g")
    await manager.stub.DeleteNetwork(request)


async def test_a_network_cannot_take_its_addresses_away(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.3"])
    cut = types.Network(tenant="t1", name="control", subnets=[types.Subnet(cidr="10.1.0.0/28", exclude=["10.1.0.2/31"])])
    with refusal("OBJECT_IN_USE"):
        await manager.stub.UpdateNetwork(pb.UpdateNetworkRequest(network=cut))
    assert members(await manager.read_group("g")) == ["10.1.0.3"]


# -- after a restart -------------------------------------------------------------------------------------------------------------


async def test_groups_and_their_users_outlive_the_manager(site: Site) -> None:
    async with manager_on(await site.open()) as manager:
        await manager.network("control", "10.1.0.0/28")
        await manager.group("g", ips=["10.1.0.9", "10.1.0.3", "10.1.0.4"])
        await manager.pod("web-0", GROUP)
        await manager.pod("web-1", GROUP)
        await manager.end_pod("web-0")
        before = await manager.read_group("g")
    async with manager_on(await site.open()) as manager:
        assert await manager.read_group("g") == before
        assert users(before) == {"10.1.0.3": "web-1"}
        assert told(await manager.pod("web-2", GROUP)) == ["10.1.0.9"]
        assert told(await manager.pod("other", wish("control"))) == ["10.1.0.1"]
        with refusal("OBJECT_IN_USE", "10.1.0.9 is used by pod t1/web-2"):
            await manager.delete_group("g")


async def test_the_pods_of_one_group_are_found_by_address(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.3"])
    await manager.pod("web-0", GROUP)
    found = await manager.sets(address="10.1.0.3")
    assert [one.owner for one in found] == [pod_owner("web-0")]


async def test_listings_come_in_pages(manager: Manager) -> None:
    for number in range(5):
        await manager.group(f"g{number}")
    names: list[str] = []
    token = ""
    while True:
        answer = await manager.stub.ListIPGroups(pb.ListIPGroupsRequest(page_size=2, page_token=token))
        names += [one.name for one in answer.ip_groups]
        token = answer.next_page_token
        if not token:
            break
    assert names == [f"g{number}" for number in range(5)]


async def test_an_address_may_be_wanted_beside_the_group(manager: Manager) -> None:
    await manager.group("g", ips=["10.1.0.9"])
    beside = wish("control", ip_group="g", addresses=["2001:db8::e"])
    assert told(await manager.pod("web-0", beside)) == ["10.1.0.9", "2001:db8::e"]
