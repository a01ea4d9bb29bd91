"""What a network says reaches its pods and its bridge on a real node, also what changes while pods are on it."""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from harness.netns import entered, ip, network_namespace, ping
from harness.node import Node, eventually, node_up

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

NETWORK: dict[str, Any] = {
    "apiVersion": "knitter.io/v1",
    "kind": "Network",
    "metadata": {"name": "live"},
    "spec": {
        "mtu": 1400,
        "subnets": [{"cidr": "10.66.0.0/24", "gateway": "10.66.0.1", "pools": [{"start": "10.66.0.10", "end": "10.66.0.11"}]}],
    },
}


class Pods:
    """Sandboxes on one node, each with `eth0` on the network `live`."""

    def __init__(self, node: Node, stack: ExitStack) -> None:
        self.node, self._stack = node, stack
        self._config: dict[str, tuple[str, dict[str, Any]]] = {}

    def add(self, container: str, *also: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The path of its namespace, and the result; with further interfaces in the NPWG's grammar where some are told."""
        netns = self._stack.enter_context(network_namespace("pod"))
        port = {"attach_to_network": "live", "attributes": {"nic_name": "eth0"}}
        config: dict[str, Any] = {"cniVersion": "1.0.0", "name": "knitter", "type": "knitter-cni", "networks": {"ports": [port]}}
        if also:
            config |= {"networks": list(also), "defaultNetwork": "admin/live"}
        result = self.node.plugin("ADD", container, netns, "eth0", config)
        self._config[container] = netns, {**config, "prevResult": result}
        return netns, result

    def check(self, container: str) -> None:
        """CHECK; it must find nothing."""
        netns, config = self._config[container]
        self.node.plugin("CHECK", container, netns, "eth0", config)

    def delete(self, container: str) -> None:
        """DEL."""
        netns, config = self._config.pop(container)
        self.node.plugin("DEL", container, netns, "eth0", config)

    def delete_all(self) -> None:
        """DEL of all of them."""
        for container in list(self._config):
            self.delete(container)


@pytest.fixture
def pods() -> Iterator[Pods]:
    with ExitStack() as stack:
        yield Pods(stack.enter_context(node_up("live")), stack)


def declare(node: Node, **spec: Any) -> None:
    """The network with these keys in place of its own; None takes one away."""
    wanted = {key: value for key, value in {**NETWORK["spec"], **spec}.items() if value is not None}
    node.ctl("apply", "-f", "-", text=json.dumps({**NETWORK, "spec": wanted}))


def bridge(node: Node) -> dict[str, Any]:
    """The network's bridge, with `addresses`."""
    found: dict[str, Any] = next(link for link in ip(node.netns, "addr", "show") if link["ifname"].startswith("kbr"))
    addresses = {f"{one['local']}/{one['prefixlen']}" for one in found["addr_info"] if one["scope"] == "global"}
    return {**found, "addresses": addresses}


def translated(node: Node) -> bool:
    """Whether the node translates what leaves the network."""
    with entered(node.netns):
        tables = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    return "masquerade" in tables


def container() -> str:
    """A new id."""
    return secrets.token_hex(16)


def test_dns_routes_and_mtu_reach_the_pod(pods: Pods) -> None:
    declare(
        pods.node,
        dns={"nameservers": ["10.66.0.53"], "domain": "a.b", "search": ["c.d"], "options": ["ndots:2"]},
        routes=[{"destination": "10.9.0.0/16", "mtu": 1300}, {"destination": "10.8.0.0/16", "gateway": "10.66.0.77", "metric": 7}],
    )
    netns, result = pods.add(container())
    assert result["dns"] == {"nameservers": ["10.66.0.53"], "domain": "a.b", "search": ["c.d"], "options": ["ndots:2"]}
    assert {(one["dst"], one.get("gw")) for one in result["routes"]} == {
        ("10.9.0.0/16", "10.66.0.1"),
        ("10.8.0.0/16", "10.66.0.77"),
        ("0.0.0.0/0", "10.66.0.1"),
    }
    assert result["ips"] == [{"address": "10.66.0.10/24", "gateway": "10.66.0.1", "interface": 1}]
    assert ip(netns, "link", "show", "eth0")[0]["mtu"] == 1400
    routes = {(one["dst"], one.get("gateway"), one.get("metric")) for one in ip(netns, "route", "show")}
    assert routes == {
        ("default", "10.66.0.1", None),
        ("10.9.0.0/16", "10.66.0.1", None),
        ("10.8.0.0/16", "10.66.0.77", 7),
        ("10.66.0.0/24", None, None),
    }
    pods.delete_all()
    pods.node.assert_nothing_left()


def test_wanted_addresses_and_mac_reach_the_pod_several_of_each_family(pods: Pods) -> None:
    subnets = [{"cidr": cidr} for cidr in ("10.66.0.0/24", "10.67.0.0/16", "10.68.0.7/32", "2001:db8:66::/64", "2001:db8:67::/127")]
    declare(pods.node, subnets=subnets)
    ips = ["10.66.0.9", "10.67.3.4/16", "10.68.0.7", "2001:db8:66::9", "2001:db8:67::"]
    wanted = {"name": "live", "interface": "net7", "ips": ips, "mac": "02:00:00:00:00:77"}
    first = container()
    netns, _ = pods.add(first, wanted)
    (link,) = ip(netns, "addr", "show", "net7")
    assert link["address"] == "02:00:00:00:00:77"
    assert {f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one["scope"] == "global"} == {
        "10.66.0.9/24",
        "10.67.3.4/16",
        "10.68.0.7/32",
        "2001:db8:66::9/64",
        "2001:db8:67::/127",
    }
    other, _ = pods.add(container())
    ping(other, "10.66.0.9")
    ping(other, "2001:db8:66::9")
    pods.check(first)
    pods.delete_all()
    pods.node.assert_nothing_left()


def test_a_change_reaches_a_bridge_with_ports(pods: Pods) -> None:
    node = pods.node
    declare(node)
    first, second = container(), container()
    netns, _ = pods.add(first)
    assert (bridge(node)["mtu"], bridge(node)["addresses"], translated(node)) == (1400, {"10.66.0.1/24"}, False)
    wider = [*NETWORK["spec"]["subnets"], {"cidr": "10.67.0.0/24", "gateway": "10.67.0.1"}]
    declare(node, mtu=1300, masquerade=True, subnets=wider)
    eventually(lambda: bridge(node)["mtu"] == 1300 and translated(node), lambda: f"{bridge(node)}\n{node.log('knitter-agent')}")
    eventually(lambda: bridge(node)["addresses"] == {"10.66.0.1/24", "10.67.0.1/24"}, lambda: str(bridge(node)))
    assert ip(netns, "link", "show", "eth0")[0]["mtu"] == 1400  # the pod stays as it was made
    ping(netns, "10.66.0.1")
    pods.check(first)
    pods.add(second)
    _, last = pods.add(container())
    assert last["ips"][0]["address"] == "10.67.0.2/24"
    for known in (first, second):
        pods.check(known)
    pods.delete_all()
    node.assert_nothing_left()
    assert not translated(node)


def test_so_does_what_is_taken_away_again(pods: Pods) -> None:
    node = pods.node
    declare(node, masquerade=True, subnets=[*NETWORK["spec"]["subnets"], {"cidr": "10.67.0.0/24", "gateway": "10.67.0.1"}])
    only = container()
    pods.add(only)
    eventually(lambda: bridge(node)["addresses"] == {"10.66.0.1/24", "10.67.0.1/24"}, lambda: str(bridge(node)))
    assert translated(node)
    declare(node, mtu=None)
    eventually(lambda: bridge(node)["addresses"] == {"10.66.0.1/24"}, lambda: str(bridge(node)))
    eventually(lambda: not translated(node) and bridge(node)["mtu"] == 1500, lambda: node.log("knitter-agent"))
    pods.check(only)
    pods.delete_all()
    node.assert_nothing_left()


def test_a_gateway_that_comes_later_serves_later_pods(pods: Pods) -> None:
    node = pods.node
    declare(node, subnets=[{"cidr": "10.66.0.0/24"}])
    first = container()
    netns, result = pods.add(first)
    assert "gateway" not in result["ips"][0]
    declare(node, subnets=[{"cidr": "10.66.0.0/24", "gateway": "10.66.0.254"}])
    eventually(lambda: bridge(node)["addresses"] == {"10.66.0.254/24"}, lambda: node.log("knitter-agent"))
    ping(netns, "10.66.0.254")
    _, later = pods.add(container())
    assert later["ips"][0]["gateway"] == "10.66.0.254"
    pods.check(first)
    pods.delete_all()
    node.assert_nothing_left()


def test_what_changed_while_the_agent_was_away_is_made_up_for(pods: Pods) -> None:
    node = pods.node
    declare(node)
    first = container()
    pods.add(first)
    node.kill("knitter-agent")
    declare(node, mtu=1300, masquerade=True)
    node.up()
    eventually(lambda: bridge(node)["mtu"] == 1300 and translated(node), lambda: f"{bridge(node)}\n{node.log('knitter-agent')}")
    pods.check(first)
    with entered(node.netns):  # and what somebody else took away
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        subprocess.run(["ip", "link", "set", bridge(node)["ifname"], "mtu", "1200"], check=True)
    node.kill("knitter-agent")
    node.up()
    eventually(lambda: bridge(node)["mtu"] == 1300 and translated(node), lambda: f"{bridge(node)}\n{node.log('knitter-agent')}")
    pods.delete_all()
    node.assert_nothing_left()
