"""CHECK against every kind of tampering, and the repair of what a node can repair."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.bridges import BridgeNode, addresses, bridge_node, port, v4, v6
from harness.netns import inside, ip, ping, tc

from knitter_agent.drivers import Changed
from knitter_agent.drivers.bridge_intent import BridgeIntent
from knitter_common.model import Bandwidth, Route

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")

ROUTES = (Route("192.168.0.0/16", v4(9), 50), Route("172.16.0.0/12"), Route("fd50::/32", v6(9), 50), Route("fd51::/32", mtu=1300))
LIMITS = Bandwidth(ingress_rate=8_000_000, egress_rate=16_000_000, egress_burst=800_000)
Tampering = Callable[[str, BridgeIntent], object]


@pytest.fixture
def node() -> Iterator[BridgeNode]:
    with bridge_node() as one:
        yield one


def _swap_pair(sandbox: str, intent: BridgeIntent) -> None:
    """Another pair takes the places of the first one, names and MACs alike."""
    ip(sandbox, "link", "del", "eth0")
    same = ("mtu", str(intent.mtu), "type", "veth", "peer", "name", "loose")
    ip(None, "link", "add", intent.host, "address", intent.host_mac, *same)
    ip(None, "link", "set", intent.host, "up", "master", intent.bridge)
    ip(sandbox, "link", "add", "eth0", "address", intent.mac, *same)
    ip(sandbox, "link", "set", "eth0", "up")
    for address in intent.addresses:
        ip(sandbox, "addr", "add", address, "dev", "eth0", "nodad")


def _move_away(sandbox: str, _: BridgeIntent) -> None:
    """The interface goes to the node, as a pod with the rights to it may do."""
    ip(sandbox, "link", "set", "eth0", "netns", str(threading.get_native_id()), "name", "stolen")


CASES: dict[str, tuple[Tampering, str]] = {
    "address removed": (
        lambda pod, _: ip(pod, "addr", "del", f"{v4(10)}/24", "dev", "eth0"),
        f"interface eth0: expected address {v4(10)}/24, found ",
    ),
    "IPv6 address removed": (
        lambda pod, _: ip(pod, "addr", "del", f"{v6(10)}/64", "dev", "eth0"),
        f"interface eth0: expected address {v6(10)}/64, found {v4(10)}/24, fe80::",
    ),
    "prefix length changed": (
        lambda pod, _: (
            ip(pod, "addr", "del", f"{v4(10)}/24", "dev", "eth0"),
            ip(pod, "addr", "add", f"{v4(10)}/16", "dev", "eth0"),
        ),
        f"interface eth0: expected address {v4(10)}/24, found {v4(10)}/16",
    ),
    "route removed": (
        lambda pod, _: ip(pod, "route", "del", "192.168.0.0/16"),
        f"interface eth0: expected route 192.168.0.0/16 via {v4(9)} metric 50, found none",
    ),
    "route elsewhere": (
        lambda pod, _: ip(pod, "route", "change", "172.16.0.0/12", "via", v4(8)),
        f"interface eth0: expected route 172.16.0.0/12 via {v4(1)}, found via {v4(8)}",
    ),
    "default route removed": (
        lambda pod, _: ip(pod, "route", "del", "default"),
        f"interface eth0: expected route 0.0.0.0/0 via {v4(1)}, found none",
    ),
    "IPv6 default route removed": (
        lambda pod, _: ip(pod, "-6", "route", "del", "default"),
        f"interface eth0: expected route ::/0 via {v6(1)}, found none",
    ),
    "IPv6 prefix length changed": (
        lambda pod, _: (
            ip(pod, "addr", "del", f"{v6(10)}/64", "dev", "eth0"),
            ip(pod, "addr", "add", f"{v6(10)}/128", "dev", "eth0", "nodad"),
        ),
        f"interface eth0: expected address {v6(10)}/64, found {v4(10)}/24, {v6(10)}/128",
    ),
    "IPv6 switched off": (
        lambda pod, _: inside(pod, lambda: Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").write_text("1")),
        f"interface eth0: expected address {v6(10)}/64, found {v4(10)}/24",
    ),
    "route's metric changed": (
        lambda pod, _: (
            ip(pod, "route", "del", "192.168.0.0/16"),
            ip(pod, "route", "add", "192.168.0.0/16", "via", v4(9), "metric", "60"),
        ),
        f"interface eth0: expected route 192.168.0.0/16 via {v4(9)} metric 50, found via {v4(9)} metric 60",
    ),
    "IPv6 route removed": (
        lambda pod, _: ip(pod, "-6", "route", "del", "fd50::/32"),
        f"interface eth0: expected route fd50::/32 via {v6(9)} metric 50, found none",
    ),
    "IPv6 route elsewhere": (
        lambda pod, _: (
            ip(pod, "-6", "route", "del", "fd50::/32"),
            ip(pod, "-6", "route", "add", "fd50::/32", "via", v6(8), "metric", "50"),
        ),
        f"interface eth0: expected route fd50::/32 via {v6(9)} metric 50, found via {v6(8)} metric 50",
    ),
    "IPv6 route's MTU changed": (
        lambda pod, _: (
            ip(pod, "-6", "route", "del", "fd51::/32"),
            ip(pod, "-6", "route", "add", "fd51::/32", "via", v6(1), "mtu", "1280"),
        ),
        f"interface eth0: expected route fd51::/32 via {v6(1)} MTU 1300, found via {v6(1)} metric ",
    ),
    "MTU changed": (lambda pod, _: ip(pod, "link", "set", "eth0", "mtu", "1380"), "interface eth0: expected MTU 1400, found 1380"),
    "MAC changed": (
        lambda pod, _: ip(pod, "link", "set", "eth0", "address", "02:00:00:00:00:99"),
        "interface eth0: expected MAC 02:00:00:00:61:0a, found 02:00:00:00:00:99",
    ),
    "link down": (lambda pod, _: ip(pod, "link", "set", "eth0", "down"), "interface eth0: expected up, found down"),
    "gone": (lambda pod, _: ip(pod, "link", "del", "eth0"), "interface eth0: expected in /run/netns/"),
    "renamed": (
        lambda pod, _: (ip(pod, "link", "set", "eth0", "down"), ip(pod, "link", "set", "eth0", "name", "eth9")),
        "interface eth0: expected in /run/netns/",
    ),
    "other end down": (lambda _, intent: ip(None, "link", "set", intent.host, "down"), "interface eth0: expected link kv"),
    "other end's MTU changed": (
        lambda _, intent: ip(None, "link", "set", intent.host, "mtu", "1300"),
        "interface eth0: expected MTU 1400 on link kv",
    ),
    "other end's MAC changed": (
        lambda _, intent: ip(None, "link", "set", intent.host, "address", "02:00:00:00:00:98"),
        "found 02:00:00:00:00:98",
    ),
    "other end renamed": (
        lambda _, intent: (ip(None, "link", "set", intent.host, "down"), ip(None, "link", "set", intent.host, "name", "loose")),
        "on the node, found none",
    ),
    "other end gone": (lambda _, intent: ip(None, "link", "del", intent.host), "on the node, found none"),
    "limit to the pod removed": (
        lambda _, intent: tc(None, "qdisc", "del", "dev", intent.host, "root"),
        "interface eth0: expected at most 8000000 bit/s to the pod, found no limit",
    ),
    "limit from the pod removed": (
        lambda pod, _: tc(pod, "qdisc", "del", "dev", "eth0", "root"),
        "interface eth0: expected at most 16000000 bit/s from the pod, found no limit",
    ),
    "limit changed": (
        lambda pod, _: tc(
            pod, "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", "80mbit", "burst", "100k", "latency", "50ms"
        ),
        "interface eth0: expected at most 16000000 bit/s from the pod, found 80000000 bit/s",
    ),
    "taken from its bridge": (lambda _, intent: ip(None, "link", "set", intent.host, "nomaster"), "found it on no bridge"),
    "moved to another bridge": (
        lambda _, intent: (ip(None, "link", "add", "br9", "type", "bridge"), ip(None, "link", "set", intent.host, "master", "br9")),
        "found it on the link of index",
    ),
    "bridge down": (
        lambda _, intent: ip(None, "link", "set", intent.bridge, "down"),
        "expected bridge kbraaaaaaaaaaaa up, found it down",
    ),
    "bridge gone": (
        lambda _, intent: ip(None, "link", "del", intent.bridge),
        "expected bridge kbraaaaaaaaaaaa on the node, found none",
    ),
    "bridge replaced": (
        lambda _, intent: (ip(None, "link", "del", intent.bridge), ip(None, "link", "add", intent.bridge, "type", "bridge")),
        "expected bridge kbraaaaaaaaaaaa with alias 'knitter:aaaaaaaaaaaa', found a bridge with alias ''",
    ),
    "gateway removed": (
        lambda _, intent: ip(None, "addr", "del", f"{v4(1)}/24", "dev", intent.bridge),
        f"expected gateway {v4(1)}/24 on bridge kbraaaaaaaaaaaa, found {v6(1)}/64",
    ),
    "IPv6 gateway removed": (
        lambda _, intent: ip(None, "addr", "del", f"{v6(1)}/64", "dev", intent.bridge),
        f"expected gateway {v6(1)}/64 on bridge kbraaaaaaaaaaaa, found {v4(1)}/24",
    ),
    "moved to another namespace": (_move_away, "interface eth0: expected in /run/netns/"),
    "pair replaced": (_swap_pair, "as its other end"),
    "other kind of interface": (
        lambda pod, _: (ip(pod, "link", "del", "eth0"), ip(pod, "link", "add", "eth0", "type", "bridge")),
        "interface eth0: expected a veth, found a bridge",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_tampering_is_told(node: BridgeNode, case: str) -> None:
    sandbox, wiring = node.pod(port(10, routes=ROUTES, bandwidth=LIMITS))
    assert node.check(sandbox, wiring) == []
    tamper, expected = CASES[case]
    tamper(sandbox, BridgeIntent.of(wiring))
    found = node.check(sandbox, wiring)
    assert any(expected in sentence for sentence in found), found
    assert all(sentence.startswith("interface eth0: expected ") for sentence in found), found


def test_what_later_plugins_say_they_changed_is_expected_and_nothing_else(node: BridgeNode) -> None:
    sandbox, wiring = node.pod(port(10, routes=ROUTES))
    changed = Changed("02:00:00:00:00:99", 1380, frozenset(("172.16.0.0/12",)))
    assert len(node.check(sandbox, wiring, changed)) == 2  # it says so, but the kernel has not got it
    ip(sandbox, "link", "set", "eth0", "address", changed.mac)
    ip(sandbox, "link", "set", "eth0", "mtu", str(changed.mtu))
    ip(sandbox, "route", "del", "172.16.0.0/12")
    assert node.check(sandbox, wiring, changed) == []
    assert len(node.check(sandbox, wiring)) == 3
    ip(sandbox, "route", "del", "192.168.0.0/16")
    assert len(node.check(sandbox, wiring, changed)) == 1


def test_what_others_added_is_no_difference(node: BridgeNode) -> None:
    sandbox, wiring = node.pod(port(10, routes=ROUTES))
    ip(sandbox, "addr", "add", "192.0.2.5/24", "dev", "eth0")
    ip(sandbox, "route", "add", "198.51.100.0/24", "via", v4(9))
    assert node.check(sandbox, wiring) == []


def test_check_changes_nothing(node: BridgeNode) -> None:
    sandbox, wiring = node.pod(port(10))
    before = _shape(sandbox)
    node.check(sandbox, wiring)
    assert _shape(sandbox) == before


def _shape(sandbox: str) -> list[tuple[object, ...]]:
    """What stays the same while nobody changes anything: timers and counters do not."""
    links = [*ip(sandbox, "addr"), *ip(None, "addr")]
    fields = ("ifname", "flags", "mtu", "address", "master", "ifalias", "group")
    return [(*(link.get(field) for field in fields), addresses(link)) for link in links]


def test_repair_of_a_whole_node_does_nothing(node: BridgeNode) -> None:
    _, wiring = node.pod(port(10))
    mended = node.driver.repair(node.kernel, [wiring])
    assert (mended.done, mended.lost) == ((), ())


def test_a_lost_bridge_is_made_again_with_its_ports_and_gateways(node: BridgeNode) -> None:
    first, wiring = node.pod(port(10))
    second, other = node.pod(port(11))
    ip(None, "link", "del", BridgeIntent.of(wiring).bridge)
    mended = node.driver.repair(node.kernel, [wiring, other])
    assert mended.lost == ()
    assert mended.done[0] == "bridge kbraaaaaaaaaaaa was gone and is made again"
    assert node.check(first, wiring) == [] == node.check(second, other)
    for target in (v4(11), v6(11), v4(1), v6(1)):
        ping(first, target)
    again = node.driver.repair(node.kernel, [wiring, other])
    assert (again.done, again.lost) == ((), ())


@pytest.mark.parametrize(
    "case",
    [
        "other end down",
        "other end's MTU changed",
        "taken from its bridge",
        "moved to another bridge",
        "bridge down",
        "gateway removed",
        "IPv6 gateway removed",
        "limit to the pod removed",
    ],
)
def test_what_a_node_can_repair_it_repairs(node: BridgeNode, case: str) -> None:
    sandbox, wiring = node.pod(port(10, bandwidth=LIMITS))
    CASES[case][0](sandbox, BridgeIntent.of(wiring))
    mended = node.driver.repair(node.kernel, [wiring])
    assert mended.lost == ()
    assert mended.done
    assert node.check(sandbox, wiring) == []
    ping(sandbox, v4(1))


def test_a_lost_end_is_told_and_does_not_stop_the_others(node: BridgeNode) -> None:
    _, lost = node.pod(port(10))
    second, wiring = node.pod(port(11))
    ip(None, "link", "del", BridgeIntent.of(lost).host)
    ip(None, "link", "set", BridgeIntent.of(wiring).host, "nomaster")
    mended = node.driver.repair(node.kernel, [lost, wiring])
    assert len(mended.lost) == 1
    assert "the pod must be made anew" in mended.lost[0]
    assert node.check(second, wiring) == []


def test_a_foreign_bridge_in_the_way_of_a_repair_is_told(node: BridgeNode) -> None:
    sandbox, wiring = node.pod(port(10))
    CASES["bridge replaced"][0](sandbox, BridgeIntent.of(wiring))
    mended = node.driver.repair(node.kernel, [wiring])
    assert "not Knitter's" in mended.lost[0]
