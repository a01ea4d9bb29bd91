"""The rules of addresses and MACs, through the API, on every store: which ones a port gets, and when they go out again."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator

import pytest
from google.protobuf import duration_pb2
from harness.rules import Manager, manager_on, named_owner, refusal, told, wish
from harness.stores import Site

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types

MACVLAN, IPVLAN, VLAN = types.NETWORK_TYPE_MACVLAN, types.NETWORK_TYPE_IPVLAN, types.NETWORK_TYPE_VLAN
SHORT = duration_pb2.Duration(nanos=50_000_000)
PAST = 0.06  # seconds; longer than that rest


@pytest.fixture
async def manager(site: Site) -> AsyncIterator[Manager]:
    async with manager_on(await site.open()) as manager:
        yield manager


async def all_of(manager: Manager, network: str = "control") -> list[str]:
    """Every address that the network hands out, in this order; it is full afterwards."""
    found: list[str] = []
    with refusal("POOL_EXHAUSTED", network):
        for number in range(300):
            found += told(await manager.allocate(named_owner(f"all-{number}"), wish(network)))
    return found


# -- any -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subnet", "expected"),
    [
        (types.Subnet(cidr="10.1.0.0/29"), [f"10.1.0.{last}" for last in range(1, 7)]),
        (types.Subnet(cidr="10.1.0.0/29", gateway="10.1.0.3"), [f"10.1.0.{last}" for last in (1, 2, 4, 5, 6)]),
        (types.Subnet(cidr="10.1.0.0/30"), ["10.1.0.1", "10.1.0.2"]),
        (types.Subnet(cidr="10.1.0.0/31"), ["10.1.0.0", "10.1.0.1"]),  # RFC 3021
        (types.Subnet(cidr="10.1.0.0/31", gateway="10.1.0.0"), ["10.1.0.1"]),
        (types.Subnet(cidr="10.1.0.7/32"), ["10.1.0.7"]),
        (types.Subnet(cidr="2001:db8::/126"), ["2001:db8::1", "2001:db8::2", "2001:db8::3"]),  # without the anycast address
        (types.Subnet(cidr="2001:db8::/127"), ["2001:db8::", "2001:db8::1"]),  # RFC 6164
        (types.Subnet(cidr="2001:db8::7/128"), ["2001:db8::7"]),
        (
            types.Subnet(
                cidr="10.1.0.0/24",
                pools=[types.Pool(start="10.1.0.20", end="10.1.0.22"), types.Pool(start="10.1.0.0", end="10.1.0.2")],
                exclude=["10.1.0.21", "10.1.0.2/31"],
            ),
            ["10.1.0.20", "10.1.0.22", "10.1.0.1"],
        ),
    ],
)
async def test_what_a_subnet_hands_out(manager: Manager, subnet: types.Subnet, expected: list[str]) -> None:
    await manager.network("control", subnet)
    assert await all_of(manager) == expected
    prefix = int(subnet.cidr.partition("/")[2])
    addresses = [one for port_set in await manager.sets() for port in port_set.ports for one in port.addresses]
    assert {ipaddress.ip_interface(one.cidr).network.prefixlen for one in addresses} == {prefix}
    assert {one.gateway for one in addresses} == {subnet.gateway}


@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "2001:db8::/64", "2001:db8::/32"])
async def test_a_huge_one_is_as_good_as_a_small_one(manager: Manager, cidr: str) -> None:
    await manager.network("control", cidr)
    first = ipaddress.ip_network(cidr)[1]
    assert told(await manager.pod("a", wish("control"))) == [str(first)]
    assert told(await manager.pod("b", wish("control"))) == [str(first + 1)]
    last = ipaddress.ip_network(cidr)[-2]
    assert told(await manager.pod("c", wish("control", addresses=[str(last)]))) == [str(last)]
    (pool,) = await manager.usage()
    assert pool.used == 3


async def test_one_of_each_family_that_the_network_has(manager: Manager) -> None:
    await manager.network("both", "10.1.0.0/24", "2001:db8::/64", "10.2.0.0/24")
    await manager.network("six", "2001:db8:1::/64")
    await manager.network("none")
    made = await manager.pod("a", wish("both"), wish("six"), wish("none"))
    assert [told(types.PortSet(ports=[port])) for port in made.ports] == [["10.1.0.1", "2001:db8::1"], ["2001:db8:1::1"], []]


async def test_both_families_or_none(manager: Manager) -> None:
    await manager.network("control", "10.1.0.0/24", "2001:db8::/126")
    for number in range(3):
        await manager.pod(f"p{number}", wish("control"))
    before = [pool.used for pool in await manager.usage()]
    with refusal("POOL_EXHAUSTED", "no free IPv6 address in 2001:db8::/126"):
        await manager.pod("more", wish("control"))
    assert [pool.used for pool in await manager.usage()] == before == [3, 3]


async def test_all_interfaces_or_none(manager: Manager) -> None:
    await manager.network("control", "10.1.0.0/24")
    await manager.network("full", "10.2.0.0/32")
    await manager.pod("a", wish("full"))
    with refusal("POOL_EXHAUSTED", "wishes[1]", "t1/full"):
        await manager.pod("b", wish("control"), wish("full"))
    assert [pool.used for pool in await manager.usage()] == [0]
    assert (await manager.read_tenant()).used.ports == 1


async def test_the_next_subnet_when_one_is_full(manager: Manager) -> None:
    await manager.network("control", "10.1.0.0/31", "10.2.0.0/31")
    assert await all_of(manager) == ["10.1.0.0", "10.1.0.1", "10.2.0.0", "10.2.0.1"]


async def test_as_many_win_as_there_are(manager: Manager) -> None:
    await manager.network("control", "10.1.0.0/28")
    calls = [manager.pod(f"p{number}", wish("control")) for number in range(60)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    won = [told(one)[0] for one in outcomes if isinstance(one, types.PortSet)]
    assert len(won) == len(set(won)) == 14


# -- rest ------------------------------------------------------------------------------------------------------------------------


async def test_a_released_one_rests_and_the_longest_rested_goes_out_first(manager: Manager) -> None:
    await manager.network("control", "10.1.0.0/29", rest=SHORT)
    owners = [named_owner(f"o{number}") for number in range(4)]
    had = [told(await manager.allocate(owner, wish("control")))[0] for owner in owners]
    for at in (2, 0, 3, 1):
        await manager.release(owners[at])
    await asyncio.sleep(PAST)
    assert await all_of(manager) == ["10.1.0.5", "10.1.0.6", had[2], had[0], had[3], had[1]]


async def test_one_that_rests_goes_out_only_when_nothing_else_is_left(manager: Manager) -> None:
    await manager.network("control", "10.1.0.0/30", "10.2.0.0/31")
    (first,) = told(await manager.pod("a", wish("control")))
    await manager.end_pod("a")
    assert (await manager.address(first)).state == pb.ADDRESS_STATE_RESTING
    assert sorted(await all_of(manager))[0] == first
    assert (await manager.sets(address=first))[0].owner.named.name == "all-3"


async def test_the_rest_is_the_networks_own_or_the_managers(site: Site) -> None:
    async with manager_on(await site.open(), rest="1h") as manager:
        await manager.network("quick", "10.1.0.0/24", rest=SHORT)
        await manager.network("never", "10.2.0.0/24", rest=duration_pb2.Duration())
        await manager.network("slow", "10.3.0.0/24")
        made = await manager.pod("a", wish("quick"), wish("never"), wish("slow"))
        await manager.end_pod("a")
        quick, never, slow = told(made)
        await asyncio.sleep(PAST)
        states = [(pool.resting, pool.free) for name in ("quick", "never", "slow") for pool in await manager.usage(f"t1/{name}")]
        assert states == [(0, 254), (0, 254), (1, 253)]
        assert (await manager.address(slow)).state == pb.ADDRESS_STATE_RESTING
        assert {(await manager.address(one)).state for one in (quick, never)} == {pb.ADDRESS_STATE_FREE}


async def test_after_another_writer_it_rests_anew(site: Site) -> None:
    async with manager_on(await site.open(), rest="1h") as manager:
        await manager.network("control", "10.1.0.0/24")
        (had,) = told(await manager.pod("a", wish("control")))
        await manager.end_pod("a")
    async with manager_on(await site.open(), rest="1h") as manager:
        assert (await manager.address(had)).state == pb.ADDRESS_STATE_RESTING
        assert told(await manager.pod("b", wish("control"))) != [had]


# -- wanted ----------------------------------------------------------------------------------------------------------------------


async def test_wanted_ones_are_had_several_for_a_port_too(manager: Manager) -> None:
    await manager.network("control", "10.1.0.0/24", "2001:db8::/64", "10.2.0.0/24")
    made = await manager.pod("a", wish("control", addresses=["10.1.0.9", "10.2.0.9/24", "2001:DB8::9", "2001:db8::a"]))
    assert told(made) == ["10.1.0.9", "10.2.0.9", "2001:db8::9", "2001:db8::a"]
    assert told(await manager.pod("b", wish("control", addresses=["10.1.0.8"]))) == ["10.1.0.8", "2001:db8::1"]


async def test_a_wanted_one_may_rest(manager: Manager) -> None:
    await manager.network("control", "10.1.0.0/24")
    await manager.pod("a", wish("control", addresses=["10.1.0.9"]))
    await manager.end_pod("a")
    assert told(await manager.pod("b", wish("control", addresses=["10.1.0.9"]))) == ["10.1.0.9"]


@pytest.mark.parametrize(
    ("addresses", "reason", "said"),
    [
        (["10.1.0.5"], "ADDRESS_TAKEN", "10.1.0.5 of network t1/control is held by pod t1/holder"),
        (["10.1.0.1"], "ADDRESS_UNUSABLE", "is the gateway"),
        (["10.1.0.0"], "ADDRESS_UNUSABLE", "is excluded, or in no pool"),
        (["10.1.0.255"], "ADDRESS_UNUSABLE", "is excluded, or in no pool"),
        (["10.1.0.77"], "ADDRESS_UNUSABLE", "is excluded, or in no pool"),
        (["10.9.0.1"], "ADDRESS_UNUSABLE", "in no subnet of network t1/control (it has 10.1.0.0/24)"),
        (["10.1.0.9/16"], "ADDRESS_UNUSABLE", "another prefix length than its subnet 10.1.0.0/24"),
        (["10.1.0.9", "10.1.0.9"], "WISH_INVALID", "wanted twice"),
        (["10.1.0"], "WISH_INVALID", "wishes[0]: address"),
    ],
)
async def test_one_that_cannot_be_had_takes_nothing(manager: Manager, addresses: list[str], reason: str, said: str) -> None:
    await manager.network("control", types.Subnet(cidr="10.1.0.0/24", gateway="10.1.0.1", exclude=["10.1.0.77"]))
    await manager.pod("holder", wish("control", addresses=["10.1.0.5"]))
    with refusal(reason, said):
        await manager.pod("a", wish("control", addresses=addresses))
    assert len(await manager.sets()) == 1


async def test_of_many_who_want_one_a_single_one_gets_it(manager: Manager) -> None:
    await manager.network("control", "10.1.0.0/24")
    calls = [manager.pod(f"p{number}", wish("control", addresses=["10.1.0.9"])) for number in range(20)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert len([one for one in outcomes if isinstance(one, types.PortSet)]) == 1


# -- MACs ------------------------------------------------------------------------------------------------------------------------


async def test_generated_macs_are_local_and_unique(manager: Manager) -> None:
    await manager.network("control", "10.1.0.0/24")
    made = [await manager.pod(f"p{number}", wish("control"), wish("control")) for number in range(20)]
    macs = [port.mac for one in made for port in one.ports]
    assert len(set(macs)) == 40
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)  # locally administered, and nobody's group


async def test_a_wanted_mac_is_one_ports_in_its_segment(manager: Manager) -> None:
    mac = "02:00:00:00:00:09"
    vlan = {"type": VLAN, "physical_network": "eth1", "tenant": "admin", "public": True}
    await manager.network("v7", "10.1.0.0/24", segmentation_id=7, **vlan)  # type: ignore[arg-type]
    await manager.network("v8", "10.1.0.0/24", segmentation_id=8, **vlan)  # type: ignore[arg-type]
    for name in ("lan-a", "lan-b"):
        await manager.network(name, type=MACVLAN, physical_network="eth2", tenant="admin", public=True)
    assert (await manager.pod("a", wish("v7", mac=mac.upper()))).ports[0].mac == mac
    with refusal("MAC_TAKEN", mac, "pod t1/a"):
        await manager.pod("b", wish("v7", mac=mac))
    await manager.pod("b", wish("v8", mac=mac))
    await manager.pod("c", wish("lan-a", mac=mac))
    with refusal("MAC_TAKEN", mac, "pod t1/c"):
        await manager.pod("d", wish("lan-b", mac=mac))
    with refusal("MAC_TAKEN", "another interface of the same owner"):
        await manager.pod("e", wish("v7", mac="02:00:00:00:00:0a"), wish("v7", mac="02:00:00:00:00:0a"))
    for wrong in ("ff:ff:ff:ff:ff:ff", "01:00:00:00:00:01", "02:00"):
        with refusal("WISH_INVALID", "MAC"):
            await manager.pod("f", wish("v7", mac=wrong))
    await manager.end_pod("a")
    await manager.pod("b2", wish("v7", mac=mac))


async def test_what_brings_its_own_mac_gets_none(manager: Manager) -> None:
    await manager.network("ip", "10.1.0.0/24", type=IPVLAN, physical_network="eth1", tenant="admin", public=True)
    made = await manager.pod("a", wish("ip"), wish("ip"))
    assert [port.mac for port in made.ports] == ["", ""]


# -- what a port is told ---------------------------------------------------------------------------------------------------------


async def test_a_port_is_told_all_that_its_pod_needs(manager: Manager) -> None:
    await manager.network(
        "control",
        types.Subnet(cidr="10.1.0.0/24", gateway="10.1.0.1"),
        types.Subnet(cidr="2001:db8::/64", gateway="2001:db8::1"),
        mtu=1400,
        routes=[
            types.Route(destination="10.9.0.0/16", mtu=1300),
            types.Route(destination="10.8.0.0/16", gateway="10.1.0.77", metric=7),
        ],
        dns=types.Dns(nameservers=["10.1.0.53"], search=["a.b"]),
        masquerade=True,
    )
    (port,) = (await manager.pod("a", wish("control", interface="eth0", roles=["control", "media"], primary=True))).ports
    assert (port.network, port.interface, list(port.roles), port.mtu) == ("t1/control", "eth0", ["control", "media"], 1400)
    assert [(one.cidr, one.gateway) for one in port.addresses] == [
        ("10.1.0.2/24", "10.1.0.1"),
        ("2001:db8::2/64", "2001:db8::1"),
    ]
    assert [(one.destination, one.gateway, one.metric, one.mtu) for one in port.routes] == [
        ("10.9.0.0/16", "10.1.0.1", 0, 1300),
        ("10.8.0.0/16", "10.1.0.77", 7, 0),
        ("0.0.0.0/0", "10.1.0.1", 0, 0),
        ("::/0", "2001:db8::1", 0, 0),
    ]
    assert port.dns == types.Dns(nameservers=["10.1.0.53"], search=["a.b"])
    assert (port.node_gateway, port.masquerade) == (True, True)


async def test_a_kind_of_device_that_the_network_has_not_is_an_error(manager: Manager) -> None:
    await manager.network("plain", "10.1.0.0/24")
    for name, kind in (("vfs", types.NETWORK_TYPE_SRIOV), ("nics", types.NETWORK_TYPE_HOST_DEVICE)):
        await manager.network(name, "10.2.0.0/24", type=kind, physical_network=f"p-{name}", tenant="admin", public=True)
    (port,) = (await manager.pod("a", wish("vfs", nic_type=types.NIC_TYPE_DIRECT))).ports
    assert port.nic_type == types.NIC_TYPE_DIRECT
    await manager.pod("b", wish("nics", nic_type=types.NIC_TYPE_PHYSICAL))
    await manager.pod("c", wish("vfs"), wish("nics"), wish("plain"))  # whatever the network has
    for network, kind, said in (
        ("plain", types.NIC_TYPE_DIRECT, "nic_type direct: network t1/plain is of type bridge; use one of type sriov"),
        ("plain", types.NIC_TYPE_PHYSICAL, "use one of type host-device"),
        ("vfs", types.NIC_TYPE_PHYSICAL, "network admin/vfs is of type sriov"),
        ("nics", types.NIC_TYPE_DIRECT, "network admin/nics is of type host-device"),
    ):
        with refusal("WISH_INVALID", said):
            await manager.pod("d", wish(network, nic_type=kind))


# -- who has what ----------------------------------------------------------------------------------------------------------------


async def test_for_a_tenant_each_pod_with_plane_network_and_address(manager: Manager) -> None:
    await manager.network("control", "10.1.0.0/24")
    await manager.network("media", "10.2.0.0/24")
    await manager.network("control", "10.1.0.0/24", tenant="t2")
    wishes = wish("control", interface="eth0", roles=["control", "oam"]), wish("media", interface="eth1", roles=["media"])
    await manager.pod("web-0", *wishes, node="n1")
    await manager.pod("web-1", wishes[1])
    await manager.pod("web-0", wishes[0], tenant="t2")
    found = {
        one.owner.pod.name: [
            (port.interface, list(port.roles), port.network, told(types.PortSet(ports=[port]))) for port in one.ports
        ]
        for one in await manager.sets(tenant="t1")
    }
    assert found == {
        "web-0": [
            ("eth0", ["control", "oam"], "t1/control", ["10.1.0.1"]),
            ("eth1", ["media"], "t1/media", ["10.2.0.1"]),
        ],
        "web-1": [("eth1", ["media"], "t1/media", ["10.2.0.2"])],
    }
    (port, _) = (await manager.sets(node="n1"))[0].ports
    assert port.id
    assert port.mac
    assert [one.owner.pod.name for one in await manager.sets(network="t1/media")] == ["web-0", "web-1"]


async def test_views_count_what_is_there(manager: Manager) -> None:
    pools = [types.Pool(start="10.1.0.10", end="10.1.0.19"), types.Pool(start="10.1.0.30", end="10.1.0.39")]
    await manager.network("control", types.Subnet(cidr="10.1.0.0/24", pools=pools), "2001:db8::/64")
    await manager.group("g", ips=["10.1.0.19"])
    for number in range(4):
        await manager.allocate(named_owner(f"v{number}"), wish("control", roles=["media"]), node=f"n{number % 2}")
    await manager.release(named_owner("v3"))
    await manager.claim("c", "10.1.0.30")
    first, second, v6 = await manager.usage()
    assert (first.start, first.end, first.size, first.used, first.reserved) == ("10.1.0.10", "10.1.0.19", 10, 3, 1)
    assert (first.free, first.resting) == (5, 1)
    assert (second.used, second.free) == (1, 9)
    assert v6.size == 2**64 - 1
    assert (await manager.stub.ListNetworkUsage(pb.ListNetworkUsageRequest())).networks[0].port_sets == 3  # a claim is none
    nodes = (await manager.stub.ListNodeUsage(pb.ListNodeUsageRequest())).nodes
    assert [(one.node, one.port_sets, one.ports, one.addresses) for one in nodes] == [("n0", 2, 2, 4), ("n1", 1, 1, 2)]
    info = await manager.address("10.1.0.11")
    assert (info.owner.named.name, info.interface, list(info.roles), info.node) == ("v1", "eth_control", ["media"], "n1")
    states = {
        text: (await manager.address(text)).state for text in ("10.1.0.0", "10.1.0.12", "10.1.0.15", "10.1.0.19", "10.1.0.99")
    }
    assert states == {
        "10.1.0.0": pb.ADDRESS_STATE_UNUSABLE,
        "10.1.0.12": pb.ADDRESS_STATE_HELD,
        "10.1.0.15": pb.ADDRESS_STATE_FREE,
        "10.1.0.19": pb.ADDRESS_STATE_RESERVED,
        "10.1.0.99": pb.ADDRESS_STATE_UNUSABLE,
    }
