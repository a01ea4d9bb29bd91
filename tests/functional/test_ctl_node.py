"""What agents and monitors tell of themselves, asked with knitterctl on a real node."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.netns import network_namespace
from harness.node import Node, eventually, node_up

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

NETWORK = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: seen}
spec: {subnets: [{cidr: 10.66.0.0/24}]}
"""
BROKEN = NETWORK.replace("seen", "broken").replace("10.66.0.0/24", "10.66.0.1/24")
CONFIG = {"cniVersion": "1.0.0", "name": "knitter", "type": "knitter-cni", "networks": {"ports": [{"attach_to_network": "seen"}]}}
CONTAINER = f"{os.getpid():x}" * 4


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with one declared network, and one that is broken."""
    with node_up("ctl") as made:
        yield made


def test_the_monitor_tells_who_follows_it_and_what_is_wrong_in_its_folder(node: Node) -> None:
    folder = Path(node.lines["networks_dir"])
    (folder / "good.yaml").write_text(NETWORK)
    (folder / "broken.yaml").write_text(BROKEN)
    monitor = ("--monitor", node.lines["monitor"])
    eventually(lambda: "seen" in node.ctl("get", "networks"), lambda: node.log("knitter-monitor"))
    eventually(lambda: "FIELD_INVALID" in node.ctl("sources", *monitor), lambda: node.ctl("sources", *monitor))
    told = node.ctl("sources", *monitor)
    assert "broken.yaml" in told
    assert "10.66.0.0/24" in told
    (connection,) = json.loads(node.ctl("connections", *monitor, "-o", "json"))["items"]
    assert connection["connected"]
    header, row = node.ctl("connections", *monitor).splitlines()
    assert header.split()[:3] == ["NODE", "CONNECTED", "VERSION"]
    assert row.split()[:2] == [connection["node"], "yes"]
    assert connection["node"] in node.ctl("get", "nodes")


def test_the_agent_tells_its_attachments_and_the_manager_the_same_sets(node: Node) -> None:
    node.ctl("apply", "-f", "-", text=NETWORK)
    with network_namespace("pod") as netns:
        node.plugin("ADD", CONTAINER, netns, "eth0", CONFIG)
        (row,) = node.ctl("attachments", "--agent", f"unix:{node.lines['agent']}", "--no-headers").splitlines()
        assert row.split()[:4] == [CONTAINER[:12], "knitter", "eth0", "attached"]
        assert "seen:10.66.0.1" in row
        (found,) = node.items("get", "portsets", "--network", "seen")
        (attachment,) = node.attachments()
        assert attachment["portSet"]["status"]["ports"] == found["status"]["ports"]
        told = node.ctl("describe", "portset", CONTAINER)
        assert "State:       bound" in told
        assert netns in told
        node.plugin("DEL", CONTAINER, netns, "eth0", CONFIG)
    node.assert_nothing_left()
