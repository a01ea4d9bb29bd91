"""kill -9 of each daemon, and of the plugin, in loops under churn: no address has two owners at any moment, none that rests goes
out, nothing acknowledged is lost, what runs is untouched, and in the end kernel = journal = store."""

import asyncio
import contextlib
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.history import History, Holding
from harness.judge import disagreements
from harness.netns import ip, network_namespace, ping
from harness.node import Node, eventually, node_up

from knitter_manager.store import StoreSettings, open_store

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
    pytest.mark.timeout(300),
]

SECONDS = float(os.environ.get("KNITTER_CHURN_SECONDS", "10"))
BRIEF, LONG = 4, 3  # workers whose sandboxes live for milliseconds, and for seconds
REST = 3600.0
NETWORKS = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: small}
spec: {rest: 0s, subnets: [{cidr: 10.83.0.0/28, gateway: 10.83.0.1}, {cidr: "2001:db8:83::/124"}]}
---
apiVersion: knitter.io/v1
kind: Network
metadata: {name: wide}
spec: {rest: 1h, subnets: [{cidr: 10.86.0.0/20}]}
"""
CONFIG = {
    "cniVersion": "1.0.0",
    "name": "churn",
    "type": "knitter-cni",
    "defaultNetwork": "admin/small",
    "networks": "admin/wide@net1",
}
DAEMONS = ("knitter-agent", "knitter-manager", "knitter-monitor")
PLUGIN = "knitter-cni"


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with a small network, whose addresses come around often, and a wide one, whose addresses come once."""
    with node_up("churn") as made:
        made.ctl("apply", "-f", "-", text=NETWORKS)
        yield made


class Churn:
    """Workers that add and delete sandboxes, as a runtime does it: after a failed or killed ADD comes a DEL, and a DEL is repeated
    until it is answered. `kill_plugins`: calls of the plugin are killed too."""

    def __init__(self, node: Node, kill_plugins: bool) -> None:
        self.node, self.history, self._kill_plugins = node, History(), kill_plugins
        self.end = threading.Event()
        self.living: dict[str, tuple[str, Holding]] = {}  # container → its namespace and what it holds
        self.broken: list[str] = []

    def brief(self, netns: str) -> None:
        """Sandboxes that live for milliseconds."""
        while not self.end.is_set():
            holding = self._add(netns)
            if holding is not None:
                time.sleep(random.uniform(0, 0.05))
                self._delete(netns, holding)

    def long(self, netns: str) -> None:
        """Sandboxes that live for seconds, through several kills, and are looked at all the time; the last one is kept."""
        holding: Holding | None = None
        while not self.end.is_set():
            if holding is None:
                holding = self._add(netns)
                until = time.monotonic() + random.uniform(1, SECONDS / 2)
                continue
            self._look(netns, holding)
            if time.monotonic() > until:
                self._delete(netns, holding)
                holding = None
        if holding is not None:
            self.living[holding.container] = netns, holding

    def _look(self, netns: str, holding: Holding) -> None:
        """Its network works whatever is dead, and holds what was acknowledged."""
        missing = set(holding.addresses) - kernel_of(netns)
        if missing:
            self.broken.append(f"{holding.container} has lost {missing}\n" + "\n".join(self.history.of(holding.container)))
        ping(netns, "10.83.0.1", timeout=10.0)

    def _add(self, netns: str) -> Holding | None:
        container = uuid.uuid4().hex
        answer = self._call("ADD", container, netns)
        if answer is not None and "ips" in answer:
            addresses = addresses_of(answer)
            inside = kernel_of(netns)
            if not set(addresses) <= inside:
                self.broken.append(f"{container} was answered {addresses} and has {inside}")
            return self.history.added(container, tuple(inside))
        self.history.failed(f"ADD {container}: {answer}")
        self._until_deleted(container, netns)
        return None

    def _delete(self, netns: str, holding: Holding) -> None:
        holding.until = time.monotonic()
        self._until_deleted(holding.container, netns)

    def _until_deleted(self, container: str, netns: str) -> None:
        while (answer := self._call("DEL", container, netns)) is None or "code" in answer:
            time.sleep(0.02)

    def _call(self, verb: str, container: str, netns: str) -> dict[str, Any] | None:
        """What the plugin printed; None when it was killed."""
        operation = self.history.call(verb, container)
        doom = random.uniform(0, 0.06) if self._kill_plugins and random.random() < 0.3 else None
        answer = self.node.doomed_plugin(verb, container, netns, "eth0", CONFIG, doom)
        if answer is not None:
            operation.answer(json.dumps(answer))
        return answer


def addresses_of(result: dict[str, Any]) -> tuple[str, ...]:
    """The addresses of a CNI result."""
    return tuple(entry["address"].split("/")[0] for entry in result["ips"])


def kernel_of(netns: str) -> set[str]:
    """The addresses that a sandbox's interfaces have."""
    shown = [link for link in ip(netns, "addr", "show") if link["ifname"] != "lo"]
    return {entry["local"] for link in shown for entry in link["addr_info"] if entry["scope"] == "global"}


