"""What an attached bridge port is like, seen by `ip` and by packets."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness.bridges import BridgeNode, addresses, bridge_node, network_id, port, v4, v6
from harness.netns import inside, ip, ping, tc

from knitter_agent.drivers import HostInterface, settle_defaults
from knitter_agent.drivers.bridge_intent import BridgeIntent
from knitter_agent.netlink import sysctl, wire
from knitter_common.errors import Exists, Internal, Refused
from knitter_common.model import Bandwidth, NetworkType, PortAddress, Route

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")


@pytest.fixture
def node() -> Iterator[BridgeNode]:
    with bridge_node() as one:
        yield one


def test_two_pods_and_the_gateway_reach_each_other_in_both_families(node: BridgeNode) -> None:
    first, _ = node.pod(port(10))
    second, _ = node.pod(port(11))
    for target in (v4(11), v6(11), v4(1), v6(1)):
        ping(first, target)
    for target in (v4(10), v6(10)):
        ping(second, target)
        ping(None, target)


def test_a_kernel_that_does_not_echo_what_it_made_is_asked(node: BridgeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 6.2."""
    monkeypatch.setattr(wire, "NLM_F_ECHO", 0)
    first, _ = node.pod(port(10))
    second, _ = node.pod(port(11))
    ping(first, v4(11))
    ping(second, v6(10))


def test_the_first_packet_after_attach_arrives(node: BridgeNode) -> None:
    """No lost ARP or neighbour solicitation: each costs a second."""
    node.pod(port(10))
    sandbox = node.sandbox()
    for number, target in enumerate((v4(10), v6(10), v6(1)) * 15):
        wiring = node.attached(sandbox, port(20 + number))
        assert ping(sandbox, target, timeout=0.8) < 500
        node.detach(wiring)


def test_the_interface_is_as_planned(node: BridgeNode) -> None:
    sandbox, wiring = node.pod(port(10))
    (link,) = ip(sandbox, "addr", "show", "eth0")
    assert link["address"] == "02:00:00:00:61:0a"
    assert link["mtu"] == 1400
    assert "UP" in link["flags"]
    assert addresses(link) == {f"{v4(10)}/24", f"{v6(10)}/64", "fe80::ff:fe00:610a/64"}
    assert not any(entry.get("tentative") for entry in link["addr_info"])
    intent = BridgeIntent.of(wiring)
    (host,) = ip(None, "link", "show", intent.host)
    assert (host["master"], host["mtu"], host["address"]) == (intent.bridge, 1400, intent.host_mac)
    assert host["ifalias"] == intent.host_alias
    assert addresses(ip(None, "addr", "show", intent.host)[0]) == set()


def test_the_result_names_the_end_on_the_node(node: BridgeNode) -> None:
    wiring = node.plan(port(10))
    intent = BridgeIntent.of(wiring)
    assert node.attach(node.sandbox(), wiring) == (HostInterface(intent.host, intent.host_mac),)


def test_the_bridge_carries_the_gateways_and_its_own_mac(node: BridgeNode) -> None:
    _, wiring = node.pod(port(10))
    intent = BridgeIntent.of(wiring)
    (bridge,) = ip(None, "addr", "show", intent.bridge)
    assert intent.bridge == f"kbr{network_id('a')}"
    assert bridge["address"] == intent.bridge_mac
    assert addresses(bridge) == set(intent.gateways) > {f"{v4(1)}/24", f"{v6(1)}/64"}
    assert bridge["ifalias"] == f"knitter:{network_id('a')}"
    assert bridge["linkinfo"]["info_data"]["stp_state"] == 0
    node.pod(port(11))
    assert ip(None, "addr", "show", intent.bridge)[0]["address"] == intent.bridge_mac


def test_a_bridge_without_gateways_has_no_address(node: BridgeNode) -> None:
    first, wiring = node.pod(port(10, node_gateway=False))
    node.pod(port(11, node_gateway=False))
    assert addresses(ip(None, "addr", "show", BridgeIntent.of(wiring).bridge)[0]) == set()
    ping(first, v4(11))
    ping(first, v6(11))


def test_only_the_primary_interface_has_default_routes(node: BridgeNode) -> None:
    sandbox, _ = node.pod(port(10))
    node.attached(sandbox, port(10, "b", interface="eth1", primary=False))
    assert _routes(sandbox, "-4") == {("default", v4(1), "eth0"), ("10.97.1.0/24", "", "eth0"), ("10.98.1.0/24", "", "eth1")}
    assert ("default", v6(1), "eth0") in _routes(sandbox, "-6")
    assert ("default", v6(1, "b"), "eth1") not in _routes(sandbox, "-6")


