"""What a port of a bridge network is to become: pure."""

import json
from dataclasses import replace
from ipaddress import ip_interface

import pytest
from harness.bridges import network_id, port, v4, v6

from knitter_agent.drivers import Wiring, planned_routes, settle_defaults
from knitter_agent.drivers.bridge_intent import BridgeIntent
from knitter_agent.netlink.shaping import Limit
from knitter_common.errors import Invalid
from knitter_common.model import Bandwidth, PortAddress, Route


def test_names_are_legal_and_derived_from_network_attachment_and_interface() -> None:
    intent = BridgeIntent.plan(port(10), "knitter/c1/eth0")
    assert intent.bridge == f"kbr{network_id('a')}"
    assert intent.host.startswith("kv")
    assert max(len(intent.bridge), len(intent.host)) <= 15
    assert intent.host == BridgeIntent.plan(port(11, "b"), "knitter/c1/eth0").host
    assert intent.host != BridgeIntent.plan(port(10), "knitter/c2/eth0").host
    assert intent.host != BridgeIntent.plan(port(10, interface="eth1"), "knitter/c1/eth0").host


def test_derived_macs_are_unicast_and_locally_administered() -> None:
    intent = BridgeIntent.plan(port(10), "knitter/c1/eth0")
    for mac in (intent.bridge_mac, intent.host_mac):
        assert int(mac[:2], 16) & 3 == 2
    assert intent.bridge_mac != intent.host_mac


def test_an_alias_fits_the_kernel_whatever_the_container_id() -> None:
    intent = BridgeIntent.plan(port(10), "knitter/" + "c" * 400 + "/eth0")
    assert len(intent.host_alias.encode()) <= 255


def test_the_intent_survives_the_journal() -> None:
    bandwidth = Bandwidth(ingress_rate=8_000_000, egress_rate=16_000_000)
    wanted = port(10, routes=(Route("192.168.0.0/16", v4(9), 5, 1300),), bandwidth=bandwidth)
    intent = BridgeIntent.plan(wanted, "knitter/c1/eth0")
    wiring = intent.wiring()
    stored = json.loads(json.dumps(wiring.facts))
    assert BridgeIntent.of(Wiring(wiring.type, wiring.interface, stored)) == intent


@pytest.mark.parametrize(
    ("asked", "ingress", "egress"),
    [
        (None, None, None),
        (Bandwidth(), None, None),
        (Bandwidth(ingress_rate=8_000_000), Limit(1_000_000, 14_000), None),  # ten packets
        (Bandwidth(egress_rate=80_000_000_000), None, Limit(10_000_000_000, 100_000_000)),  # 10 ms
        (Bandwidth(ingress_rate=1, ingress_burst=1), Limit(1, 2_800), None),  # what lets a packet through at all
        (Bandwidth(8_000_000, 800_000, 16_000_000, 1_600_000), Limit(1_000_000, 100_000), Limit(2_000_000, 200_000)),
    ],
)
def test_what_is_asked_in_bits_is_limited_in_bytes(asked: Bandwidth | None, ingress: Limit | None, egress: Limit | None) -> None:
    intent = BridgeIntent.plan(port(10, bandwidth=asked), "a")
    assert (intent.ingress, intent.egress) == (ingress, egress)


def test_an_intent_of_an_agent_that_knew_no_limits_is_read() -> None:
    wiring = BridgeIntent.plan(port(10), "a").wiring()
    facts = {key: value for key, value in wiring.facts.items() if key not in ("ingress", "egress")}
    assert BridgeIntent.of(Wiring(wiring.type, wiring.interface, facts)) == BridgeIntent.plan(port(10), "a")


def test_gateways_are_the_bridges_only_where_the_node_is_the_gateway() -> None:
    *gateways, link_local = BridgeIntent.plan(port(10), "a").gateways
    assert gateways == [f"{v4(1)}/24", f"{v6(1)}/64"]
    assert ip_interface(link_local).is_link_local
    only = port(10, addresses=port(10).addresses[:1])
    assert BridgeIntent.plan(only, "a").gateways == (f"{v4(1)}/24",)
    assert BridgeIntent.plan(port(10, node_gateway=False), "a").gateways == ()


def test_the_primary_interface_gets_default_routes_and_others_do_not() -> None:
    assert planned_routes(port(10)) == (Route("0.0.0.0/0", v4(1)), Route("::/0", v6(1)))
    assert planned_routes(port(10, primary=False)) == ()


def test_a_default_route_that_was_given_is_not_doubled() -> None:
    given = port(10, routes=(Route("0.0.0.0/0", v4(7)),))
    assert planned_routes(given) == (Route("0.0.0.0/0", v4(7)), Route("::/0", v6(1)))


def test_a_route_without_next_hop_goes_through_the_gateway_of_its_family_or_is_on_link() -> None:
    both = (Route("192.168.0.0/16"), Route("2001:db8:9::/48"))
    assert [route.gateway for route in planned_routes(port(10, routes=both, primary=False))] == [v4(1), v6(1)]
    bare = port(10, routes=both, primary=False, addresses=(PortAddress("10.97.1.10/24"),))
    assert [route.gateway for route in planned_routes(bare)] == ["", ""]


def test_ports_without_a_wished_default_route_are_left_alone() -> None:
    ports = (port(10), port(10, "b", primary=False))
    assert settle_defaults(ports) == ports


def test_a_wished_default_route_makes_the_primary_one_a_spare_in_its_family_only() -> None:
    wished = port(10, "b", primary=False, routes=(Route("0.0.0.0/0", v4(1, "b")),))
    primary, other = settle_defaults((port(10), wished))
    assert other == wished
    assert set(planned_routes(primary)) == {Route("0.0.0.0/0", v4(1), 4096), Route("::/0", v6(1))}


def test_settling_keeps_the_primary_ports_other_routes() -> None:
    mine = port(10, routes=(Route("192.168.0.0/16"), Route("0.0.0.0/0", v4(7))))
    wished = port(10, "b", primary=False, routes=(Route("0.0.0.0/0", v4(1, "b")),))
    primary, _ = settle_defaults((mine, wished))
    assert set(planned_routes(primary)) == {Route("192.168.0.0/16", v4(1)), Route("0.0.0.0/0", v4(7), 4096), Route("::/0", v6(1))}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"mac": "01:00:5e:00:00:01"}, "'01:00:5e:00:00:01' is not the MAC"),
        ({"mac": "02:00"}, "'02:00' is not the MAC"),
        ({"mac": "zz:00:00:00:00:01"}, "non-hexadecimal"),
        ({"mac": "00:00:00:00:00:00"}, "is not the MAC"),
        ({"addresses": (PortAddress("10.0.0.300/24"),)}, "'10.0.0.300/24'"),
        ({"addresses": (PortAddress("10.0.0.3/24", "nowhere"),)}, "'nowhere'"),
        ({"routes": (Route("10.0.0.0/33"),)}, "10.0.0.0/33"),
        ({"routes": (Route("192.168.0.0/16", "2001:db8::1"),)}, "other family"),
    ],
)
def test_what_no_kernel_could_have_is_refused_with_interface_network_and_value(change: dict[str, object], told: str) -> None:
    with pytest.raises(Invalid, match="interface eth0 of network admin/a") as refused:
        BridgeIntent.plan(replace(port(10), **change), "knitter/c1/eth0")
    assert told in refused.value.message