CASES = {
    "agent": ("knitter-agent",),
    "manager": ("knitter-manager",),
    "monitor": ("knitter-monitor",),
    "plugin": (PLUGIN,),
    "all": (*DAEMONS, PLUGIN),
}


@pytest.mark.parametrize("victims", CASES.values(), ids=CASES)
def test_kills_under_churn_lose_and_double_nothing(node: Node, victims: tuple[str, ...]) -> None:
    churn = Churn(node, PLUGIN in victims)
    with contextlib.ExitStack() as stack:
        spaces = [stack.enter_context(network_namespace(f"churn{index}")) for index in range(BRIEF + LONG)]
        work = [churn.brief] * BRIEF + [churn.long] * LONG
        workers = [threading.Thread(target=_told(churn, one), args=(netns,)) for one, netns in zip(work, spaces, strict=True)]
        for worker in workers:
            worker.start()
        try:
            kills = kill_in_turn(node, churn, [victim for victim in victims if victim in DAEMONS])
        finally:
            churn.end.set()
            for worker in workers:
                worker.join()
        history = churn.history
        assert churn.broken == []
        assert history.violations() == []
        assert history.reused(lambda address: address.startswith("10.86."), REST) == []
        assert len(history.holdings) > kills, f"hardly anything was attached: {history.failures[:5]}"
        assert kills > 2 or victims == (PLUGIN,)
        assert PLUGIN not in victims or any(one.answered is None for one in history.operations), "no call was killed"
        agree(churn)
        for container, (netns, _) in churn.living.items():
            node.plugin("DEL", container, netns, "eth0", CONFIG)
        node.assert_nothing_left()
        assert not {link["ifname"] for space in spaces for link in ip(space, "link", "show")} - {"lo"}
    node.down()
    assert asyncio.run(store_disagreements(node.stack.home / "state" / "manager.db")) == []


def _told(churn: Churn, work: Any) -> Any:
    """A worker whose failure is the test's."""

    def run(netns: str) -> None:
        try:
            work(netns)
        except BaseException as error:
            churn.broken.append(f"a worker failed: {error!r}")
            raise

    return run


def kill_in_turn(node: Node, churn: Churn, victims: list[str]) -> int:
    """Kills and restarts until the time is over; returns how often. Without a victim it waits."""
    kills, until = 0, time.monotonic() + SECONDS
    while (left := until - time.monotonic()) > 0:
        if not victims:
            churn.end.wait(left)
            continue
        time.sleep(random.uniform(0.2, 0.8))
        killing = churn.history.call("kill", victims[kills % len(victims)])
        node.kill(killing.who)
        killing.answer("dead")
        node.up()
        kills += 1
    return kills


def agree(churn: Churn) -> None:
    """Those that live: what was acknowledged, the kernel, the journal and the store say the same; and there is nothing else."""
    node, said = churn.node, [dict[str, Any](), dict[str, Any]()]
    wanted = {container: set(holding.addresses) for container, (_, holding) in churn.living.items()}
    assert wanted, "nothing lived through to the end"
    assert wanted.keys() == {holding.container for holding in churn.history.living()}

    def settled() -> bool:
        said[0] = {row["containerId"]: ports_of(row["portSet"]) for row in node.attachments()}
        said[1] = {row["spec"]["owner"]["sandbox"]["containerId"]: ports_of(row) for row in node.items("get", "portsets", "-A")}
        return said[0] == wanted == said[1]

    eventually(settled, lambda: f"acknowledged {wanted}, journal {said[0]}, store {said[1]}")
    told = node.ctl("ipam", "check", check=False)
    assert told.splitlines()[-1] == "no difference", told
    for container, (netns, holding) in churn.living.items():
        assert kernel_of(netns) == set(holding.addresses), churn.history.of(container)
    own = node.links() - node.before
    assert len([name for name in own if name.startswith("kv")]) == 2 * len(wanted), own


def ports_of(port_set: dict[str, Any]) -> set[str]:
    """All addresses of a set as knitterctl shows it."""
    return {entry["cidr"].split("/")[0] for port in port_set["status"]["ports"] for entry in port["addresses"]}


async def store_disagreements(path: Path) -> list[str]:
    """What the manager's file says against itself."""
    store = await open_store(StoreSettings(path=str(path)))
    try:
        return await disagreements(store)
    finally:
        await store.close()


def test_a_set_that_was_acknowledged_survives_the_death_of_everything(node: Node) -> None:
    with network_namespace("keep") as netns:
        container = uuid.uuid4().hex
        result = node.plugin("ADD", container, netns, "eth0", CONFIG)
        addresses = kernel_of(netns)
        for component in DAEMONS:
            node.kill(component)
        ping(netns, "10.83.0.1")
        node.up()
        eventually(lambda: len(node.items("get", "portsets", "-A")) == 1)
        assert ports_of(node.items("get", "portsets", "-A")[0]) == addresses >= set(addresses_of(result))
        node.plugin("CHECK", container, netns, "eth0", {**CONFIG, "prevResult": result})
        node.plugin("DEL", container, netns, "eth0", CONFIG)
        node.assert_nothing_left()
