"""kill -9 of each daemon in loops under churn: no address has two owners, nothing acknowledged is lost, and in the end
kernel = journal = store."""

import contextlib
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from harness.history import History
from harness.netns import ip, network_namespace
from harness.node import Node, eventually, node_up

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
    pytest.mark.timeout(300),
]

SECONDS = float(os.environ.get("KNITTER_CHURN_SECONDS", "12"))
WORKERS = 4
SMALL = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: small}
spec: {rest: 0s, subnets: [{cidr: 10.83.0.0/28, gateway: 10.83.0.1}, {cidr: "2001:db8:83::/124"}]}
"""
CONFIG = {"cniVersion": "1.0.0", "name": "churn", "type": "knitter-cni", "defaultNetwork": "admin/small"}


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with a small network, so that addresses come around often."""
    with node_up("churn") as made:
        made.ctl("apply", "-f", "-", text=SMALL)
        yield made


def addresses_of(result: dict[str, object]) -> tuple[str, ...]:
    """The addresses of a CNI result."""
    ips = result["ips"]
    assert isinstance(ips, list)
    return tuple(entry["address"].split("/")[0] for entry in ips)


def churn(node: Node, netns: str, history: History, end: threading.Event) -> None:
    """ADD and DEL in one namespace until the end; every second sandbox's ADD may fail while something is dead."""
    while not end.is_set():
        container = uuid.uuid4().hex
        result = node.plugin("ADD", container, netns, "eth0", CONFIG, check=False)
        if "code" in result or not result:
            history.failed(f"ADD {container}: {result}")
            node.plugin("DEL", container, netns, "eth0", CONFIG)  # as a runtime does after a failed ADD
            continue
        holding = history.added(container, addresses_of(result))
        time.sleep(random.uniform(0, 0.05))
        holding.until = time.monotonic()
        node.plugin("DEL", container, netns, "eth0", CONFIG)


EACH = ("knitter-monitor", "knitter-agent", "knitter-manager")


@pytest.mark.parametrize("victims", [("knitter-agent",), ("knitter-manager",), EACH], ids=["agent", "manager", "each"])
def test_kills_under_churn_lose_and_double_nothing(node: Node, victims: tuple[str, ...]) -> None:
    history, end = History(), threading.Event()
    with contextlib.ExitStack() as stack:
        spaces = [stack.enter_context(network_namespace(f"churn{index}")) for index in range(WORKERS)]
        workers = [threading.Thread(target=churn, args=(node, netns, history, end)) for netns in spaces]
        for worker in workers:
            worker.start()
        try:
            kills = kill_in_turn(node, victims, SECONDS)
        finally:
            end.set()
            for worker in workers:
                worker.join()
        assert history.violations() == []
        assert len(history.holdings) > kills, f"hardly anything was attached: {history.failures[:5]}"
        node.assert_nothing_left()
        settle_and_compare(node, spaces)
        node.assert_nothing_left()


def kill_in_turn(node: Node, victims: tuple[str, ...], seconds: float) -> int:
    """Kills and restarts until the time is over; returns how often."""
    kills, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(random.uniform(0.2, 0.8))
        node.kill(victims[kills % len(victims)])
        node.up()
        kills += 1
    return kills


def settle_and_compare(node: Node, spaces: list[str]) -> None:
    """One more round without kills: what the plugin answered, the kernel, the journal and the store say the same."""
    held = {}
    for netns in spaces:
        container = uuid.uuid4().hex
        held[container] = netns, set(addresses_of(node.plugin("ADD", container, netns, "eth0", CONFIG)))
    journal = {row["containerId"]: ports_of(row["portSet"]) for row in node.attachments()}
    store = {row["spec"]["owner"]["sandbox"]["containerId"]: ports_of(row) for row in node.items("get", "portsets", "-A")}
    told = node.ctl("ipam", "check", check=False)
    assert told.splitlines()[-1] == "no difference", told
    for container, (netns, addresses) in held.items():
        shown = ip(netns, "addr", "show", "dev", "eth0")[0]["addr_info"]
        kernel = {entry["local"] for entry in shown if entry["scope"] == "global"}
        assert kernel == addresses == journal[container] == store[container]
        node.plugin("DEL", container, netns, "eth0", CONFIG)
    assert set(journal) == set(store) == set(held)


def ports_of(port_set: dict[str, Any]) -> set[str]:
    """All addresses of a set as knitterctl shows it."""
    return {entry["cidr"].split("/")[0] for port in port_set["status"]["ports"] for entry in port["addresses"]}


def test_a_set_that_was_acknowledged_survives_the_death_of_everything(node: Node) -> None:
    with network_namespace("keep") as netns:
        container = uuid.uuid4().hex
        result = node.plugin("ADD", container, netns, "eth0", CONFIG)
        addresses = addresses_of(result)
        for component in ("knitter-manager", "knitter-agent", "knitter-monitor"):
            node.kill(component)
        node.up()
        eventually(lambda: len(node.items("get", "portsets", "-A")) == 1)
        assert ports_of(node.items("get", "portsets", "-A")[0]) == set(addresses)
        node.plugin("CHECK", container, netns, "eth0", {**CONFIG, "prevResult": result})
        node.plugin("DEL", container, netns, "eth0", CONFIG)
        node.assert_nothing_left()
