"""The request id of one call of the plugin, in every log line of that call: the agent's and the manager's."""

import json
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from harness.netns import network_namespace
from harness.node import Node, eventually, node_up

CONFIG = {"cniVersion": "1.0.0", "name": "knitter", "type": "knitter-cni", "defaultNetwork": "admin/default"}


@pytest.fixture
def node() -> Iterator[Node]:
    with node_up("ids") as node:
        for component in ("knitter-manager", "knitter-agent"):
            node.signal(component, signal.SIGUSR1)
            eventually(lambda component=component: lines(node, component, "log level"))
        yield node


def lines(node: Node, component: str, event: str, **told: str) -> list[dict[str, Any]]:
    """What it logged under this name."""
    parsed = (json.loads(line) for line in node.log(component).splitlines() if line.startswith("{"))
    return [line for line in parsed if line["event"] == event and told.items() <= line.items()]


def ids(node: Node, component: str, event: str, **told: str) -> list[str]:
    """The request ids of these lines, of which there is one at least: an answer may go out before it is logged."""
    eventually(lambda: lines(node, component, event, **told), lambda: node.log(component)[-3000:])
    return [line.get("request_id", "") for line in lines(node, component, event, **told)]


def test_one_id_leads_from_the_plugins_call_through_agent_and_manager(node: Node) -> None:
    container = uuid.uuid4().hex
    with network_namespace("ids-pod") as netns:
        node.plugin("ADD", container, netns, "eth0", CONFIG)
        (added,) = ids(node, "knitter-agent", "attached", container_id=container)
        assert len(added) == 16
        assert ids(node, "knitter-manager", "done", operation="allocate") == [added]
        node.plugin("DEL", container, netns, "eth0", CONFIG)
        (deleted,) = ids(node, "knitter-agent", "detached")
        assert len(deleted) == 16
        assert deleted != added
        assert ids(node, "knitter-manager", "done", operation="release") == [deleted]


def test_a_refusal_is_told_by_both_under_one_id(node: Node) -> None:
    with network_namespace("ids-pod") as netns:
        config = {**CONFIG, "networks": "admin/nope@net1"}
        error = node.plugin("ADD", uuid.uuid4().hex, netns, "eth0", config, check=False)
    assert "nope" in error["msg"]
    (refused,) = ids(node, "knitter-agent", "refused", verb="ADD")
    assert len(refused) == 16
    assert ids(node, "knitter-manager", "refused", operation="allocate") == [refused]
