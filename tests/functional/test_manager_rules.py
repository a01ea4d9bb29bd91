"""The rules of tenants, networks, IP groups, claims and addresses, through the gRPC API, on every store."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness.manager import serving
from harness.stores import KINDS, open_site

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.errors import KnitterError, from_rpc_error


@pytest.fixture(params=KINDS)
async def manager(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator["Api"]:
    async with open_site(request.param, tmp_path) as site, serving(await site.open(), rest="50ms") as (stub, _):
        yield Api(stub)


class Api:
    """The calls as short words; every failure is a KnitterError."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def call(self, method: str, request: Any) -> Any:
        """Any call."""
        try:
            return await getattr(self._stub, method)(request)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def network(self, name: str, *cidrs: str, tenant: str = "admin", **fields: Any) -> types.Network:
        """A new network."""
        subnets = fields.pop("subnets", None) or [types.Subnet(cidr=cidr) for cidr in cidrs]
        wanted = types.Network(tenant=tenant, name=name, subnets=subnets, **fields)
        network: types.Network = (await self.call("CreateNetwork", pb.CreateNetworkRequest(network=wanted))).network
        return network

    async def update(self, network: types.Network, **fields: Any) -> types.Network:
        """The network with other fields."""
        network.MergeFrom(types.Network(**fields))
        changed: types.Network = (await self.call("UpdateNetwork", pb.UpdateNetworkRequest(network=network))).network
        return changed

    async def delete_network(self, name: str, tenant: str = "admin") -> None:
        """It is gone."""
        await self.call("DeleteNetwork", pb.DeleteNetworkRequest(tenant=tenant, name=name))

    async def tenant(self, name: str, **fields: Any) -> types.Tenant:
        """A new tenant."""
        request = pb.CreateTenantRequest(tenant=types.Tenant(name=name, **fields))
        made: types.Tenant = (await self.call("CreateTenant", request)).tenant
        return made

    async def get_tenant(self, name: str) -> types.Tenant:
        """As it is."""
        found: types.Tenant = (await self.call("GetTenant", pb.GetTenantRequest(name=name))).tenant
        return found

    async def group(self, name: str, network: str, tenant: str = "admin", **fields: Any) -> types.IPGroup:
        """A new IP group."""
        wanted = types.IPGroup(tenant=tenant, name=name, network=network, **fields)
        made: types.IPGroup = (await self.call("CreateIPGroup", pb.CreateIPGroupRequest(ip_group=wanted))).ip_group
        return made

    async def allocate(self, owner: types.Owner, *wishes: types.Wish | str, **fields: Any) -> types.PortSet:
        """The owner's set."""
        asked = [types.Wish(network=wish) if isinstance(wish, str) else wish for wish in wishes]
        wanted = pb.Allocation(owner=owner, wishes=asked, **fields)
        answer: types.PortSet = (await self.call("Allocate", pb.AllocateRequest(allocation=wanted))).port_set
        return answer

    async def release(self, owner: types.Owner, **fields: Any) -> None:
        """Ends it."""
        await self.call("Release", pb.ReleaseRequest(release=pb.Return(owner=owner, **fields)))

    async def usage(self, network: str) -> Any:
        """Of the network's first pool."""
        answer = await self.call("ListNetworkUsage", pb.ListNetworkUsageRequest(network=network))
        return answer.networks[0].pools[0]

    async def address(self, text: str) -> pb.AddressInfo:
        """What it is."""
        found: pb.AddressInfo = (await self.call("GetAddress", pb.GetAddressRequest(address=text))).addresses[0]
        return found


def vm(name: str, tenant: str = "admin") -> types.Owner:
    """An owner by name."""
    return types.Owner(named=types.NamedOwner(tenant=tenant, name=name))


def pod(name: str, uid: str = "u1", namespace: str = "t1") -> types.Owner:
    """A pod."""
    return types.Owner(pod=types.PodOwner(namespace=namespace, name=name, uid=uid))


def ips(port_set: types.PortSet) -> list[str]:
    """Its addresses."""
    return [one.cidr.partition("/")[0] for port in port_set.ports for one in port.addresses]