def test_routes_with_next_hop_metric_and_mtu(node: BridgeNode) -> None:
    routes = (
        Route("192.168.0.0/16"),
        Route("172.16.0.0/12", v4(9), 50, 1300),
        Route("10.200.0.0/16", "192.0.2.1"),
        Route("2001:db8:ffff::/48"),
    )
    sandbox, wiring = node.pod(port(10, routes=routes, primary=False))
    found = {entry["dst"]: entry for entry in ip(sandbox, "-4", "route")}
    assert found["192.168.0.0/16"]["gateway"] == v4(1)
    assert (found["172.16.0.0/12"]["gateway"], found["172.16.0.0/12"]["metric"]) == (v4(9), 50)
    assert found["172.16.0.0/12"]["metrics"] == [{"mtu": 1300}]
    assert (found["10.200.0.0/16"]["gateway"], found["10.200.0.0/16"]["flags"]) == ("192.0.2.1", ["onlink"])
    assert ("2001:db8:ffff::/48", v6(1), "eth0") in _routes(sandbox, "-6")
    assert node.check(sandbox, wiring) == []


def test_a_host_address_reaches_its_gateway_on_link(node: BridgeNode) -> None:
    lone = (PortAddress(f"{v4(10)}/32", v4(1)), PortAddress(f"{v6(10)}/128", v6(1)))
    sandbox, wiring = node.pod(port(10, addresses=lone, node_gateway=False))
    (default,) = (entry for entry in ip(sandbox, "-4", "route") if entry["dst"] == "default")
    assert (default["gateway"], default["flags"]) == (v4(1), ["onlink"])
    assert node.check(sandbox, wiring) == []


def test_a_wished_default_route_beats_the_primary_one(node: BridgeNode) -> None:
    wished = port(10, "b", interface="eth1", primary=False, routes=(Route("0.0.0.0/0", v4(1, "b")),))
    ports = settle_defaults((port(10), wished))
    sandbox = node.sandbox()
    wirings = [node.attached(sandbox, one) for one in ports]
    assert ip(sandbox, "route", "get", "8.8.8.8")[0]["dev"] == "eth1"
    assert ip(sandbox, "-6", "route", "get", "2001:4860::1")[0]["dev"] == "eth0"
    assert [node.check(sandbox, wiring) for wiring in wirings] == [[], []]


def test_two_ports_on_one_network_have_their_routes_side_by_side(node: BridgeNode) -> None:
    routes = (Route("192.168.0.0/16"), Route("2001:db8:ffff::/48"))
    sandbox = node.sandbox()
    wirings = [
        node.attached(sandbox, port(10 + number, interface=f"eth{number}", primary=number == 0, routes=routes))
        for number in range(2)
    ]
    assert [node.check(sandbox, wiring) for wiring in wirings] == [[], []]
    assert {dev for destination, _, dev in _routes(sandbox, "-4") if destination == "192.168.0.0/16"} == {"eth0", "eth1"}
    ping(sandbox, v4(1))
    ping(sandbox, v6(1))
    node.detach(wirings[0])
    assert node.check(sandbox, wirings[1]) == []


def test_a_masqueraded_network_reaches_outside_by_the_nodes_address(node: BridgeNode) -> None:
    outside = node.sandbox()
    ip(None, "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", Path(outside).name)
    ip(None, "addr", "add", "192.0.2.1/24", "dev", "up0")
    ip(outside, "addr", "add", "192.0.2.2/24", "dev", "eth0")
    ip(None, "link", "set", "up0", "up")
    ip(outside, "link", "set", "eth0", "up")
    hidden, wiring = node.pod(port(10, masquerade=True))
    plain, other = node.pod(port(10, "b"))
    ping(hidden, "192.0.2.2")
    with pytest.raises(TimeoutError):
        ping(plain, "192.0.2.2", timeout=0.3)  # it has no route back
    node.detach(wiring, other)
    assert node.links() == {"up0"}
    assert subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout == ""


def test_a_limited_port_sends_and_receives_no_more_than_that(node: BridgeNode) -> None:
    limits = Bandwidth(ingress_rate=8_000_000, ingress_burst=80_000, egress_rate=16_000_000, egress_burst=80_000)
    sandbox, wiring = node.pod(port(10, bandwidth=limits))
    (inner,) = tc(sandbox, "qdisc", "show", "dev", "eth0")
    (outer,) = tc(None, "qdisc", "show", "dev", BridgeIntent.of(wiring).host)
    assert [(one["kind"], one["options"]["rate"]) for one in (outer, inner)] == [("tbf", 1_000_000), ("tbf", 2_000_000)]
    ping(sandbox, v4(1), size=60_000)  # six times the bucket: the rest has to wait, and arrives
    ping(None, v6(10), size=60_000)
    for path, device in ((sandbox, "eth0"), (None, BridgeIntent.of(wiring).host)):
        (one,) = tc(path, "qdisc", "show", "dev", device)
        assert one["overlimits"] > 0
    node.detach(wiring)
    assert node.links() == set()


