"""A second caller, no Kubernetes anywhere: buildah runs a container whose networks the CNI configuration names."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.netns import entered, ping
from harness.node import Node, eventually, node_up

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("buildah") or not shutil.which("busybox"), reason="needs root, buildah and busybox"
)

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
        self._started: list[subprocess.Popen[str]] = []
        self._environment = {**os.environ, "CONTAINERS_CONF": str(configuration)}

    def __call__(self, *arguments: str) -> str:
        process = self.start(*arguments)
        return self.ended(process)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Begins a command, which may read what it is sent."""
        with entered(self.node.netns):
            process = subprocess.Popen(
                [*self._command, *arguments], env=self._environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        self._started.append(process)
        return process

    def close(self) -> None:
        """Ends what a failed test left running."""
        for process in self._started:
            if process.poll() is None:
                process.communicate(timeout=60)

    def ended(self, process: "subprocess.Popen[str]") -> str:
        """What a command said, which must succeed; its standard input ends now."""
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, f"{process.args}: {stdout}{stderr}\n{self.node.log('knitter-agent')[-2000:]}"
        return stdout

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


@pytest.fixture
def buildah(node: Node) -> Iterator[Buildah]:
    home = Path(tempfile.mkdtemp(prefix="kbld-"))
    made = Buildah(home, node)
    yield made
    made.close()
    shutil.rmtree(home, ignore_errors=True)


RUN = ("run", "--isolation", "oci", "--network", "functions")


def test_a_container_of_buildah_gets_the_configurations_networks_and_leaves_nothing(buildah: Buildah) -> None:
    name = buildah.container()
    said = buildah(*RUN, name, "--", "ip", "-o", "addr")
    for expected in ("10.81.0.", "10.82.0.", "2001:db8:82::", "eth0", "net1", "127.0.0.1/8"):
        assert expected in said, said
    buildah(*RUN, name, "--", "ping", "-c", "1", "-W", "3", "10.81.0.1")
    buildah("rm", name)
    buildah.node.assert_nothing_left()


def test_a_container_of_buildah_lives_on_without_the_agent_and_is_deleted_by_its_successor(buildah: Buildah) -> None:
    name, node = buildah.container(), buildah.node
    running = buildah.start(*RUN, name, "--", "sh", "-c", "read line; ping -c 1 -W 3 10.81.0.1")
    eventually(lambda: [row["state"] for row in node.attachments()] == ["attached"])
    (row,) = node.attachments()
    (address,) = re.findall(r"10\.81\.0\.\d+", row["interfaces"])
    ping(node.netns, address)
    node.kill("knitter-agent")
    ping(node.netns, address)
    buildah.ended(running)
    node.up()
    node.assert_nothing_left()
