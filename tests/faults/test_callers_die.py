"""Callers killed at any moment, in ADD and in DEL: what is left is whole or nothing, and GC ends it."""

import contextlib
import json
import os
import random
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from harness.netns import ip, network_namespace, ping
from harness.node import Node, node_up

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")

SECONDS = float(os.environ.get("KNITTER_CHURN_SECONDS", "10"))
WORKERS = 4
NETWORKS = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: small}
spec: {rest: 0s, subnets: [{cidr: 10.84.0.0/27, gateway: 10.84.0.1}, {cidr: "2001:db8:84::/124"}]}
---
apiVersion: knitter.io/v1
kind: Network
metadata: {name: other}
spec: {rest: 0s, subnets: [{cidr: 10.85.0.0/27, gateway: 10.85.0.1}]}
"""
CONFIG = {"cniVersion": "1.1.0", "name": "dying", "type": "knitter-cni", "defaultNetwork": "admin/small", "networks": "other@net1"}
LINKS = {"lo", "eth0", "net1"}


@pytest.fixture
def node() -> Iterator[Node]:
    with node_up("dying") as made:
        made.ctl("apply", "-f", "-", text=NETWORKS)
        yield made


class Caller:
    """One runtime with a sandbox of its own, whose plugin processes are killed at random."""

    def __init__(self, node: Node, netns: str) -> None:
        self.node, self.netns = node, netns
        self.killed = self.added = 0
        self.wrong: list[str] = []

    def run(self, end: threading.Event) -> None:
        """ADD, DEL, until the end."""
        while not end.is_set():
            container = uuid.uuid4().hex
            if self._begun("ADD", container) == 0:
                self.added += 1
                found = {link["ifname"] for link in ip(self.netns, "link", "show")}
                if found != LINKS:
                    self.wrong.append(f"{container} has {found}")
            while self._begun("DEL", container) != 0 and not end.is_set():
                pass

    def _begun(self, verb: str, container: str) -> int:
        """The exit code of a call that is killed at a random moment, or that ends before."""
        environment = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": self.netns, "CNI_IFNAME": "eth0",
            "CNI_PATH": "/usr/lib/cni", "PATH": os.environ["PATH"],
        }  # fmt: skip
        binary = f"{self.node.lines['bin_dir']}/knitter-cni"
        with subprocess.Popen([binary], env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(json.dumps(CONFIG).encode(), timeout=random.choice((10.0, random.uniform(0, 0.08))))
            if process.poll() is None:
                process.kill()
                self.killed += 1
            return process.wait()


def test_callers_that_are_killed_leave_all_or_nothing(node: Node) -> None:
    end = threading.Event()
    with contextlib.ExitStack() as stack:
        callers = [Caller(node, stack.enter_context(network_namespace(f"dying{index}"))) for index in range(WORKERS)]
        threads = [threading.Thread(target=caller.run, args=(end,)) for caller in callers]
        for thread in threads:
            thread.start()
        time.sleep(SECONDS)
        end.set()
        for thread in threads:
            thread.join()
        assert [wrong for caller in callers for wrong in caller.wrong] == []
        assert min(caller.killed for caller in callers) > 0
        assert sum(caller.added for caller in callers) > 0
        node.plugin("GC", "", "", "", {**CONFIG, "cni.dev/valid-attachments": []})  # what was killed last
        node.assert_nothing_left()
        for caller in callers:
            assert {link["ifname"] for link in ip(caller.netns, "link", "show")} == {"lo"}
            result: dict[str, Any] = node.plugin("ADD", uuid.uuid4().hex, caller.netns, "eth0", CONFIG)
            assert result["ips"]
            ping(caller.netns, "10.84.0.1")
        node.plugin("GC", "", "", "", {**CONFIG, "cni.dev/valid-attachments": []})
        node.assert_nothing_left()
        assert "failed unexpectedly" not in node.log("knitter-agent")
        assert '"level": "critical"' not in node.log("knitter-agent")
