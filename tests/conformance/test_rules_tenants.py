"""The rules of tenants, through the API, on every store: who may hold how much of what, and how one ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import pytest
from harness.rules import Manager, manager_on, named_owner, pod_owner, refusal, told, wish
from harness.stores import Site

from knitter.v1 import types_pb2 as types
from knitter_common.errors import from_rpc_error

WISH = wish("control", interface="eth0")
ACTIVE, DELETING = types.OBJECT_STATE_ACTIVE, types.OBJECT_STATE_DELETING
MACVLAN, VLAN, VXLAN = types.NETWORK_TYPE_MACVLAN, types.NETWORK_TYPE_VLAN, types.NETWORK_TYPE_VXLAN


@pytest.fixture
async def manager(site: Site) -> AsyncIterator[Manager]:
    async with manager_on(await site.open()) as manager:
        yield manager


async def reasons(*calls: Awaitable[Any]) -> list[str]:
    """How each of the calls, made at once, ended: the reason it was refused for, "" where it was not."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    return [from_rpc_error(one).reason if isinstance(one, grpc.RpcError) else "" for one in outcomes]


# -- making ----------------------------------------------------------------------------------------------------------------------


async def test_admin_is_built_in_and_cannot_be_deleted(manager: Manager) -> None:
    assert (await manager.read_tenant("admin")).name == "admin"
    with refusal("OBJECT_BUILT_IN", "admin"):
        await manager.delete_tenant("admin")
    await manager.change_tenant("admin", description="the operator", quota=types.Quota(networks=50))
    assert await manager.tenants() == ["admin"]


async def test_others_are_made_by_call(manager: Manager) -> None:
    made = await manager.tenant("t1", description="one", labels={"team": "a"}, quota=types.Quota(networks=3))
    assert made.state == ACTIVE
    assert made.source == "api"
    assert made.HasField("create_time")
    assert await manager.read_tenant("t1") == made
    assert await manager.tenant("t1", description="one", labels={"team": "a"}, quota=types.Quota(networks=3)) == made
    with refusal("OBJECT_EXISTS", "t1", "update it"):
        await manager.tenant("t1", description="other")
    with refusal("OBJECT_NOT_FOUND", "did you mean 't1'"):
        await manager.read_tenant("t2")


async def test_or_by_being_used(manager: Manager) -> None:
    await manager.network("own", "10.0.0.0/24", tenant="t2")
    await manager.network("public", "10.1.0.0/24", tenant="admin", public=True)
    await manager.pod("web", wish("public"), tenant="t3")
    assert await manager.tenants() == ["admin", "t2", "t3"]
    assert (await manager.read_tenant("t2")).used.networks == 1
    assert (await manager.read_tenant("t3")).used == types.Quota(ports=1, addresses=1)
    made = await manager.tenant("t3", labels={"team": "b"})  # made known only now
    assert (made.used.ports, made.labels) == (1, {"team": "b"})


async def test_a_namespace_of_the_operators_name_is_no_tenant(manager: Manager) -> None:
    await manager.network("own", "10.0.0.0/24", tenant="admin")
    with refusal("TENANT_DENIED", "namespace admin", "rename"):
        await manager.pod("web", wish("own"), tenant="admin")
    made = await manager.allocate(pod_owner("ours", tenant="knitter-system"), wish("own"), tenant="admin")
    assert made.tenant == "admin"


# -- quotas ----------------------------------------------------------------------------------------------------------------------


async def test_ten_networks_for_a_tenant_and_a_hundred_for_the_operator(manager: Manager) -> None:
    assert (await reasons(*(manager.network(f"n{number}") for number in range(30)))).count("") == 10
    assert (await reasons(*(manager.network(f"n{number}", tenant="admin") for number in range(103)))).count("") == 100
    with refusal("QUOTA_EXCEEDED", "tenant t1", "10 of 10 networks"):
        await manager.network("more")


