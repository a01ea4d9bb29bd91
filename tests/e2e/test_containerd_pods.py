"""Real pods of Debian's containerd on Knitter: several interfaces, many at once, and everything that goes wrong on the way."""

import json
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from harness import containerd
from harness.containerd import Containerd, Pod
from harness.netns import ping
from harness.node import Node, eventually, node_up

pytestmark = pytest.mark.skipif(bool(containerd.missing()), reason=f"no containerd here: {containerd.missing()}")

NETWORKS = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: control, namespace: t1}
spec: {subnets: [{cidr: 10.71.0.0/24, gateway: 10.71.0.1}]}
---
apiVersion: knitter.io/v1
kind: Network
metadata: {name: media, namespace: t1}
spec: {mtu: 1400, subnets: [{cidr: 10.72.0.0/24}, {cidr: "2001:db8:72::/64", gateway: "2001:db8:72::1"}]}
"""


def wishes(*networks: str) -> dict[str, str]:
    """The annotation for these networks as eth1, eth2 …"""
    ports = [{"attach_to_network": name, "attributes": {"nic_name": f"eth{index}"}} for index, name in enumerate(networks, 1)]
    return {"networks": json.dumps({"ports": ports})}


@dataclass
class Cluster:
    """One node and its runtime."""

    node: Node
    runtime: Containerd

    def pod(self, name: str, *networks: str) -> Pod:
        """A running pod with a container."""
        return self.runtime.start_container(self.runtime.run_pod(name, wishes(*networks)))

    def address(self, pod: Pod, interface: str, version: int = 4) -> str:
        """The pod's address on an interface, as the pod sees it."""
        said = self.runtime.exec(pod, "ip", "-o", f"-{version}", "addr", "show", "dev", interface)
        found = re.findall(r"inet6? (\S+)/\d+", said)
        return next(address for address in found if not address.startswith("fe80"))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A fresh node with the networks, and a containerd in its namespace."""
    home = Path(tempfile.mkdtemp(prefix="kctd-"))
    try:
        with node_up("e2e") as node:
            node.ctl("apply", "-f", "-", text=NETWORKS)
            with Containerd(home, Path(node.lines["conf_dir"]), Path(node.lines["bin_dir"]), node.netns) as runtime:
                yield Cluster(node, runtime)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_a_pod_has_two_interfaces_beside_eth0_in_both_families(cluster: Cluster) -> None:
    one, two = cluster.pod("one", "control", "media"), cluster.pod("two", "control", "media")
    for interface, version in (("eth0", 4), ("eth1", 4), ("eth2", 4), ("eth2", 6)):
        peer = cluster.address(two, interface, version)
        cluster.runtime.exec(one, "ping", f"-{version}", "-c", "1", "-W", "3", peer)
        if interface != "eth2" or version == 6:  # the node is a gateway only where the subnet has one
            ping(cluster.node.netns, peer)
    told, _ = cluster.runtime.status(one)
    assert told == [cluster.address(one, "eth0")]
    assert "mtu 1400" in cluster.runtime.exec(one, "ip", "link", "show", "dev", "eth2")
    for pod in (one, two):
        cluster.runtime.remove_pod(pod)
    cluster.node.assert_nothing_left()


def test_eight_pods_at_once(cluster: Cluster) -> None:
    with ThreadPoolExecutor(8) as pool:
        pods = list(pool.map(lambda index: cluster.pod(f"p{index}", "control", "media"), range(8)))
        addresses = {cluster.address(pod, interface) for pod in pods for interface in ("eth0", "eth1", "eth2")}
        assert len(addresses) == 24
        list(pool.map(cluster.runtime.remove_pod, pods))
    cluster.node.assert_nothing_left()


def test_an_unknown_network_fails_the_pod_with_its_name_and_leaves_nothing(cluster: Cluster) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        cluster.runtime.run_pod("bad", wishes("control", "nowhere"))
    assert "nowhere" in caught.value.details()
    cluster.node.assert_nothing_left()


def test_a_bad_annotation_fails_the_pod_with_key_and_place(cluster: Cluster) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        cluster.runtime.run_pod("bad", {"networks": '{"ports":[{"attach_to_network":"control","attributes":{"nic_typ":"x"}}]}'})
    assert "nic_typ" in caught.value.details()
    assert "ports[0]" in caught.value.details()
    cluster.node.assert_nothing_left()


def test_a_later_plugin_of_the_chain_fails_and_the_runtime_rolls_back(cluster: Cluster) -> None:
    conflist = Path(cluster.node.lines["conf_dir"]) / "10-knitter.conflist"
    broken = Path(cluster.node.lines["bin_dir"]) / "broken"
    broken.write_text('#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] || exit 0\necho \'{"code":100,"msg":"broken on purpose"}\'\nexit 1\n')
    broken.chmod(0o755)
    config = json.loads(conflist.read_text())
    config["plugins"].append({"type": "broken"})
    conflist.write_text(json.dumps(config))

    def refused() -> bool:
        with pytest.raises(grpc.RpcError) as caught:
            cluster.runtime.remove_pod(cluster.runtime.run_pod("half", wishes("control")))
        return "broken on purpose" in caught.value.details()

    eventually(refused)  # the runtime reads a changed configuration when it notices
    cluster.node.assert_nothing_left()


def test_a_caller_that_gives_up_during_add_leaves_nothing(cluster: Cluster) -> None:
    cluster.node.signal("knitter-agent", signal.SIGSTOP)
    try:
        with pytest.raises(grpc.RpcError) as caught:
            cluster.runtime.run_pod("late", wishes("control"), timeout=1.0)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        cluster.node.signal("knitter-agent", signal.SIGCONT)
    cluster.node.assert_nothing_left()


def test_a_runtime_killed_during_add_leaves_nothing_once_its_pod_is_removed(cluster: Cluster) -> None:
    cluster.node.signal("knitter-agent", signal.SIGSTOP)
    try:
        attempt = threading.Thread(target=_run_and_fail, args=(cluster.runtime,))
        attempt.start()
        eventually(lambda: _plugin_runs(cluster.node))
        cluster.runtime.kill()
        attempt.join()
    finally:
        cluster.node.signal("knitter-agent", signal.SIGCONT)
    cluster.runtime.start()
    again = cluster.pod("again", "control")
    cluster.runtime.remove_pod(again)
    gc = {"cniVersion": "1.1.0", "name": "knitter", "type": "knitter-cni", "cni.dev/valid-attachments": []}
    cluster.node.plugin("GC", "", "", "", gc)  # a runtime that sends it; ours finds the dead namespace by itself, later
    cluster.node.assert_nothing_left()


def _run_and_fail(runtime: Containerd) -> None:
    with pytest.raises(grpc.RpcError):
        runtime.run_pod("killed", wishes("control"))


def _plugin_runs(node: Node) -> bool:
    wanted = f"{node.lines['bin_dir']}/knitter-cni".encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted in entry.read_bytes():
                return True
        except OSError:
            continue
    return False


@pytest.mark.parametrize("way", ["terminated", "killed"])
def test_pods_live_on_without_the_agent_and_are_deleted_by_its_successor(cluster: Cluster, way: str) -> None:
    one, two, three = (cluster.pod(name, "control") for name in ("one", "two", "three"))
    if way == "killed":
        cluster.node.kill("knitter-agent")
    else:
        cluster.node.signal("knitter-agent", signal.SIGTERM)
    cluster.runtime.exec(one, "ping", "-c", "1", "-W", "3", cluster.address(two, "eth1"))
    cluster.runtime.remove_pod(three)  # the agent is away: the DEL is kept on disk
    cluster.node.up()
    cluster.runtime.exec(one, "ping", "-c", "1", "-W", "3", cluster.address(two, "eth0"))
    four = cluster.pod("four", "control")
    cluster.runtime.exec(four, "ping", "-c", "1", "-W", "3", cluster.address(one, "eth1"))
    for pod in (one, two, four):
        cluster.runtime.remove_pod(pod)
    cluster.node.assert_nothing_left()


def test_a_replaced_configuration_deletes_the_pods_of_the_one_before(cluster: Cluster) -> None:
    pod = cluster.pod("old", "control", "media")
    conf_dir = Path(cluster.node.lines["conf_dir"])
    config = json.loads((conf_dir / "10-knitter.conflist").read_text())
    config["plugins"][0]["x-comment"] = "another one"
    (conf_dir / "05-new.conflist").write_text(json.dumps(config))
    (conf_dir / "10-knitter.conflist").unlink()
    cluster.runtime.remove_pod(pod)
    cluster.node.assert_nothing_left()
