"""Real pods of Debian's containerd on Knitter: several interfaces, many at once, and everything that goes wrong on the way."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness import containerd
from harness.cluster import Cluster, cluster_up, wishes
from harness.containerd import Containerd
from harness.netns import Traffic, ip, ping
from harness.node import Node, eventually
from harness.recorder import Recorder

LOOPBACK_CACHE = "/var/lib/cni/results/cni-loopback-{}-lo"

pytestmark = pytest.mark.skipif(bool(containerd.missing()), reason=f"no containerd here: {containerd.missing()}")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with cluster_up() as made:
        yield made


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


def test_an_add_that_fails_half_way_takes_the_whole_pod_back(cluster: Cluster) -> None:
    networks = {item["metadata"]["name"]: item["status"]["id"] for item in cluster.node.items("get", "networks", "-A")}
    obstacle = f"kbr{networks['media']}"  # of the name that eth2's bridge needs; eth0 and eth1 are made by then
    ip(cluster.node.netns, "link", "add", obstacle, "type", "bridge")
    calls = Recorder(Path(cluster.node.lines["bin_dir"]))
    with pytest.raises(grpc.RpcError) as caught:
        cluster.runtime.run_pod("half", wishes("control", "media"))
    assert f"link {obstacle} exists and is not Knitter's" in caught.value.details()
    assert {call.code for call in calls.of("DEL")} == {0}
    ip(cluster.node.netns, "link", "del", obstacle)
    cluster.node.assert_nothing_left()
    cluster.runtime.remove_pod(cluster.pod("whole", "control", "media"))
    cluster.node.assert_nothing_left()


def test_a_later_plugin_of_the_chain_fails_and_the_runtime_rolls_back(cluster: Cluster) -> None:
    broken = Path(cluster.node.lines["bin_dir"]) / "broken"
    broken.write_text('#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] || exit 0\necho \'{"code":100,"msg":"broken on purpose"}\'\nexit 1\n')
    broken.chmod(0o755)
    cluster.configure(lambda config: config["plugins"].append({"type": "broken"}))
    calls = Recorder(broken.parent)
    with pytest.raises(grpc.RpcError) as caught:
        cluster.runtime.run_pod("half", wishes("control"))
    assert "broken on purpose" in caught.value.details()
    assert [call.code for call in (*calls.of("ADD"), *calls.of("DEL"))] == [0, 0]
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


def test_an_agent_killed_during_add_fails_the_pod_and_leaves_nothing(cluster: Cluster) -> None:
    cluster.node.signal("knitter-agent", signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        attempt = pool.submit(cluster.runtime.run_pod, "late", wishes("control"))
        eventually(lambda: _attaching(cluster.node))
        cluster.node.kill("knitter-agent")
        with pytest.raises(grpc.RpcError) as caught:
            attempt.result()
    assert "try again later" in caught.value.details()
    cluster.node.up()
    cluster.node.assert_nothing_left()
    cluster.runtime.remove_pod(cluster.pod("next", "control"))
    cluster.node.assert_nothing_left()


def test_a_runtime_killed_during_add_leaves_nothing(cluster: Cluster) -> None:
    cluster.node.signal("knitter-agent", signal.SIGSTOP)
    try:
        attempt = threading.Thread(target=_run_and_fail, args=(cluster.runtime,))
        attempt.start()
        eventually(lambda: _attaching(cluster.node))
        container = _attaching(cluster.node)
        cluster.runtime.kill()
        attempt.join()
    finally:
        cluster.node.signal("knitter-agent", signal.SIGCONT)
    cluster.node.assert_nothing_left()  # though the namespace lives on, and nobody will ever ask for a DEL
    Path(LOOPBACK_CACHE.format(container)).unlink()  # what libcni keeps of the sandbox for ever
    cluster.runtime.start()
    cluster.runtime.remove_pod(cluster.pod("again", "control"))
    cluster.node.assert_nothing_left()


def _run_and_fail(runtime: Containerd) -> None:
    with pytest.raises(grpc.RpcError):
        runtime.run_pod("killed", wishes("control"))


def _attaching(node: Node) -> str:
    """The container of a plugin process that runs on the node, "" when there is none."""
    plugin = f"{node.lines['bin_dir']}/knitter-cni".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if plugin in (entry / "cmdline").read_bytes():
                environment = dict(pair.partition(b"=")[::2] for pair in (entry / "environ").read_bytes().split(b"\0"))
                return environment[b"CNI_CONTAINERID"].decode()
        except (OSError, KeyError):
            continue
    return ""


@pytest.mark.parametrize("way", ["terminated", "killed"])
def test_traffic_goes_on_without_the_agent_and_pods_are_deleted_by_its_successor(cluster: Cluster, way: str) -> None:
    one, two, three = (cluster.pod(name, "control", "media") for name in ("one", "two", "three"))
    targets = [cluster.address(two, interface, version) for interface, version in (("eth0", 4), ("eth1", 4), ("eth2", 6))]
    with contextlib.ExitStack() as stack:
        inside = cluster.netns(one)
        traffic = [stack.enter_context(Traffic(inside, target)) for target in targets]
        traffic.append(stack.enter_context(Traffic(cluster.node.netns, targets[1])))
        if way == "killed":
            cluster.node.kill("knitter-agent")
        else:
            cluster.node.signal("knitter-agent", signal.SIGTERM)
        cluster.runtime.remove_pod(three)  # the agent is away: the DEL is kept on disk
        cluster.node.up()
        four = cluster.pod("four", "control")
        cluster.runtime.exec(four, "ping", "-c", "1", "-W", "3", targets[1])
    assert [one.lost for one in traffic] == [0] * 4
    assert all(one.answered for one in traffic)
    for pod in (one, two, four):
        cluster.runtime.remove_pod(pod)
    cluster.node.assert_nothing_left()


@pytest.mark.parametrize("name", ["10-knitter.conflist", "05-new.conflist"])
def test_a_replaced_configuration_deletes_the_pods_of_the_one_before(cluster: Cluster, name: str) -> None:
    old = cluster.pod("old", "control", "media")
    calls = Recorder(Path(cluster.node.lines["bin_dir"]))

    def change(config: dict[str, Any]) -> None:
        config["cniVersion"] = "0.4.0"
        config["plugins"][0] = {"type": "knitter-cni", "defaultNetwork": "t1/control", "new": True}

    cluster.configure(change, name)
    new = cluster.runtime.start_container(cluster.runtime.run_pod("new"))
    cluster.runtime.exec(new, "ping", "-c", "1", "-W", "3", cluster.address(old, "eth1"))
    for pod in (old, new):
        cluster.runtime.remove_pod(pod)
    assert all(call.stdin["new"] for call in calls.of("DEL"))
    assert {call.environment["CNI_CONTAINERID"] for call in calls.of("DEL")} == {old.id, new.id}
    cluster.node.assert_nothing_left()