class refused:
    """Expects a KnitterError with this reason, and these words in its message."""

    def __init__(self, reason: str, *words: str) -> None:
        self._reason, self._words = reason, words

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        assert isinstance(error, KnitterError), f"{self._reason} was expected, not {error!r}"
        assert error.reason == self._reason, error.message
        for word in self._words:
            assert word in error.message, error.message
        return True


# -- tenants -----------------------------------------------------------------------------------------------------------------


async def test_admin_is_built_in_and_others_are_made_by_call_or_by_use(manager: Api) -> None:
    assert (await manager.get_tenant("admin")).name == "admin"
    with refused("OBJECT_BUILT_IN", "admin"):
        await manager.call("DeleteTenant", pb.DeleteTenantRequest(name="admin"))
    await manager.tenant("t1", description="one", labels={"team": "a"})
    assert (await manager.tenant("t1", description="one", labels={"team": "a"})).labels == {"team": "a"}
    with refused("OBJECT_EXISTS", "t1"):
        await manager.tenant("t1", description="other")
    await manager.network("own", "10.0.0.0/24", tenant="t2")
    names = [one.name for one in (await manager.call("ListTenants", pb.ListTenantsRequest())).tenants]
    assert names == ["admin", "t1", "t2"]
    assert (await manager.get_tenant("t2")).used.networks == 1


async def test_quotas_hold_under_a_hundred_parallel_requests(manager: Api) -> None:
    await manager.network("shared", "10.0.0.0/16", "2001:db8::/64", public=True)
    await manager.tenant("t1", quota=types.Quota(networks=3, ports=10, addresses=16))
    pods = [manager.allocate(pod(f"p{number}"), "shared") for number in range(100)]
    outcomes = await asyncio.gather(*pods, return_exceptions=True)
    assert {one.reason for one in outcomes if isinstance(one, KnitterError)} == {"QUOTA_EXCEEDED"}
    assert len([one for one in outcomes if isinstance(one, types.PortSet)]) == 8
    nets = [manager.network(f"n{number}", tenant="t1") for number in range(20)]
    made = await asyncio.gather(*nets, return_exceptions=True)
    assert len([one for one in made if isinstance(one, types.Network)]) == 3
    used = (await manager.get_tenant("t1")).used
    assert (used.networks, used.ports, used.addresses) == (3, 8, 16)
    with refused("OBJECT_IN_USE", "quota.addresses", "16"):
        tenant = types.Tenant(name="t1", quota=types.Quota(networks=3, ports=10, addresses=15))
        await manager.call("UpdateTenant", pb.UpdateTenantRequest(tenant=tenant))
    await manager.allocate(pod("free", namespace="t2"), "shared")


async def test_tenants_create_only_what_the_operator_allows(manager: Api) -> None:
    with refused("TENANT_DENIED", "macvlan", "bridge, vxlan"):
        await manager.network("lan", tenant="t1", type=types.NETWORK_TYPE_MACVLAN, physical_network="eth1")
    with refused("TENANT_DENIED", "segmentationId"):
        await manager.network("over", tenant="t1", type=types.NETWORK_TYPE_VXLAN, segmentation_id=6000)
    over = await manager.network("over", tenant="t1", type=types.NETWORK_TYPE_VXLAN)
    assert over.segmentation_id == 5000
    await manager.tenant("t3", allowed_types=[types.NETWORK_TYPE_MACVLAN], allowed_physical_networks=["eth1"])
    with refused("TENANT_DENIED", "eth2", "eth1"):
        await manager.network("lan", tenant="t3", type=types.NETWORK_TYPE_MACVLAN, physical_network="eth2")
    await manager.network("lan", tenant="t3", type=types.NETWORK_TYPE_MACVLAN, physical_network="eth1")