def test_an_unlimited_port_has_no_queue_and_an_unusual_rate_fits(node: BridgeNode) -> None:
    sandbox, _ = node.pod(port(10))
    assert [one["kind"] for one in tc(sandbox, "qdisc", "show", "dev", "eth0")] == ["noqueue"]
    fast, wiring = node.pod(port(11, bandwidth=Bandwidth(ingress_rate=1, egress_rate=400_000_000_000, egress_burst=2**40)))
    assert node.check(fast, wiring) == []


def test_what_comes_from_outside_reaches_a_pod_that_has_not_spoken_yet(node: BridgeNode) -> None:
    outside = node.sandbox()
    ip(None, "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", Path(outside).name)
    for end, number in ((None, 1), (outside, 2)):
        name = "up0" if end is None else "eth0"
        ip(end, "link", "set", name, "up")
        ip(end, "addr", "add", f"192.0.2.{number}/24", "dev", name)
        ip(end, "addr", "add", f"2001:db8:ff::{number}/64", "dev", name, "nodad")
    sysctl.ensure("ipv4/ip_forward", "1")
    sysctl.ensure("ipv6/conf/all/forwarding", "1")
    _, wiring = node.pod(port(10))
    ip(outside, "route", "add", v4(0) + "/24", "via", "192.0.2.1")
    ip(outside, "-6", "route", "add", v6(0) + "/64", "via", "2001:db8:ff::1")
    ping(outside, v4(10))
    ping(outside, v6(10))
    node.detach(wiring)


def test_a_layer_2_port_has_no_address(node: BridgeNode) -> None:
    sandbox, wiring = node.pod(port(10, addresses=()))
    assert addresses(ip(sandbox, "addr", "show", "eth0")[0]) == set()
    assert node.check(sandbox, wiring) == []


def test_an_mtu_of_zero_means_the_usual_one_and_jumbo_frames_pass(node: BridgeNode) -> None:
    sandbox, _ = node.pod(port(10, mtu=0))
    assert ip(sandbox, "link", "show", "eth0")[0]["mtu"] == 1500
    first, _ = node.pod(port(10, "b", mtu=9000))
    node.pod(port(11, "b", mtu=9000))
    ping(first, v4(11, "b"), size=9000 - 28, fragment=False)
    with pytest.raises(OSError, match="too long"):
        ping(first, v4(11, "b"), size=9000 - 27, fragment=False)


