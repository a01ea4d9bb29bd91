"""What Debian's containerd makes of CNI, call by call: DEL twice, both families, loopback, and the plugins chained after ours."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import containerd
from harness.cluster import Cluster, cluster_up, wishes
from harness.containerd import Pod
from harness.netns import inside, ip, ping, tc
from harness.recorder import Recorder

pytestmark = pytest.mark.skipif(bool(containerd.missing()), reason=f"no containerd here: {containerd.missing()}")

REFERENCE = Path("/usr/lib/cni")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with cluster_up() as made:
        yield made


def test_every_del_arrives_twice_the_second_without_namespace_and_result(cluster: Cluster) -> None:
    calls = Recorder(Path(cluster.node.lines["bin_dir"]))
    pod = cluster.pod("one", "control")
    (added,) = calls.of("ADD")
    netns = added.environment["CNI_NETNS"]
    assert netns == cluster.netns(pod)
    cluster.runtime.remove_pod(pod)
    first, second = calls.of("DEL")
    assert (first.environment.get("CNI_NETNS"), first.stdin["prevResult"]) == (netns, added.stdout)
    assert (second.environment.get("CNI_NETNS", ""), second.stdin.get("prevResult")) == ("", None)
    assert [(call.code, call.stdout) for call in (first, second)] == [(0, None)] * 2
    cluster.node.assert_nothing_left()


def test_a_primary_of_both_families_is_told_as_the_pods_addresses(cluster: Cluster) -> None:
    one, two = (
        cluster.runtime.start_container(cluster.runtime.run_pod(name, wishes("both", "media", first=0))) for name in ("one", "two")
    )
    for pod in (one, two):
        told, _ = cluster.runtime.status(pod)
        assert told == [cluster.address(pod, "eth0"), cluster.address(pod, "eth0", 6)]
        for address in told:
            ping(cluster.node.netns, address)
    for version, gateway in ((4, "10.73.0.1"), (6, "2001:db8:73::1")):
        cluster.runtime.exec(one, "ping", f"-{version}", "-c", "1", "-W", "3", cluster.address(two, "eth0", version))
        cluster.runtime.exec(one, "ping", f"-{version}", "-c", "1", "-W", "3", gateway)
        assert gateway in cluster.runtime.exec(one, "ip", f"-{version}", "route", "show", "default")
    for pod in (one, two):
        cluster.runtime.remove_pod(pod)
    cluster.node.assert_nothing_left()


def test_a_primary_of_ipv6_alone(cluster: Cluster) -> None:
    one, two = (cluster.runtime.start_container(cluster.runtime.run_pod(name, wishes("six", first=0))) for name in ("one", "two"))
    for pod in (one, two):
        told, _ = cluster.runtime.status(pod)
        assert told == [cluster.address(pod, "eth0", 6)]
        ping(cluster.node.netns, told[0])
    cluster.runtime.exec(one, "ping", "-c", "1", "-W", "3", cluster.address(two, "eth0", 6))
    assert "inet " not in cluster.runtime.exec(one, "ip", "-o", "addr", "show", "dev", "eth0")
    for pod in (one, two):
        cluster.runtime.remove_pod(pod)
    cluster.node.assert_nothing_left()


def test_loopback_is_there_and_stays_while_interfaces_come_and_go(cluster: Cluster) -> None:
    pod = cluster.pod("one", "control")
    for target in ("127.0.0.1", "::1", cluster.address(pod, "eth1")):
        cluster.runtime.exec(pod, "ping", "-c", "1", "-W", "3", target)
    before = cluster.runtime.exec(pod, "ip", "-o", "addr", "show", "dev", "lo")
    config = {"cniVersion": "1.0.0", "name": "second", "type": "knitter-cni", "tenant": "t1", "defaultNetwork": "t1/media"}
    for verb in ("ADD", "DEL"):
        cluster.node.plugin(verb, pod.id, cluster.netns(pod), "eth7", config)
        assert cluster.runtime.exec(pod, "ip", "-o", "addr", "show", "dev", "lo") == before
    cluster.runtime.remove_pod(pod)
    cluster.node.assert_nothing_left()


PORTMAP = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
BANDWIDTH = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
TUNING = {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_notify": "1"}, "mac": "02:00:00:00:77:01"}


ASKED = {"kubernetes.io/ingress-bandwidth": "8M", "kubernetes.io/egress-bandwidth": "16M"}


def rates(netns: str) -> list[int]:
    """The rates, in bytes per second, that links of a namespace are limited to."""
    return [one["options"]["rate"] for one in inside(netns, lambda: tc(None, "qdisc", "show")) if one["kind"] == "tbf"]


def test_the_bandwidth_of_a_pods_annotations_limits_its_primary_interface(cluster: Cluster) -> None:
    pod = cluster.runtime.start_container(cluster.runtime.run_pod("slow", {**wishes("control"), **ASKED}))
    assert (rates(cluster.node.netns), rates(cluster.netns(pod))) == ([1_000_000], [2_000_000])
    cluster.runtime.exec(pod, "ping", "-c", "1", "-W", "3", cluster.address(pod, "eth1"))
    ping(cluster.node.netns, cluster.address(pod, "eth0"), size=20_000)
    cluster.runtime.remove_pod(pod)
    cluster.node.assert_nothing_left()


needs_reference = pytest.mark.skipif(
    not all((REFERENCE / name).exists() for name in ("bridge", "host-local", "portmap", "bandwidth", "tuning")),
    reason="Debian's containernetworking-plugins are not installed",
)


def served_on(cluster: Cluster, pod: Pod, address: str, port: int) -> bool:
    """Whether a connection from the node to the address and port arrives at port 80 of the pod."""
    with contextlib.closing(inside(cluster.netns(pod), lambda: socket.create_server(("0.0.0.0", 80)))) as server:
        server.settimeout(10)
        with contextlib.closing(inside(cluster.node.netns, lambda: socket.create_connection((address, port), 10))) as client:
            served, _ = server.accept()
            served.close()
            return client.recv(1) == b""


@needs_reference
def test_portmap_bandwidth_and_tuning_work_on_what_knitter_made(cluster: Cluster) -> None:
    def change(config: dict[str, Any]) -> None:
        del config["plugins"][0]["capabilities"]["bandwidth"]  # two that limit the same link would be in each other's way
        config["plugins"] += [TUNING, BANDWIDTH, PORTMAP]

    cluster.configure(change)
    pod = cluster.runtime.start_container(cluster.runtime.run_pod("web", {**wishes("control"), **ASKED}, ports={18080: 80}))
    assert "02:00:00:00:77:01" in cluster.runtime.exec(pod, "ip", "link", "show", "dev", "eth0")
    assert cluster.runtime.exec(pod, "cat", "/proc/sys/net/ipv4/conf/eth0/arp_notify") == "1\n"
    assert sorted(rates(cluster.node.netns)) == [1_000_000, 2_000_000]  # towards the pod, and out of it through an ifb
    gateway = cluster.runtime.exec(pod, "ip", "-4", "route", "show", "default").split()[2]
    assert served_on(cluster, pod, gateway, 18080)
    cluster.runtime.remove_pod(pod)
    assert rates(cluster.node.netns) == []
    cluster.node.assert_nothing_left()


@needs_reference
def test_knitter_adds_to_the_interface_that_another_plugin_made(cluster: Cluster, tmp_path: Path) -> None:
    ranges = [[{"subnet": "10.88.0.0/24"}], [{"subnet": "2001:db8:88::/64"}]]
    ipam = {"type": "host-local", "dataDir": str(tmp_path), "ranges": ranges}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam}
    calls = Recorder(Path(cluster.node.lines["bin_dir"]))
    cluster.configure(lambda config: config["plugins"].insert(0, bridge))
    pod = cluster.pod("chained", "control")
    told, _ = cluster.runtime.status(pod)
    assert told == [cluster.address(pod, "eth0"), cluster.address(pod, "eth0", 6)] == ["10.88.0.2", "2001:db8:88::2"]
    (added,) = calls.of("ADD")
    assert added.stdout == added.stdin["prevResult"]
    cluster.runtime.exec(pod, "ping", "-c", "1", "-W", "3", "10.88.0.1")
    ping(cluster.node.netns, cluster.address(pod, "eth1"))
    (row,) = cluster.node.attachments()
    assert row["interfaces"].startswith("eth1")
    cluster.runtime.remove_pod(pod)
    ip(cluster.node.netns, "link", "del", "cni0")  # which its plugin leaves behind
    cluster.node.assert_nothing_left()
    assert not list(tmp_path.glob("knitter/10.*"))


@needs_reference
def test_delegates_make_the_primary_and_get_what_the_pod_asks_for(cluster: Cluster, tmp_path: Path) -> None:
    ranges = [[{"subnet": "10.87.0.0/24"}], [{"subnet": "2001:db8:87::/64"}]]
    ipam = {"type": "host-local", "dataDir": str(tmp_path), "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam}

    def change(config: dict[str, Any]) -> None:
        del config["plugins"][0]["capabilities"]["bandwidth"]
        config["plugins"][0]["capabilities"]["portMappings"] = True
        config["plugins"][0]["delegate"] = {"name": "lan", "plugins": [bridge, PORTMAP]}

    cluster.configure(change)
    pod = cluster.runtime.start_container(cluster.runtime.run_pod("web", wishes("control", "media"), ports={18082: 80}))
    told, _ = cluster.runtime.status(pod)
    assert told == [cluster.address(pod, "eth0"), cluster.address(pod, "eth0", 6)] == ["10.87.0.2", "2001:db8:87::2"]
    ping(cluster.node.netns, cluster.address(pod, "eth1"))
    assert served_on(cluster, pod, "10.87.0.1", 18082)
    cluster.node.kill("knitter-agent")
    cluster.node.up()
    assert served_on(cluster, pod, "10.87.0.1", 18082)
    cluster.runtime.remove_pod(pod)
    ip(cluster.node.netns, "link", "del", "cni0")  # which its plugin leaves behind
    cluster.node.assert_nothing_left()
    assert not [entry for entry in (tmp_path / "lan").iterdir() if entry.name[0].isdigit()]