async def test_a_deleted_tenant_waits_for_its_pods_and_takes_nothing_new(manager: Api) -> None:
    await manager.tenant("t1")
    await manager.network("own", "10.0.0.0/24", tenant="t1")
    await manager.group("ig", "own", tenant="t1", size=2)
    claim = types.IPClaim(tenant="t1", name="vm", network="own")
    await manager.call("CreateIPClaim", pb.CreateIPClaimRequest(ip_claim=claim))
    await manager.allocate(pod("web"), "own")
    await manager.allocate(vm("left", "t1"), "own")
    deleted = await manager.call("DeleteTenant", pb.DeleteTenantRequest(name="t1"))
    assert deleted.tenant.state == types.OBJECT_STATE_DELETING
    with refused("OBJECT_DELETING", "t1"):
        await manager.allocate(pod("new"), "own")
    with refused("OBJECT_DELETING"):
        await manager.network("more", tenant="t1")
    await _until(manager, lambda tenant: tenant is not None and tenant.used.ports == 1)
    assert len((await manager.call("ListPortSets", pb.ListPortSetsRequest(tenant="t1"))).port_sets) == 1
    await manager.release(pod("web"))
    await _until(manager, lambda tenant: tenant is None)
    assert not (await manager.call("ListNetworks", pb.ListNetworksRequest())).networks
    assert not (await manager.call("ListIPClaims", pb.ListIPClaimsRequest())).ip_claims


async def _until(manager: Api, holds: Callable[[types.Tenant | None], bool]) -> None:
    """Until it holds for tenant t1, None for gone; at most 10 s."""
    for _ in range(1000):
        tenants = (await manager.call("ListTenants", pb.ListTenantsRequest())).tenants
        if holds(next((one for one in tenants if one.name == "t1"), None)):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it took too long")


# -- networks ----------------------------------------------------------------------------------------------------------------


async def test_segmentation_ids_are_chosen_lowest_first_and_never_twice(manager: Api) -> None:
    overlays = [await manager.network(f"o{number}", type=types.NETWORK_TYPE_VXLAN) for number in range(3)]
    assert [one.segmentation_id for one in overlays] == [5000, 5001, 5002]
    with refused("SEGMENT_TAKEN", "5001", "admin/o1"):
        await manager.network("x", type=types.NETWORK_TYPE_VXLAN, segmentation_id=5001)
    await manager.delete_network("o1")
    assert (await manager.network("o3", type=types.NETWORK_TYPE_VXLAN)).segmentation_id == 5003  # 5001 rests
    await asyncio.sleep(0.06)
    assert (await manager.network("o4", type=types.NETWORK_TYPE_VXLAN)).segmentation_id == 5001
    vlan = {"type": types.NETWORK_TYPE_VLAN, "physical_network": "eth1"}
    assert (await manager.network("v1", **vlan)).segmentation_id == 2
    assert (await manager.network("v2", **{**vlan, "physical_network": "eth2"})).segmentation_id == 2
    with refused("SEGMENT_TAKEN", "admin/v1"):
        await manager.network("v3", segmentation_id=2, **vlan)
    many = await asyncio.gather(*(manager.network(f"p{number}", **vlan) for number in range(20)))
    assert sorted(one.segmentation_id for one in many) == list(range(3, 23))


async def test_what_is_in_use_is_not_hurt(manager: Api) -> None:
    pools = [types.Pool(start="10.0.0.10", end="10.0.0.20")]
    network = await manager.network("live", subnets=[types.Subnet(cidr="10.0.0.0/24", gateway="10.0.0.1", pools=pools)])
    await manager.group("ig", "live", ips=["10.0.0.30"])
    await manager.allocate(pod("web", namespace="admin"), "live")
    for subnet, words in (
        (types.Subnet(cidr="10.0.0.0/24", gateway="10.0.0.1", pools=pools, exclude=["10.0.0.10"]), "10.0.0.10 from pod admin/web"),
        (types.Subnet(cidr="10.0.0.0/24", gateway="10.0.0.1", pools=pools, exclude=["10.0.0.30"]), "IP group admin/ig would lose"),
        (types.Subnet(cidr="10.0.0.0/24", gateway="10.0.0.2", pools=pools), "gateway"),
        (types.Subnet(cidr="10.1.0.0/24"), "removing subnet 10.0.0.0/24"),
    ):
        changed = types.Network()
        changed.CopyFrom(network)
        del changed.subnets[:]
        changed.subnets.append(subnet)
        with refused("OBJECT_IN_USE", words):
            await manager.call("UpdateNetwork", pb.UpdateNetworkRequest(network=changed))
    with refused("OBJECT_IN_USE", "pod admin/web"):
        await manager.delete_network("live")
    wider = types.Pool(start="10.0.0.40", end="10.0.0.50")
    network.subnets[0].pools.append(wider)
    updated = (await manager.call("UpdateNetwork", pb.UpdateNetworkRequest(network=network))).network
    assert len(updated.subnets[0].pools) == 2