def test_ipv6_works_where_the_sandbox_has_it_disabled(node: BridgeNode) -> None:
    """CRI-O and others set the default to 1 in a sandbox."""
    sandbox = node.sandbox()
    inside(sandbox, lambda: _write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"))
    node.attached(sandbox, port(10))
    ping(sandbox, v6(1))


def test_router_advertisements_are_not_accepted(node: BridgeNode) -> None:
    sandbox, wiring = node.pod(port(10))
    assert inside(sandbox, lambda: _read("/proc/sys/net/ipv6/conf/eth0/accept_ra")) == "0"
    assert _read(f"/proc/sys/net/ipv6/conf/{BridgeIntent.of(wiring).bridge}/accept_ra") == "0"


def test_the_node_forwards_only_for_bridges_with_gateways(node: BridgeNode) -> None:
    _, open_one = node.pod(port(10))
    _, closed_one = node.pod(port(10, "b", node_gateway=False))
    assert _read(f"/proc/sys/net/ipv4/conf/{BridgeIntent.of(open_one).bridge}/forwarding") == "1"
    assert _read(f"/proc/sys/net/ipv4/conf/{BridgeIntent.of(closed_one).bridge}/forwarding") == "0"
    assert _read("/proc/sys/net/ipv4/ip_forward") == "0"


def test_an_existing_interface_is_refused_and_untouched(node: BridgeNode) -> None:
    sandbox = node.sandbox()
    ip(sandbox, "link", "add", "eth0", "type", "bridge")
    before = ip(sandbox, "addr", "show", "eth0")
    with pytest.raises(Exists, match="interface eth0 exists already") as refused:
        node.attached(sandbox, port(10))
    assert refused.value.reason == "CNI_INTERFACE_EXISTS"
    assert ip(sandbox, "addr", "show", "eth0") == before
    assert node.links() == set()


def test_a_second_attach_of_the_same_is_refused_and_the_first_goes_on(node: BridgeNode) -> None:
    sandbox, wiring = node.pod(port(10))
    with pytest.raises(Exists):
        node.attach(sandbox, wiring)
    assert node.check(sandbox, wiring) == []
    ping(sandbox, v4(1))


def test_what_is_left_of_a_replaced_sandbox_gives_way(node: BridgeNode) -> None:
    old, wiring = node.pod(port(10))
    new = node.sandbox()
    node.attach(new, wiring)
    assert node.check(new, wiring) == []
    assert [link["ifname"] for link in ip(old, "link")] == ["lo"]


def test_a_foreign_link_of_the_name_is_refused_and_untouched(node: BridgeNode) -> None:
    wiring = node.plan(port(10))
    intent = BridgeIntent.of(wiring)
    ip(None, "link", "add", intent.host, "type", "bridge")
    with pytest.raises(Refused, match="not Knitter's"):
        node.attach(node.sandbox(), wiring)
    node.detach(wiring)
    assert intent.host in node.links()


def test_a_foreign_bridge_of_the_name_is_refused_and_untouched(node: BridgeNode) -> None:
    wiring = node.plan(port(10))
    bridge = BridgeIntent.of(wiring).bridge
    ip(None, "link", "add", bridge, "type", "bridge")
    with pytest.raises(Refused, match="not Knitter's"):
        node.attach(node.sandbox(), wiring)
    node.detach(wiring)
    assert node.links() == {bridge}


def test_what_the_kernel_refuses_is_told_with_step_and_reason_and_detach_undoes_the_rest(node: BridgeNode) -> None:
    wiring = node.plan(port(10, routes=(Route("192.168.0.0/16", v4(255)),)))
    sandbox = node.sandbox()
    with pytest.raises(Internal, match=r"routing 192\.168\.0\.0/16 through eth0 in /run/netns"):
        node.attach(sandbox, wiring)
    node.detach(wiring)
    assert node.links() == set()
    assert [link["ifname"] for link in ip(sandbox, "link")] == ["lo"]


def test_the_kernels_own_words_are_told(node: BridgeNode) -> None:
    with pytest.raises(Internal, match="mtu greater than device maximum") as refused:
        node.pod(port(10, mtu=70000))
    assert refused.value.metadata["errno"] == "EINVAL"
    assert "making interface eth0" in refused.value.message or "bridge" in refused.value.message


def test_a_name_that_the_kernel_keeps_for_itself_is_refused(node: BridgeNode) -> None:
    wiring = node.plan(port(10, interface="default"))
    with pytest.raises(Internal):
        node.attach(node.sandbox(), wiring)
    node.detach(wiring)
    assert node.links() == set()


def test_names_with_dots_work(node: BridgeNode) -> None:
    sandbox, wiring = node.pod(port(10, interface="eth0.100"))
    assert node.check(sandbox, wiring) == []
    ping(sandbox, v6(1))


def test_thirty_two_interfaces_in_one_sandbox(node: BridgeNode) -> None:
    sandbox = node.sandbox()
    letters = [chr(ord("A") + index) for index in range(26)] + list("abcdef")
    ports = [port(10, letter, interface=f"net{index}", primary=False) for index, letter in enumerate(letters)]
    wirings = [node.attached(sandbox, one) for one in ports]
    assert all(node.check(sandbox, wiring) == [] for wiring in wirings)
    node.detach(*wirings)
    assert node.links() == set()


def test_a_network_type_that_is_not_built_is_refused_by_name() -> None:
    from knitter_agent.drivers import driver_for

    with pytest.raises(Refused, match="sriov") as refused:
        driver_for(NetworkType.SRIOV)
    assert refused.value.reason == "DATA_PLANE_UNSUPPORTED"


def test_the_bridge_follows_the_networks_mtu(node: BridgeNode) -> None:
    _, wiring = node.pod(port(10, mtu=1400))
    node.pod(replace(port(11), mtu=1300))
    assert ip(None, "link", "show", BridgeIntent.of(wiring).bridge)[0]["mtu"] == 1300


def _routes(sandbox: str, family: str) -> set[tuple[str, str, str]]:
    return {(entry["dst"], entry.get("gateway", ""), entry["dev"]) for entry in ip(sandbox, family, "route")}


def _read(path: str) -> str:
    with open(path) as file:  # noqa: PTH123 - opened in the thread that is in the namespace
        return file.read().strip()


def _write(path: str, value: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123 - opened in the thread that is in the namespace
        file.write(value)