@pytest.mark.parametrize("networks", [1, 1000])
async def test_a_quota_of_networks_is_from_1_to_1000(manager: Manager, networks: int) -> None:
    assert (await manager.tenant("t1", quota=types.Quota(networks=networks))).quota.networks == networks
    with refusal("FIELD_INVALID", "quota.networks", "1001"):
        await manager.change_tenant("t1", quota=types.Quota(networks=1001))


async def test_quotas_of_ports_and_addresses_hold_for_a_hundred_at_once(manager: Manager) -> None:
    await manager.network("shared", "10.0.0.0/16", "2001:db8::/64", tenant="admin", public=True)
    await manager.tenant("t1")
    for quota, won in ((types.Quota(ports=7), 7), (types.Quota(addresses=17), 8)):
        await manager.change_tenant("t1", quota=quota)
        ended = await reasons(*(manager.pod(f"p{number}", wish("shared")) for number in range(100)))
        assert sorted(set(ended)) == ["", "QUOTA_EXCEEDED"]
        assert ended.count("") == won
        assert (await manager.read_tenant("t1")).used == types.Quota(ports=won, addresses=2 * won)
        for one in await manager.sets():
            await manager.release(one.owner)
    assert (await manager.read_tenant("t1")).used == types.Quota()
    await manager.pod("free", wish("shared"), tenant="t2")  # nobody else's affair


async def test_a_quota_is_never_set_below_what_is_used(manager: Manager) -> None:
    await manager.network("control", "10.0.0.0/24", "2001:db8::/64")
    await manager.network("media")
    await manager.pod("a", WISH)
    await manager.pod("b", WISH)
    for quota, said in (
        (types.Quota(networks=1), "quota.networks: 1 is below the 2 that tenant t1 holds"),
        (types.Quota(ports=1), "quota.ports: 1 is below the 2"),
        (types.Quota(addresses=3), "quota.addresses: 3 is below the 4"),
    ):
        with refusal("OBJECT_IN_USE", said):
            await manager.change_tenant("t1", quota=quota)
        assert (await manager.read_tenant("t1")).quota == types.Quota()
    await manager.change_tenant("t1", quota=types.Quota(networks=2, ports=2, addresses=4))
    with refusal("QUOTA_EXCEEDED", "tenant t1 holds 2 of 2 ports"):
        await manager.pod("c", WISH)


async def test_also_while_a_hundred_others_ask(manager: Manager) -> None:
    await manager.network("control", "10.0.0.0/16")
    await manager.network("spare")

    async def lowered(ports: int) -> None:
        await asyncio.sleep(0)
        await manager.change_tenant("t1", quota=types.Quota(ports=ports, networks=2 + ports % 2))

    for round_ in range(3):
        asked = [manager.pod(f"p{round_}-{number}", WISH) for number in range(33)]
        lower = lowered(5 + 20 * round_), lowered(3 + 20 * round_)
        await reasons(*asked[:11], lower[0], *asked[11:22], lower[1], *asked[22:], manager.network("x"))
        tenant = await manager.read_tenant("t1")
        assert tenant.used.ports <= (tenant.quota.ports or 100)
        assert tenant.used.networks <= (tenant.quota.networks or 10)
        assert tenant.used.ports == len(await manager.sets())


async def test_a_claim_counts_and_a_group_does_not(manager: Manager) -> None:
    await manager.network("control", "10.0.0.0/24")
    await manager.group("g", size=9)
    await manager.claim("c")
    assert (await manager.read_tenant()).used == types.Quota(networks=1, addresses=1)


# -- rights ----------------------------------------------------------------------------------------------------------------------