async def test_selectors_choose_who_may_use_a_network_and_which_pool(manager: Api) -> None:
    await manager.tenant("t1", labels={"zone": "edge"})
    edge = types.Usability(namespaces=types.LabelSelector(match_labels={"zone": "edge"}))
    gpu = types.Usability(nodes=types.LabelSelector(match_expressions=[types.LabelRequirement(key="gpu", operator="Exists")]))
    web = types.Usability(pods=types.LabelSelector(match_labels={"app": "web"}))
    pools = [
        types.Pool(start="10.0.0.10", end="10.0.0.11", usable_by=web),
        types.Pool(start="10.0.0.20", end="10.0.0.20"),
        types.Pool(start="10.0.0.30", end="10.0.0.30", usable_by=gpu),
    ]
    await manager.network("picky", subnets=[types.Subnet(cidr="10.0.0.0/24", pools=pools)], public=True, usable_by=edge)
    await manager.call("CreateNode", pb.CreateNodeRequest(node=types.Node(name="n1", labels={"gpu": "a"})))
    with refused("TENANT_DENIED", "zone=edge", "t2"):
        await manager.allocate(pod("a", namespace="t2"), "picky")
    got = [ips(await manager.allocate(pod(f"w{n}"), "picky", labels={"app": "web"}))[0] for n in range(3)]
    assert got == ["10.0.0.10", "10.0.0.11", "10.0.0.20"]
    with refused("POOL_EXHAUSTED"):
        await manager.allocate(pod("b"), "picky", node="n2")
    assert ips(await manager.allocate(pod("b"), "picky", node="n1")) == ["10.0.0.30"]


# -- IP groups, claims, sticky addresses -------------------------------------------------------------------------------------


async def test_a_group_gives_its_addresses_and_no_others(manager: Api) -> None:
    await manager.network("net", "10.0.0.0/24", "2001:db8::/64", tenant="t1")
    listed = await manager.group("listed", "net", tenant="t1", ips=["10.0.0.5", "10.0.0.3"])
    assert [one.address for one in listed.addresses] == ["10.0.0.5", "10.0.0.3"]
    counted = await manager.group("counted", "net", tenant="t1", size=2)
    assert len(counted.addresses) == 4
    got = [ips(await manager.allocate(pod(f"a{n}"), types.Wish(network="net", ip_group="listed"))) for n in range(2)]
    assert [one[0] for one in got] == ["10.0.0.5", "10.0.0.3"]
    assert all(one[1].startswith("2001:db8::") for one in got)
    with refused("GROUP_EXHAUSTED", "t1/listed"):
        await manager.allocate(pod("a2"), types.Wish(network="net", ip_group="listed"))
    with refused("OBJECT_NOT_FOUND", "listd", "did you mean 'listed'"):
        await manager.allocate(pod("a2"), types.Wish(network="net", ip_group="listd"))
    with refused("ADDRESS_TAKEN", "IP group t1/counted"):
        await manager.allocate(pod("a3"), types.Wish(network="net", addresses=[counted.addresses[0].address]))
    others = [ips(await manager.allocate(pod(f"o{n}"), "net"))[0] for n in range(10)]
    assert not set(others) & {one.address for group in (listed, counted) for one in group.addresses}
    request = pb.GetIPGroupRequest(tenant="t1", network="net", name="listed")
    users = {one.address: one.used_by.pod.name for one in (await manager.call("GetIPGroup", request)).ip_group.addresses}
    assert users == {"10.0.0.5": "a0", "10.0.0.3": "a1"}
    await manager.release(pod("a0"))
    again = await manager.allocate(pod("a4"), types.Wish(network="net", ip_group="listed"))
    assert ips(again)[0] == "10.0.0.5"
    info = await manager.address("10.0.0.5")
    assert (info.ip_group, info.owner.pod.name, info.state) == ("t1/listed", "a4", pb.ADDRESS_STATE_HELD)


