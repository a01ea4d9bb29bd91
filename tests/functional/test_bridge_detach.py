"""How bridge ports are undone: gathered, repeated, half-made, and with foreign things in the way."""

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.bridges import BridgeNode, bridge_node, port, v4
from harness.netns import ip, network_namespace, ping

from knitter_agent.drivers import Wiring
from knitter_agent.drivers.bridge_intent import BridgeIntent
from knitter_agent.netlink import Namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")


@pytest.fixture
def node() -> Iterator[BridgeNode]:
    with bridge_node() as one:
        yield one


def test_nothing_is_left(node: BridgeNode) -> None:
    sandbox, wiring = node.pod(port(10))
    node.detach(wiring)
    assert node.links() == set()
    assert [link["ifname"] for link in ip(sandbox, "link")] == ["lo"]


def test_detaching_again_or_what_never_was_is_success(node: BridgeNode) -> None:
    _, wiring = node.pod(port(10))
    node.detach(wiring)
    node.detach(wiring)
    node.detach(node.plan(port(11)))
    node.detach()


def test_a_gone_sandbox_is_success(node: BridgeNode) -> None:
    with network_namespace("pod") as sandbox:
        wiring = node.attached(sandbox, port(10))
    node.detach(wiring)
    assert node.links() == set()


def test_the_bridge_goes_with_its_last_port(node: BridgeNode) -> None:
    first, kept = node.pod(port(10))
    _, gone = node.pod(port(11))
    node.detach(gone)
    assert node.links() == {BridgeIntent.of(kept).host, BridgeIntent.of(kept).bridge}
    ping(first, v4(1))
    node.detach(kept)
    assert node.links() == set()


def test_a_bridge_with_a_port_of_someone_else_stays(node: BridgeNode) -> None:
    _, wiring = node.pod(port(10))
    bridge = BridgeIntent.of(wiring).bridge
    ip(None, "link", "add", "uplink0", "type", "veth", "peer", "name", "uplink1")
    ip(None, "link", "set", "uplink0", "master", bridge)
    node.detach(wiring)
    assert node.links() == {bridge, "uplink0", "uplink1"}


def test_a_bridge_without_ports_is_removed_by_any_detach_of_its_network(node: BridgeNode) -> None:
    """An ADD that was killed between the bridge and the pair leaves one."""
    with network_namespace("pod") as sandbox:
        wiring = node.attached(sandbox, port(10))
        ip(None, "link", "del", BridgeIntent.of(wiring).host)
    assert node.links() == {BridgeIntent.of(wiring).bridge}
    node.detach(wiring)
    assert node.links() == set()


def test_a_bridge_that_was_cut_short_is_completed_or_removed(node: BridgeNode) -> None:
    """An ADD that was killed between making the bridge and naming it."""
    for complete in (True, False):
        wiring = node.plan(port(10))
        intent = BridgeIntent.of(wiring)
        ip(None, "link", "add", intent.bridge, "address", intent.bridge_mac, "type", "bridge")
        if complete:
            sandbox = node.sandbox()
            node.attach(sandbox, wiring)
            assert node.check(sandbox, wiring) == []
            assert ip(None, "link", "show", intent.bridge)[0]["ifalias"] == intent.bridge_alias
            ping(sandbox, v4(1))
        node.detach(wiring)
        assert node.links() == set()


def test_a_pair_without_an_alias_yet_is_ours(node: BridgeNode) -> None:
    """An ADD that was killed between making the pair and naming it."""
    _, wiring = node.pod(port(10))
    ip(None, "link", "set", BridgeIntent.of(wiring).host, "alias", "")
    node.detach(wiring)
    assert node.links() == set()


def test_a_foreign_link_and_a_foreign_bridge_of_the_names_stay(node: BridgeNode) -> None:
    wiring = node.plan(port(10))
    intent = BridgeIntent.of(wiring)
    ip(None, "link", "add", intent.host, "type", "veth", "peer", "name", "other")
    ip(None, "link", "add", intent.bridge, "type", "bridge")
    node.detach(wiring)
    assert node.links() == {intent.host, "other", intent.bridge}


def test_many_cost_little_more_than_one_and_several_networks_go_at_once(node: BridgeNode) -> None:
    """Deleted one by one each of them would cost a grace period."""
    sandboxes = [node.sandbox() for _ in range(8)]
    ratios = []
    for _ in range(5):
        single = _seconds_to_detach(node, [node.attached(sandboxes[0], port(10))])
        ports = [
            (sandbox, port(10 + number, letter, interface=f"net{letter}", primary=False))
            for number, sandbox in enumerate(sandboxes)
            for letter in "abc"
        ]
        ratios.append(_seconds_to_detach(node, [node.attached(*one) for one in ports]) / single)
        assert node.links() == set()
    assert min(ratios) < 12, ratios  # for 24 ports


def _seconds_to_detach(node: BridgeNode, wirings: list[Wiring]) -> float:
    begin = time.perf_counter()
    node.detach(*wirings)
    return time.perf_counter() - begin


def test_neighbours_keep_talking_while_others_go(node: BridgeNode) -> None:
    first, _ = node.pod(port(10))
    node.pod(port(11))
    leaving = [node.pod(port(20 + number))[1] for number in range(4)]
    node.detach(*leaving)
    assert ping(first, v4(11), timeout=0.8) < 500


def test_no_descriptor_thread_or_link_is_left_by_many_cycles(node: BridgeNode) -> None:
    node.pod(port(9))  # the bridge stays: this is about pairs
    sandbox = node.sandbox()
    wirings = [node.plan(port(10, interface=f"net{index}", primary=False)) for index in range(10)]
    counts = []
    for cycle in range(30):
        with Namespace(sandbox) as opened:
            for wiring in wirings:
                node.driver.attach(node.kernel, opened, wiring)
            assert node.driver.check(node.kernel, opened, wirings[0]) == []
        node.detach(*wirings)
        if cycle in (2, 29):
            gc.collect()
            counts.append((_descriptors(), len(ip(None, "link"))))
    assert counts[0] == counts[1]


def test_no_descriptor_is_left_by_failures(node: BridgeNode) -> None:
    sandbox, wiring = node.pod(port(10))
    before = _descriptors()
    for _ in range(50):
        with pytest.raises(Exception, match="exists"):
            node.attach(sandbox, wiring)
        for path in ("/nowhere", "/etc/hostname", "/proc/self/ns/net"):
            with pytest.raises(Exception, match="CNI_NETNS"):
                Namespace(path)
    assert _descriptors() == before


def test_a_namespace_dies_with_its_path_though_it_was_worked_in(node: BridgeNode) -> None:
    """No descriptor or socket of ours pins it: the pair goes with it."""
    with network_namespace("pod") as sandbox:
        wiring = node.attached(sandbox, port(10))
        assert node.check(sandbox, wiring) == []
    deadline = time.monotonic() + 5
    while BridgeIntent.of(wiring).host in node.links():
        assert time.monotonic() < deadline, "the namespace is still alive"
        time.sleep(0.02)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
