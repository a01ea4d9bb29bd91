"""A node of a cluster as a test sees it: the whole stack in a network namespace, and Debian's containerd in the same one.

with cluster_up() as cluster:
    pod = cluster.pod("one", "control", "media")      # eth0 on the default network, eth1, eth2
"""

import json
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.containerd import Containerd, Pod
from harness.node import Node, eventually, node_up

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
---
apiVersion: knitter.io/v1
kind: Network
metadata: {name: both, namespace: t1}
spec: {subnets: [{cidr: 10.73.0.0/24, gateway: 10.73.0.1}, {cidr: "2001:db8:73::/64", gateway: "2001:db8:73::1"}]}
---
apiVersion: knitter.io/v1
kind: Network
metadata: {name: six, namespace: t1}
spec: {subnets: [{cidr: "2001:db8:74::/64", gateway: "2001:db8:74::1"}]}
"""


def wishes(*networks: str, first: int = 1) -> dict[str, str]:
    """The annotation for these networks as eth1, eth2 … (or from `first` on)."""
    ports = [{"attach_to_network": name, "attributes": {"nic_name": f"eth{index}"}} for index, name in enumerate(networks, first)]
    return {"networks": json.dumps({"ports": ports})}


@dataclass
class Cluster:
    """One node and its runtime."""

    node: Node
    runtime: Containerd

    @property
    def conflist(self) -> Path:
        """The CNI configuration that `up` wrote."""
        return Path(self.node.lines["conf_dir"]) / "10-knitter.conflist"

    def configure(self, change: Callable[[dict[str, Any]], None], name: str = "10-knitter.conflist") -> None:
        """Changes the CNI configuration, or replaces it by one in another file, and waits until the runtime has read it."""
        config = json.loads(self.conflist.read_text())
        change(config)
        config["plugins"][0]["x-version"] = version = secrets.token_hex(8)  # unknown keys are others' business
        fresh = self.conflist.with_name(f".{name}")
        fresh.write_text(json.dumps(config))
        fresh.replace(self.conflist.with_name(name))
        if name != self.conflist.name:
            self.conflist.unlink()
        eventually(lambda: version in self.runtime.cni_configuration(), self.runtime.cni_configuration)

    def netns(self, pod: Pod) -> str:
        """The path of the pod's network namespace."""
        _, info = self.runtime.status(pod)
        return next(str(entry["path"]) for entry in info["runtimeSpec"]["linux"]["namespaces"] if entry["type"] == "network")

    def pod(self, name: str, *networks: str) -> Pod:
        """A running pod with a container."""
        return self.runtime.start_container(self.runtime.run_pod(name, wishes(*networks)))

    def address(self, pod: Pod, interface: str, version: int = 4) -> str:
        """The pod's address on an interface, as the pod sees it."""
        said = self.runtime.exec(pod, "ip", "-o", f"-{version}", "addr", "show", "dev", interface)
        found = re.findall(r"inet6? (\S+)/\d+", said)
        return next(address for address in found if not address.startswith("fe80"))


@contextmanager
def cluster_up() -> Iterator[Cluster]:
    """A fresh node with NETWORKS, and a containerd in its namespace; nothing of them is left afterwards."""
    home = Path(tempfile.mkdtemp(prefix="kctd-"))
    try:
        with node_up("e2e") as node:
            node.ctl("apply", "-f", "-", text=NETWORKS)
            with Containerd(home, Path(node.lines["conf_dir"]), Path(node.lines["bin_dir"]), node.netns) as runtime:
                yield Cluster(node, runtime)
    finally:
        shutil.rmtree(home, ignore_errors=True)