async def test_a_group_changes_whole_or_not_at_all(manager: Api) -> None:
    await manager.network("net", "10.0.0.0/28", tenant="t1", public=False)
    with refused("POOL_EXHAUSTED"):
        await manager.group("big", "net", tenant="t1", size=20)
    assert (await manager.usage("t1/net")).reserved == 0
    await manager.group("g", "net", tenant="t1", size=3)
    first = await manager.allocate(pod("a"), types.Wish(network="net", ip_group="g"))
    wanted = types.IPGroup(tenant="t1", name="g", network="net", size=1)
    shrunk = (await manager.call("UpdateIPGroup", pb.UpdateIPGroupRequest(ip_group=wanted))).ip_group
    assert [one.address for one in shrunk.addresses] == ips(first)
    with refused("OBJECT_IN_USE", "pod t1/a"):
        listed = types.IPGroup(tenant="t1", name="g", network="net", ips=["10.0.0.9"])
        await manager.call("UpdateIPGroup", pb.UpdateIPGroupRequest(ip_group=listed))
    with refused("OBJECT_IN_USE", "pod t1/a"):
        await manager.call("DeleteIPGroup", pb.DeleteIPGroupRequest(tenant="t1", network="net", name="g"))
    await manager.release(pod("a"))
    await manager.call("DeleteIPGroup", pb.DeleteIPGroupRequest(tenant="t1", network="net", name="g"))
    assert (await manager.usage("t1/net")).reserved == 0


async def test_a_group_on_a_public_network_is_the_operators_to_make(manager: Api) -> None:
    await manager.network("pub", "10.0.0.0/24", public=True)
    with refused("TENANT_DENIED"):
        await manager.group("g", "admin/pub", tenant="t1", size=1)
    selector = types.LabelSelector(match_labels={"app": "db"})
    group = await manager.group("g", "pub", size=1, pod_selector=selector)
    got = await manager.allocate(pod("db"), "pub", labels={"app": "db"})
    assert ips(got) == [group.addresses[0].address]
    assert got.ports[0].ip_group == "g"


async def test_a_claim_outlives_who_uses_it(manager: Api) -> None:
    await manager.network("net", "10.0.0.0/24", tenant="t1")
    wanted = types.IPClaim(tenant="t1", name="disk", network="net", wanted_addresses=["10.0.0.77"])
    claim = (await manager.call("CreateIPClaim", pb.CreateIPClaimRequest(ip_claim=wanted))).ip_claim
    wish = types.Wish(network="net", ip_claim="disk")
    one = await manager.allocate(pod("vm-1"), wish)
    assert ips(one) == ["10.0.0.77"]
    assert one.ports[0].mac == claim.mac
    with refused("OBJECT_IN_USE", "pod t1/vm-1"):
        await manager.allocate(pod("vm-2"), wish)
    with refused("OBJECT_IN_USE", "pod t1/vm-1"):
        await manager.call("DeleteIPClaim", pb.DeleteIPClaimRequest(tenant="t1", name="disk"))
    assert (await manager.get_tenant("t1")).used.addresses == 1
    await manager.release(pod("vm-1"))
    two = await manager.allocate(pod("vm-2"), wish)
    assert (ips(two), two.ports[0].mac) == (["10.0.0.77"], claim.mac)
    info = await manager.address("10.0.0.77")
    assert (info.ip_claim, info.owner.pod.name) == ("t1/disk", "vm-2")
    with refused("OBJECT_IN_USE"):
        await manager.delete_network("net", "t1")
    await manager.release(pod("vm-2"))
    await manager.call("DeleteIPClaim", pb.DeleteIPClaimRequest(tenant="t1", name="disk"))
    assert (await manager.get_tenant("t1")).used.addresses == 0
    await manager.delete_network("net", "t1")