async def test_tenants_create_bridges_and_overlays_whose_id_the_system_chooses(manager: Manager) -> None:
    await manager.network("plain", "10.0.0.0/24")
    assert (await manager.network("over", type=VXLAN)).segmentation_id == 5000
    with refusal("TENANT_DENIED", "type: tenant t1 may not create networks of type macvlan", "bridge, vxlan"):
        await manager.network("lan", type=MACVLAN, physical_network="eth1")
    with refusal("TENANT_DENIED", "segmentationId", "leave it out"):
        await manager.network("mine", type=VXLAN, segmentation_id=6000)
    with refusal("TENANT_DENIED", "physicalNetwork", "allowed are: none"):
        await manager.network("wired", physical_network="br-ext", external=True)
    with refusal("FIELD_INVALID", "public", "only networks of admin are public"):
        await manager.network("pub", public=True)
    await manager.network("mine", type=VXLAN, segmentation_id=6000, tenant="admin")


async def test_and_what_the_operator_allows_them(manager: Manager) -> None:
    await manager.tenant("t1", allowed_types=[MACVLAN, VLAN], allowed_physical_networks=["eth1"])
    await manager.network("lan", type=MACVLAN, physical_network="eth1")
    assert (await manager.network("v", type=VLAN, physical_network="eth1", segmentation_id=77)).segmentation_id == 77
    with refusal("TENANT_DENIED", "'eth2'", "allowed are: eth1"):
        await manager.network("lan2", type=MACVLAN, physical_network="eth2")
    with refusal("TENANT_DENIED", "type bridge", "macvlan, vlan"):
        await manager.network("plain")
    with refusal("TENANT_DENIED", "'eth2'"):
        await manager.change_network("lan", physical_network="eth2")


async def test_what_a_tenant_has_it_may_go_on_using(manager: Manager) -> None:
    await manager.tenant("t1", allowed_types=[MACVLAN, VXLAN], allowed_physical_networks=["eth1"])
    await manager.network("lan", "10.0.0.0/24", type=MACVLAN, physical_network="eth1")
    over = await manager.network("over", type=VXLAN)
    changed = await manager.change_network("over", description="its id was the system's choice, and stays")
    assert changed.segmentation_id == over.segmentation_id
    with refusal("TENANT_DENIED", "segmentationId"):
        await manager.change_network("over", segmentation_id=7000)
    await manager.change_tenant("t1")  # nothing but what is allowed to all
    changed = await manager.change_network("lan", subnets=[types.Subnet(cidr="10.0.0.0/24"), types.Subnet(cidr="10.0.1.0/24")])
    assert len(changed.subnets) == 2


# -- the end ---------------------------------------------------------------------------------------------------------------------


async def furnished(manager: Manager) -> None:
    """t1 has a network, a group, a claim, a pod that uses the group, a service's set, and a sticky pod's that is gone."""
    await manager.network("control", "10.0.0.0/24")
    await manager.group("g", ips=["10.0.0.5", "10.0.0.6"])
    await manager.claim("c")
    await manager.pod("web", wish("control", ip_group="g"))
    await manager.allocate(named_owner("service"), wish("control", ip_group="g"))
    await manager.pod("db-0", wish("control", ip_claim="c"), sticky=True)
    await manager.end_pod("db-0")


async def test_it_waits_for_its_pods_and_takes_nothing_meanwhile(manager: Manager) -> None:
    await furnished(manager)
    before = await manager.sets()
    begun = await manager.delete_tenant()
    assert begun.state == DELETING
    assert begun.HasField("delete_time")
    assert "pod t1/web" in begun.in_the_way
    with refusal("OBJECT_DELETING", "t1"):
        await manager.pod("new", WISH)
    with refusal("OBJECT_DELETING", "t1"):
        await manager.network("more")
    with refusal("OBJECT_DELETING", "t1"):
        await manager.group("more", size=1)
    with refusal("OBJECT_DELETING", "t1"):
        await manager.claim("more")
    with refusal("OBJECT_DELETING", "t1"):
        await manager.tenant("t1")
    again = await manager.delete_tenant()
    assert (again.state, again.delete_time) == (DELETING, begun.delete_time)
    assert await manager.sets() == before
    assert len(await manager.groups()) == len(await manager.claims()) == 1


