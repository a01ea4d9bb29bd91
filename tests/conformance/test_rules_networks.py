"""The rules of networks, through the API, on every store: what one is, who sees it, and that what is in use is not hurt."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf import duration_pb2
from harness.rules import Manager, manager_on, named_owner, refusal, told, wish
from harness.stores import Site

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types

BRIDGE, MACVLAN, SRIOV, VLAN, VXLAN = (
    types.NETWORK_TYPE_BRIDGE,
    types.NETWORK_TYPE_MACVLAN,
    types.NETWORK_TYPE_SRIOV,
    types.NETWORK_TYPE_VLAN,
    types.NETWORK_TYPE_VXLAN,
)
SHAPE = types.Subnet(
    cidr="10.1.0.0/24",
    gateway="10.1.0.1",
    pools=[types.Pool(start="10.1.0.10", end="10.1.0.19"), types.Pool(start="10.1.0.30", end="10.1.0.39")],
    exclude=["10.1.0.12/31"],
)


@pytest.fixture
async def manager(site: Site) -> AsyncIterator[Manager]:
    async with manager_on(await site.open(), rest="50ms") as manager:
        yield manager


def pool(start: int, end: int) -> types.Pool:
    """From 10.1.0.start to 10.1.0.end."""
    return types.Pool(start=f"10.1.0.{start}", end=f"10.1.0.{end}")


# -- making ----------------------------------------------------------------------------------------------------------------------


async def test_everything_that_is_declared_is_kept(site: Site) -> None:
    wanted = types.Network(
        tenant="admin",
        name="rich",
        type=VLAN,
        public=True,
        exported_to=["t1", "t2"],
        mtu=1400,
        subnets=[SHAPE, types.Subnet(cidr="10.2.0.0/24"), types.Subnet(cidr="2001:db8::/64", gateway="2001:db8::1")],
        routes=[types.Route(destination="10.9.0.0/16", metric=5, mtu=1300), types.Route(destination="::/0", gateway="2001:db8::9")],
        dns=types.Dns(nameservers=["10.1.0.53"], domain="a.b", search=["c.d"], options=["ndots:2"]),
        physical_network="phys0",
        segmentation_id=77,
        masquerade=True,
        description="everything",
        rest=duration_pb2.Duration(seconds=90),
        usable_by=types.Usability(nodes=types.LabelSelector(match_labels={"rack": "a"})),
    )
    async with manager_on(await site.open()) as manager:
        made = (await manager.stub.CreateNetwork(pb.CreateNetworkRequest(network=wanted))).network
        assert len(made.id) == 12
        assert made.HasField("create_time")
        assert (made.state, made.source) == (types.OBJECT_STATE_ACTIVE, "api")
        told_back = types.Network()
        told_back.CopyFrom(made)
        for field in ("id", "create_time", "revision", "state", "source"):
            told_back.ClearField(field)  # type: ignore[arg-type]
        assert told_back == wanted
    async with manager_on(await site.open()) as manager:
        assert await manager.read_network("rich", "admin") == made


async def test_its_name_is_unique_in_its_tenant(manager: Manager) -> None:
    made = await manager.network("control", SHAPE)
    assert await manager.network("control", SHAPE) == made
    with refusal("OBJECT_EXISTS", "t1/control exists with another mtu"):
        await manager.network("control", SHAPE, mtu=1400)
    assert (await manager.network("control", SHAPE, tenant="t2")).id != made.id
    many = await asyncio.gather(*(manager.network("burst", "10.3.0.0/24") for _ in range(30)))
    assert len({one.id for one in many}) == 1


@pytest.mark.parametrize(
    ("subnet", "said"),
    [
        (types.Subnet(cidr="10.1.0.5/24"), "subnets[0].cidr: '10.1.0.5/24' has host bits set; write 10.1.0.0/24"),
        (types.Subnet(cidr="2001:db8::5/64"), "write 2001:db8::/64"),
        (types.Subnet(cidr="10.1.0.0/24", gateway="10.2.0.1"), "gateway: 10.2.0.1 is not in 10.1.0.0/24"),
        (types.Subnet(cidr="10.1.0.0/24", gateway="10.1.0.255"), "is the broadcast address"),
        (types.Subnet(cidr="10.1.0.0/24", gateway="10.1.0.0"), "is the network's own address"),
        (
            types.Subnet(cidr="10.1.0.0/24", pools=[types.Pool(start="10.1.0.250", end="10.1.1.5")]),
            "10.1.1.5 is not in 10.1.0.0/24",
        ),
        (types.Subnet(cidr="10.1.0.0/24", pools=[pool(9, 5)]), "10.1.0.5 is below the start 10.1.0.9"),
        (types.Subnet(cidr="10.1.0.0/24", pools=[pool(1, 5), pool(5, 9)]), "pools[1]: overlaps pools[0]"),
        (types.Subnet(cidr="10.1.0.0/24", gateway="10.1.0.3", pools=[pool(1, 5)]), "holds the gateway 10.1.0.3; make it two pools"),
        (types.Subnet(cidr="10.1.0.0/24", exclude=["10.2.0.1"]), "10.2.0.1 is not in 10.1.0.0/24"),
        (types.Subnet(cidr="224.0.0.0/24"), "subnets[0].cidr"),
    ],
)
async def test_a_subnet_that_cannot_be_makes_nothing(manager: Manager, subnet: types.Subnet, said: str) -> None:
    with refusal("FIELD_INVALID", said):
        await manager.network("wrong", subnet)
    assert await manager.networks() == []
    assert await manager.tenants() == ["admin"]


async def test_subnets_on_one_segment_do_not_overlap(manager: Manager) -> None:
    lan: dict[str, Any] = {"type": MACVLAN, "physical_network": "eth1", "tenant": "admin"}
    await manager.network("a", "10.1.0.0/24", **lan)
    with refusal("SUBNET_OVERLAPS", "subnets[0].cidr: 10.1.0.0/25 overlaps 10.1.0.0/24 of network admin/a"):
        await manager.network("b", "10.1.0.0/25", **lan)
    await manager.network("b", "10.1.1.0/24", **lan)
    with refusal("SUBNET_OVERLAPS", "admin/a"):
        await manager.change_network("b", "admin", subnets=[types.Subnet(cidr="10.1.0.0/16")])
    await manager.network("c", "10.1.0.0/24", **{**lan, "physical_network": "eth2"})
    for number in (7, 8):
        vlan: dict[str, Any] = {"type": VLAN, "physical_network": "eth1", "tenant": "admin", "segmentation_id": number}
        await manager.network(f"v{number}", "10.1.0.0/24", **vlan)
    for name in ("d", "e"):
        await manager.network(name, "10.1.0.0/24")
        await manager.network(f"over-{name}", "10.1.0.0/24", type=VXLAN)
    with refusal("FIELD_INVALID", "10.1.0.0/16 overlaps 10.1.0.0/24 of subnets[0]"):
        await manager.network("f", "10.1.0.0/24", "10.1.0.0/16")


# -- who sees it -----------------------------------------------------------------------------------------------------------------


async def test_a_tenant_sees_its_own_public_and_exported_ones(manager: Manager) -> None:
    await manager.network("own", "10.1.0.0/24")
    await manager.network("theirs", "10.2.0.0/24", tenant="t2")
    await manager.network("given", "10.3.0.0/24", tenant="t2", exported_to=["t1"])
    await manager.network("open", "10.4.0.0/24", tenant="admin", public=True)
    await manager.network("closed", "10.5.0.0/24", tenant="admin")
    assert await manager.networks("t1") == ["admin/open", "t1/own", "t2/given"]
    assert await manager.networks("t3") == ["admin/open"]
    assert len(await manager.networks()) == len(await manager.networks("admin")) == 5
    for number, network in enumerate(("own", "given", "t2/given", "open", "admin/open")):
        assert told(await manager.pod(f"p{number}", wish(network)))
    for hidden in ("theirs", "t2/theirs", "closed", "admin/closed"):
        with refusal("NETWORK_NOT_FOUND", hidden):
            await manager.pod("none", wish(hidden))
        with refusal("NETWORK_NOT_FOUND"):
            await manager.claim("none", network=hidden)


async def test_a_tenants_own_network_shadows_a_public_one_but_not_the_default(site: Site) -> None:
    async with manager_on(await site.open(), defaultNetwork="admin/default") as manager:
        await manager.network("default", "10.1.0.0/24", tenant="admin")
        await manager.network("default", "10.2.0.0/24", tenant="t1")
        await manager.network("open", "10.3.0.0/24", tenant="admin", public=True)
        await manager.network("open", "10.4.0.0/24", tenant="t1")
        assert [one.network for one in (await manager.pod("a", wish("open"), wish("default"))).ports] == ["t1/open", "t1/default"]
        assert [one.network for one in (await manager.pod("b")).ports] == ["admin/default"]
        (port,) = (await manager.pod("c")).ports
        assert (port.interface, list(port.roles), port.primary) == ("eth0", ["std"], True)
        assert (port.default_network, port.public) == (True, False)
        (other,) = (await manager.pod("d", wish("open"))).ports
        assert not other.default_network


async def test_only_the_operator_makes_public_ones(manager: Manager) -> None:
    with refusal("FIELD_INVALID", "only networks of admin are public; use exportedTo"):
        await manager.network("open", "10.1.0.0/24", public=True)
    with refusal("FIELD_INVALID", "exportedTo"):
        await manager.network("self", "10.1.0.0/24", exported_to=["t1"])


async def test_nobody_who_uses_it_loses_sight_of_it(manager: Manager) -> None:
    await manager.network("open", "10.1.0.0/24", tenant="admin", public=True)
    await manager.network("given", "10.2.0.0/24", tenant="t2", exported_to=["t1", "t3"])
    await manager.pod("web", wish("open"), wish("t2/given"))
    with refusal("OBJECT_IN_USE", "tenant t1", "pod t1/web"):
        await manager.change_network("open", "admin", public=False)
    with refusal("OBJECT_IN_USE", "tenant t1", "pod t1/web"):
        await manager.change_network("given", "t2", exported_to=["t3"])
    await manager.change_network("given", "t2", exported_to=["t1"])
    await manager.change_network("open", "admin", public=False, exported_to=["t1"])
    await manager.end_pod("web")
    await manager.change_network("open", "admin", exported_to=[])
    assert await manager.networks("t1") == ["t2/given"]


# -- segmentation ids ------------------------------------------------------------------------------------------------------------


async def test_ids_come_from_the_configured_pools_lowest_first(site: Site) -> None:
    segmentation = {"vni": "700-702", "vlans": {"phys0": "10-11", "*": "20-21"}}
    async with manager_on(await site.open(), segmentation=segmentation) as manager:
        overlays = [(await manager.network(f"o{number}", type=VXLAN)).segmentation_id for number in range(3)]
        assert overlays == [700, 701, 702]
        with refusal("SEGMENT_EXHAUSTED", "700 to 702", "widen the range"):
            await manager.network("o3", type=VXLAN)
        for physical, first in (("phys0", 10), ("phys1", 20), ("phys2", 20)):
            vlan: dict[str, Any] = {"type": VLAN, "physical_network": physical, "tenant": "admin"}
            found = [(await manager.network(f"{physical}-{number}", **vlan)).segmentation_id for number in range(2)]
            assert found == [first, first + 1]
            with refusal("SEGMENT_EXHAUSTED", f"VLAN ids of {physical}"):
                await manager.network(f"{physical}-2", **vlan)
        assert "t1/o3" not in await manager.networks()


async def test_an_id_is_one_networks_on_its_physical_network(manager: Manager) -> None:
    vlan: dict[str, Any] = {"type": VLAN, "physical_network": "eth1", "tenant": "admin", "segmentation_id": 77}
    await manager.network("a", **vlan)
    with refusal("SEGMENT_TAKEN", "77", "admin/a"):
        await manager.network("b", **vlan)
    with refusal("SEGMENT_TAKEN", "admin/a"):
        await manager.network("b", **{**vlan, "type": SRIOV})
    await manager.network("b", **{**vlan, "physical_network": "eth2"})
    await manager.network("c", type=VXLAN, segmentation_id=77, tenant="admin")
    many = await asyncio.gather(*(manager.network(f"o{number}", type=VXLAN, tenant="admin") for number in range(40)))
    assert sorted(one.segmentation_id for one in many) == list(range(5000, 5040))


async def test_a_released_id_rests_and_is_not_lost(manager: Manager) -> None:
    for name in ("a", "b", "c"):
        await manager.network(name, type=VXLAN)
    await manager.delete_network("b")
    assert (await manager.network("d", type=VXLAN)).segmentation_id == 5003
    await asyncio.sleep(0.06)
    assert (await manager.network("e", type=VXLAN)).segmentation_id == 5001
    await manager.change_network("a", type=BRIDGE, segmentation_id=0)  # it has no port
    await asyncio.sleep(0.06)
    assert (await manager.network("f", type=VXLAN)).segmentation_id == 5000


async def test_no_id_is_lost_by_what_fails(manager: Manager) -> None:
    await manager.network("a", "10.1.0.0/24", type=MACVLAN, physical_network="eth1", tenant="admin")
    await manager.network("lan", "10.7.0.0/24", type=VLAN, physical_network="eth1", segmentation_id=2, tenant="admin")
    for _ in range(3):
        with refusal("OBJECT_EXISTS"):
            await manager.network("a", "10.2.0.0/24", type=VXLAN, tenant="admin")
        with refusal("SEGMENT_TAKEN"):
            await manager.network("b", "10.7.0.0/25", type=VLAN, physical_network="eth1", segmentation_id=2, tenant="admin")
    await asyncio.gather(*(manager.network("same", type=VXLAN) for _ in range(20)))
    assert (await manager.network("next", type=VXLAN)).segmentation_id == 5001


class Journal:
    """A node that carried a port of the overlay `over`, and was declared gone; the overlay was deleted."""

    def __init__(self, manager: Manager, wired: types.PortSet) -> None:
        self.manager, self.wired = manager, wired

    @classmethod
    async def of_a_node_that_is_gone(cls, manager: Manager) -> "Journal":
        await manager.node("n1")
        assert (await manager.network("over", "10.1.0.0/24", type=VXLAN)).segmentation_id == 700
        wired = await manager.pod("web", wish("over"), node="n1", sandbox="c1")
        await manager.stub.UpdateNode(pb.UpdateNodeRequest(node=types.Node(name="n1", gone=True)))
        await manager.end_pod("web")
        await manager.delete_network("over")
        await asyncio.sleep(0.06)
        return cls(manager, wired)

    async def tells(self, *in_use: types.PortSet) -> pb.ReconcileResponse:
        """The node is back, and these run on it."""
        request = pb.ReconcileRequest(node=types.Node(name="n1"), boot_id="b", in_use=in_use)
        answer: pb.ReconcileResponse = await self.manager.stub.Reconcile(request)
        return answer


@pytest.fixture
async def gone(site: Site) -> AsyncIterator[Journal]:
    async with manager_on(await site.open(), rest="50ms", segmentation={"vni": "700-701"}) as manager:
        yield await Journal.of_a_node_that_is_gone(manager)


async def test_an_id_rests_until_every_node_that_carried_it_says_that_it_does_not(gone: Journal) -> None:
    assert (await gone.manager.network("a", type=VXLAN)).segmentation_id == 701
    with refusal("SEGMENT_EXHAUSTED", "node n1 may still carry 700", "forget"):
        await gone.manager.network("b", type=VXLAN)
    with refusal("SEGMENT_TAKEN", "700", "node n1"):
        await gone.manager.network("b", type=VXLAN, segmentation_id=700, tenant="admin")
    await gone.tells(gone.wired)
    with refusal("SEGMENT_EXHAUSTED", "node n1 may still carry 700"):
        await gone.manager.network("b", type=VXLAN)
    await gone.tells()
    assert (await gone.manager.network("b", type=VXLAN)).segmentation_id == 700


async def test_or_until_the_node_is_forgotten(gone: Journal) -> None:
    await gone.manager.stub.DeleteNode(pb.DeleteNodeRequest(name="n1"))
    assert (await gone.manager.network("a", type=VXLAN)).segmentation_id == 700


async def test_a_node_that_is_forgotten_owes_nothing(site: Site) -> None:
    async with manager_on(await site.open(), rest="50ms") as manager:
        await manager.node("n1")
        await manager.network("over", "10.1.0.0/24", type=VXLAN)
        await manager.pod("web", wish("over"), node="n1", sandbox="c1")
        await manager.stub.DeleteNode(pb.DeleteNodeRequest(name="n1"))
        await manager.end_pod("web")
        await manager.delete_network("over")
        await asyncio.sleep(0.06)
        assert (await manager.network("a", type=VXLAN)).segmentation_id == 5000


# -- external ones ---------------------------------------------------------------------------------------------------------------


async def test_an_external_network_is_registered_and_unregistered(manager: Manager) -> None:
    wanted: dict[str, Any] = {"type": VLAN, "physical_network": "phys0", "external": True, "tenant": "admin"}
    made = await manager.network("outside", "10.1.0.0/24", **wanted)
    assert (made.external, made.segmentation_id) == (True, 0)  # nobody chooses anything for what exists already
    known = await manager.network("known", "10.2.0.0/24", segmentation_id=100, **wanted)
    assert known.segmentation_id == 100
    with refusal("SEGMENT_TAKEN", "admin/known"):
        await manager.network("ours", **{**wanted, "external": False, "segmentation_id": 100})
    await manager.allocate(named_owner("web", "admin"), wish("outside"))
    with refusal("FIELD_INVALID", "masquerade", "external"):
        await manager.change_network("outside", "admin", masquerade=True)
    with refusal("OBJECT_IN_USE", "external"):
        await manager.change_network("outside", "admin", external=False)
    with refusal("OBJECT_IN_USE", "admin/web"):
        await manager.delete_network("outside", "admin")
    await manager.release(named_owner("web", "admin"))
    await manager.delete_network("outside", "admin")
    assert await manager.networks() == ["admin/known"]


async def test_an_external_bridge_is_named(manager: Manager) -> None:
    with refusal("FIELD_INVALID", "physicalNetwork", "names the bridge that is on the nodes"):
        await manager.network("outside", "10.1.0.0/24", external=True, tenant="admin")
    with refusal("FIELD_INVALID", "physicalNetwork", "set external to true"):
        await manager.network("outside", "10.1.0.0/24", physical_network="br-ext", tenant="admin")
    gateway = types.Subnet(cidr="10.1.0.0/24", gateway="10.1.0.1")
    await manager.network("outside", gateway, external=True, physical_network="br-ext", tenant="admin", public=True)
    (port,) = (await manager.pod("web", wish("outside", primary=True))).ports
    assert (port.external, port.physical_network, port.node_gateway) == (True, "br-ext", False)
    assert [(one.destination, one.gateway) for one in port.routes] == [("0.0.0.0/0", "10.1.0.1")]
    with refusal("SUBNET_OVERLAPS", "admin/outside"):
        await manager.network("again", "10.1.0.0/25", external=True, physical_network="br-ext", tenant="admin")


# -- a network that lives --------------------------------------------------------------------------------------------------------


async def test_it_grows_while_it_is_used(manager: Manager) -> None:
    await manager.network("control", types.Subnet(cidr="10.1.0.0/24", pools=[pool(10, 11)]))
    for name in ("a", "b"):
        await manager.pod(name, wish("control"))
    with refusal("POOL_EXHAUSTED", "t1/control"):
        await manager.pod("c", wish("control"))
    await manager.change_network("control", subnets=[types.Subnet(cidr="10.1.0.0/24", pools=[pool(10, 11), pool(20, 20)])])
    assert told(await manager.pod("c", wish("control"))) == ["10.1.0.20"]
    grown = [
        types.Subnet(cidr="10.1.0.0/24", gateway="10.1.0.1", pools=[pool(10, 11), pool(20, 21)], exclude=["10.1.0.21"]),
        types.Subnet(cidr="10.2.0.0/30", gateway="10.2.0.1"),
    ]
    now = await manager.change_network("control", subnets=grown, mtu=1400, masquerade=True, description="grown")
    assert list(now.subnets) == grown
    assert told(await manager.pod("d", wish("control"))) == ["10.2.0.2"]
    assert {told(one)[0] for one in await manager.sets()} == {"10.1.0.10", "10.1.0.11", "10.1.0.20", "10.2.0.2"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"subnets": [types.Subnet(cidr="10.5.0.0/24")]}, "removing subnet 10.1.0.0/24 would take 10.1.0.10 from pod t1/web"),
        ({"subnets": [types.Subnet(cidr="10.1.0.0/24", gateway="10.1.0.1", pools=[pool(11, 39)])]}, "10.1.0.10 from pod t1/web"),
        ({"subnets": [types.Subnet(cidr="10.1.0.0/24", gateway="10.1.0.1", exclude=["10.1.0.8/29"])]}, "10.1.0.10 from pod t1/web"),
        ({"subnets": [types.Subnet(cidr="10.1.0.0/24", gateway="10.1.0.2")]}, "changing the gateway of 10.1.0.0/24"),
        ({"subnets": [types.Subnet(cidr="10.1.0.0/24")]}, "changing the gateway of 10.1.0.0/24"),
        ({"subnets": [types.Subnet(cidr="10.1.0.0/25", gateway="10.1.0.1")]}, "removing subnet 10.1.0.0/24"),
        (
            {"subnets": [types.Subnet(cidr="10.1.0.0/24", gateway="10.1.0.1", exclude=["10.1.0.77"])]},
            "IP group t1/g would lose 10.1.0.77",
        ),
        ({"type": VXLAN}, "changing type would cut off its ports"),
        ({"external_gateway": True, "masquerade": False}, "changing external_gateway"),
    ],
)
async def test_what_would_hurt_is_refused_with_who_is_in_the_way(manager: Manager, change: dict[str, Any], said: str) -> None:
    made = await manager.network("control", SHAPE)
    await manager.group("g", ["10.1.0.77"])
    set_ = await manager.pod("web", wish("control"))
    with refusal("OBJECT_IN_USE", said):
        await manager.change_network("control", **change)
    assert await manager.read_network("control") == made
    assert await manager.pod("web", wish("control")) == set_


async def test_its_parent_device_stays_while_it_is_used(manager: Manager) -> None:
    await manager.network("lan", "10.1.0.0/24", type=MACVLAN, physical_network="eth1", tenant="admin")
    await manager.allocate(named_owner("vm", "admin"), wish("lan"))
    with refusal("OBJECT_IN_USE", "changing physical_network would cut off its ports", "admin/vm"):
        await manager.change_network("lan", "admin", physical_network="eth2")
    await manager.release(named_owner("vm", "admin"))
    assert (await manager.change_network("lan", "admin", physical_network="eth2")).physical_network == "eth2"


async def test_a_gateway_can_be_added(manager: Manager) -> None:
    await manager.network("control", "10.1.0.0/24", "2001:db8::/64")
    web = await manager.pod("web", wish("control"))
    taken = types.Subnet(cidr="10.1.0.0/24", gateway=told(web)[0])
    with refusal("OBJECT_IN_USE", f"would take {told(web)[0]} from pod t1/web"):
        await manager.change_network("control", subnets=[taken, types.Subnet(cidr="2001:db8::/64")])
    added = types.Subnet(cidr="10.1.0.0/24", gateway="10.1.0.254")
    await manager.change_network("control", subnets=[added, types.Subnet(cidr="2001:db8::/64")])
    assert (await manager.pod("next", wish("control"))).ports[0].addresses[0].gateway == "10.1.0.254"


async def test_it_is_not_deleted_while_it_is_used(manager: Manager) -> None:
    await manager.network("control", SHAPE)
    await manager.group("g", ["10.1.0.77"])
    await manager.claim("c")
    for name in ("a", "b", "c", "d"):
        await manager.pod(name, wish("control"))
    with refusal("OBJECT_IN_USE", "claim t1/c", "pod t1/a", "and 2 more"):
        await manager.delete_network("control")
    for name in ("a", "b", "c", "d"):
        await manager.end_pod(name)
    with refusal("OBJECT_IN_USE", "claim t1/c"):
        await manager.delete_network("control")
    await manager.delete_claim("c")
    with refusal("OBJECT_IN_USE", "IP groups: g"):
        await manager.delete_network("control")
    await manager.delete_group("g")
    await manager.delete_network("control")
    await manager.delete_network("control")  # missing is success
    with refusal("NETWORK_NOT_FOUND", "control"):
        await manager.read_network("control")
    assert (await manager.network("control", SHAPE)).revision


async def test_a_change_compares_revision_and_source(manager: Manager) -> None:
    made = await manager.network("control", SHAPE, source="files:site")
    with refusal("SOURCE_FOREIGN", "declared by files:site"):
        await manager.delete_network("control")
    ours = types.Network()
    ours.CopyFrom(made)
    ours.mtu = 1400
    ours.revision = made.revision - 1
    with refusal("REVISION_STALE", f"is at revision {made.revision}"):
        await manager.stub.UpdateNetwork(pb.UpdateNetworkRequest(network=ours))
    await manager.stub.Adopt(pb.AdoptRequest(kind="Network", tenant="t1", name="control", source="api"))
    await manager.delete_network("control")
    with refusal("OBJECT_NOT_FOUND"):
        await manager.stub.Adopt(pb.AdoptRequest(kind="Network", tenant="t1", name="control", source="api"))
    with refusal("FIELD_INVALID", "did you mean 'Network'"):
        await manager.stub.Adopt(pb.AdoptRequest(kind="Netwrk", name="control", source="api"))


async def test_a_change_is_told_in_the_feed(manager: Manager) -> None:
    await manager.network("control", SHAPE)
    here = await manager.position()
    await manager.change_network("control", mtu=1400)
    changes = await manager.until(here, lambda change: change.network.mtu == 1400)
    assert changes[-1].network == await manager.read_network("control")