async def test_a_sticky_pod_comes_back_to_its_addresses_on_any_node(manager: Api) -> None:
    await manager.network("net", "10.0.0.0/24", "2001:db8::/64", tenant="t1")
    for name in ("n1", "n2"):
        await manager.call("CreateNode", pb.CreateNodeRequest(node=types.Node(name=name)))
    one = await manager.allocate(pod("db-0"), "net", sticky=True, node="n1", binding=types.Binding(container_id="c1"))
    other = await manager.allocate(pod("db-1"), "net", sticky=True)
    await manager.release(pod("db-0"))
    with refused("SET_BOUND_ELSEWHERE", "n1"):
        await manager.allocate(pod("db-0", "u2"), "net", sticky=True, node="n2")
    await manager.release(pod("db-0"), container_id="c1", unbind_only=True)
    kept = (await manager.call("GetPortSet", pb.GetPortSetRequest(owner=pod("db-0")))).port_set
    assert kept.state == types.PORT_SET_STATE_KEPT
    assert kept.HasField("expire_time")
    two = await manager.allocate(pod("db-0", "u2"), "net", sticky=True, node="n2")
    assert (ips(two), two.ports[0].mac) == (ips(one), one.ports[0].mac)
    assert two.state == types.PORT_SET_STATE_RESERVED
    assert (await manager.address(ips(one)[0])).owner.pod.uid == "u2"
    await manager.release(pod("db-1"))
    await manager.release(pod("db-1"))  # by hand
    assert ips(await manager.allocate(pod("db-1", "u2"), "net", sticky=True)) != ips(other)
    sets = (await manager.call("ListPortSets", pb.ListPortSetsRequest(tenant="t1"))).port_sets
    assert {(one.owner.pod.name, one.owner.pod.uid) for one in sets} == {("db-0", "u2"), ("db-1", "u2")}


# -- views -------------------------------------------------------------------------------------------------------------------


async def test_views_count_what_is_there(manager: Api) -> None:
    pools = [types.Pool(start="10.0.0.10", end="10.0.0.19"), types.Pool(start="10.0.0.30", end="10.0.0.39")]
    await manager.network("net", subnets=[types.Subnet(cidr="10.0.0.0/24", pools=pools), types.Subnet(cidr="2001:db8::/64")])
    await manager.group("g", "net", ips=["10.0.0.19"])
    for number in range(4):
        await manager.allocate(vm(f"v{number}"), types.Wish(network="net", roles=["media"]), node=f"n{number % 2}")
    await manager.release(vm("v3"))
    claim = types.IPClaim(tenant="admin", name="c", network="net", wanted_addresses=["10.0.0.30"])
    await manager.call("CreateIPClaim", pb.CreateIPClaimRequest(ip_claim=claim))
    answer = await manager.call("ListNetworkUsage", pb.ListNetworkUsageRequest())
    first, second, v6 = answer.networks[0].pools
    assert (first.start, first.end, first.size, first.used, first.reserved) == ("10.0.0.10", "10.0.0.19", 10, 3, 1)
    assert first.free + first.resting == 6
    assert (second.used, second.free) == (1, 9)
    assert v6.size == 2**64 - 1
    assert answer.networks[0].port_sets == 3  # a claim is none
    nodes = (await manager.call("ListNodeUsage", pb.ListNodeUsageRequest())).nodes
    assert [(one.node, one.port_sets, one.ports, one.addresses) for one in nodes] == [("n0", 2, 2, 4), ("n1", 1, 1, 2)]
    info = await manager.address("10.0.0.11")
    assert (info.owner.named.name, info.interface, list(info.roles), info.node) == ("v1", "eth_net", ["media"], "n1")
    texts = ("10.0.0.0", "10.0.0.12", "10.0.0.15", "10.0.0.19", "10.0.0.99")
    states = {text: (await manager.address(text)).state for text in texts}
    assert states == {
        "10.0.0.0": pb.ADDRESS_STATE_UNUSABLE,
        "10.0.0.12": pb.ADDRESS_STATE_HELD,
        "10.0.0.15": pb.ADDRESS_STATE_FREE,
        "10.0.0.19": pb.ADDRESS_STATE_RESERVED,
        "10.0.0.99": pb.ADDRESS_STATE_UNUSABLE,
    }


async def test_an_object_moves_to_another_source(manager: Api) -> None:
    network = await manager.network("net", source="files:site")
    with refused("SOURCE_FOREIGN", "files:site"):
        await manager.delete_network("net")
    await manager.call("Adopt", pb.AdoptRequest(kind="Network", tenant="admin", name="net", source="api"))
    await manager.delete_network("net")
    assert network.source == "files:site"
    with refused("OBJECT_NOT_FOUND"):
        await manager.call("Adopt", pb.AdoptRequest(kind="Network", name="net", source="api"))
    with refused("FIELD_INVALID", "did you mean 'Network'"):
        await manager.call("Adopt", pb.AdoptRequest(kind="Netwrk", name="net", source="api"))