async def test_then_groups_ports_networks_and_the_tenant_end_in_this_order(manager: Manager) -> None:
    await furnished(manager)
    await manager.delete_tenant()
    here = await manager.position()
    await manager.end_pod("web")
    changes = await manager.until(here, lambda change: change.deleted.key == "tenant/t1")
    families = [change.deleted.key.partition("/")[0] for change in changes if change.HasField("deleted")]
    assert families == ["portset", "group", "portset", "portset", "claim", "network", "tenant"]
    assert (await manager.tenants(), await manager.networks(), await manager.sets()) == (["admin"], [], [])
    assert await manager.claims() == []
    await manager.tenant("t1")  # anew


async def test_a_tenant_that_holds_nothing_is_gone_at_once(manager: Manager) -> None:
    await manager.tenant("t1")
    here = await manager.position()
    await manager.delete_tenant()
    await manager.until(here, lambda change: change.deleted.key == "tenant/t1")
    assert await manager.tenants() == ["admin"]


async def test_what_many_left_behind_ends_with_it(manager: Manager) -> None:
    await manager.network("control", "10.0.0.0/16")
    await asyncio.gather(*(manager.allocate(named_owner(f"v{number}"), wish("control")) for number in range(250)))
    await asyncio.gather(*(manager.pod(f"p{number}", wish("control")) for number in range(10)))
    named = (await manager.delete_tenant()).in_the_way
    assert named.count("pod t1/p") == 3
    assert named.endswith(", and others")
    here = await manager.position()
    await asyncio.gather(*(manager.end_pod(f"p{number}") for number in range(10)))
    await manager.until(here, lambda change: change.deleted.key == "tenant/t1")
    assert await manager.sets() == []


async def test_others_on_its_networks_are_waited_for_too(manager: Manager) -> None:
    await manager.network("control", "10.0.0.0/24", exported_to=["t2"])
    await manager.group("g", size=1)
    await manager.claim("c", tenant="t2", network="t1/control")
    await manager.pod("guest", wish("t1/control"), tenant="t2")
    assert "t2" in (await manager.delete_tenant()).in_the_way
    here = await manager.position()
    await manager.end_pod("guest", tenant="t2")
    assert (await manager.read_tenant()).in_the_way == "claim t2/c"
    assert len(await manager.groups()) == 1
    await manager.delete_claim("c", tenant="t2")
    await manager.until(here, lambda change: change.deleted.key == "tenant/t1")
    assert await manager.tenants() == ["admin", "t2"]


async def test_a_deletion_goes_on_after_a_restart(site: Site) -> None:
    async with manager_on(await site.open()) as manager:
        await furnished(manager)
        begun = await manager.delete_tenant()
    async with manager_on(await site.open()) as manager:
        tenant = await manager.read_tenant()
        assert (tenant.state, tenant.delete_time) == (DELETING, begun.delete_time)
        assert "pod t1/web" in tenant.in_the_way
        here = await manager.position()
        await manager.end_pod("web")
        await manager.until(here, lambda change: change.deleted.key == "tenant/t1")


async def test_it_is_given_up_when_the_pods_stay(site: Site) -> None:
    async with manager_on(await site.open(), tenantDeletionWait="50ms") as manager:
        await furnished(manager)
        before = await manager.sets()
        here = await manager.position()
        await manager.delete_tenant()
        await manager.until(here, lambda change: change.HasField("tenant") and change.tenant.state == ACTIVE)
        tenant = await manager.read_tenant()
        assert "given up" in tenant.in_the_way
        assert "pod t1/web" in tenant.in_the_way
        assert not tenant.HasField("delete_time")
        assert await manager.sets() == before
        assert told(await manager.pod("new", WISH))
        await manager.end_pod("new")
        await manager.end_pod("web")
        here = await manager.position()
        assert (await manager.delete_tenant()).in_the_way == ""
        await manager.until(here, lambda change: change.deleted.key == "tenant/t1")
