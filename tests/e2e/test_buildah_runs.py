"""A second caller, no Kubernetes anywhere: buildah runs a container whose networks the CNI configuration names."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.netns import entered
from harness.node import Node, node_up

NETWORKS = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: front}
spec: {subnets: [{cidr: 10.81.0.0/24, gateway: 10.81.0.1}]}
---
apiVersion: knitter.io/v1
kind: Network
metadata: {name: back}
spec: {subnets: [{cidr: 10.82.0.0/24}, {cidr: "2001:db8:82::/64"}]}
"""

CONFLIST = {
    "cniVersion": "1.0.0",
    "name": "functions",
    "plugins": [
        {
            "type": "knitter-cni",
            "defaultNetwork": "admin/front",
            "networks": {"ports": [{"attach_to_network": "back", "attributes": {"nic_name": "net1"}}]},
        }
    ],
}


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with the networks, its CNI configuration replaced by CONFLIST."""
    with node_up("build") as made:
        made.ctl("apply", "-f", "-", text=NETWORKS)
        conf_dir = Path(made.lines["conf_dir"])
        (conf_dir / "10-knitter.conflist").unlink()
        (conf_dir / "10-functions.conflist").write_text(json.dumps(CONFLIST))
        yield made


class Buildah:
    """buildah with a storage and a configuration of its own."""

    def __init__(self, home: Path, node: Node) -> None:
        self.node = node
        configuration = home / "containers.conf"
        configuration.write_text(
            f'[engine]\n[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["{node.lines["bin_dir"]}"]\n'
            f'network_config_dir = "{node.lines["conf_dir"]}"\ndefault_network = "functions"\n'
        )
        self._command = ["buildah", "--root", f"{home}/root", "--runroot", f"{home}/run", "--storage-driver", "vfs"]
        self._environment = {**os.environ, "CONTAINERS_CONF": str(configuration)}

    def __call__(self, *arguments: str) -> str:
        with entered(self.node.netns):
            done = subprocess.run(
                [*self._command, *arguments], env=self._environment, capture_output=True, text=True, check=False, timeout=60
            )
        assert done.returncode == 0, f"buildah {arguments}: {done.stdout}{done.stderr}\n{self.node.log('knitter-agent')[-2000:]}"
        return done.stdout

    def container(self) -> str:
        """A container with busybox in it."""
        name = self("from", "scratch").strip()
        root = Path(self("mount", name).strip())
        (root / "bin").mkdir()
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, root / "bin" / "busybox")
        for link in ("sh", "ip", "ping"):
            (root / "bin" / link).symlink_to("busybox")
        self("umount", name)
        return name


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("buildah") or not shutil.which("busybox"), reason="needs root, buildah and busybox"
)
def test_a_container_of_buildah_gets_the_configurations_networks_and_leaves_nothing(node: Node) -> None:
    home = Path(tempfile.mkdtemp(prefix="kbld-"))
    try:
        buildah = Buildah(home, node)
        name = buildah.container()
        said = buildah("run", "--isolation", "oci", "--network", "functions", name, "--", "ip", "-o", "addr")
        for expected in ("10.81.0.", "10.82.0.", "2001:db8:82::", "eth0", "net1"):
            assert expected in said, said
        buildah("run", "--isolation", "oci", "--network", "functions", name, "--", "ping", "-c", "1", "-W", "3", "10.81.0.1")
        buildah("rm", name)
        node.assert_nothing_left()
    finally:
        shutil.rmtree(home, ignore_errors=True)
