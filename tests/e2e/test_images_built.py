"""The images of `./build.sh images`: each runs its daemon, the manager as nobody special, the agent's brings the plugin."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from knitter_common.version import __version__

IMAGES = Path(__file__).resolve().parent.parent.parent / "_output" / "images"
BUILDAH = ["buildah", "--root", f"{IMAGES}/storage", "--runroot", f"{IMAGES}/run", "--storage-driver", "overlay"]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("buildah"), reason="needs root and buildah"),
    pytest.mark.skipif(not (IMAGES / "storage").exists(), reason="no images are built here: ./build.sh images"),
]


def buildah(*arguments: str, check: bool = True) -> str:
    done = subprocess.run([*BUILDAH, *arguments], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0 or not check, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


class Container:
    """A working container of one component's image."""

    def __init__(self, component: str) -> None:
        self.name = buildah("from", f"localhost/knitter-{component}:{__version__}")

    def run(self, *command: str, options: tuple[str, ...] = ()) -> str:
        """Runs a command in it, in this machine's network."""
        return buildah("run", "--isolation", "chroot", *options, self.name, "--", *command)


@pytest.fixture(params=["manager", "monitor", "agent"])
def container(request: pytest.FixtureRequest) -> Iterator[tuple[str, Container]]:
    """One of each component."""
    made = Container(request.param)
    yield request.param, made
    buildah("rm", made.name)


@pytest.fixture
def agent() -> Iterator[Container]:
    """One of the agent."""
    made = Container("agent")
    yield made
    buildah("rm", made.name)


def test_an_image_runs_its_daemon_by_default(container: tuple[str, Container]) -> None:
    component, made = container
    assert made.run(f"knitter-{component}", "--version") == f"knitter-{component} {__version__}"
    config = json.loads(buildah("inspect", "--type", "image", f"localhost/knitter-{component}:{__version__}"))["OCIv1"]["config"]
    assert config["Entrypoint"] == [f"knitter-{component}"]
    assert config["Cmd"] == ["--config", f"/etc/knitter/{component}.json"]
    assert config.get("User", "") == ("" if component == "agent" else "65532:65532")


def test_the_manager_serves_as_nobody_special(tmp_path: Path) -> None:
    made = Container("manager")
    try:
        tmp_path.chmod(0o755)
        (tmp_path / "manager.json").write_text(json.dumps({"listen": "127.0.0.1:0", "store": {"kind": "sqlite"}}))
        script = (
            "id -u; knitter-manager --config /etc/knitter/manager.json --ready-fd 3 3>/tmp/ready 2>/tmp/log & pid=$!; "
            "until [ -s /tmp/ready ] || ! kill -0 $pid; do sleep 0.1; done; "
            "knitterctl --manager $(cat /tmp/ready) get nodes -o json; kill $pid; wait $pid; echo ended $?"
        )
        told = made.run("sh", "-c", script, options=("-v", f"{tmp_path}:/etc/knitter:ro"))
    finally:
        buildah("rm", made.name)
    assert told.startswith("65532\n")
    assert '"kind": "List"' in told
    assert told.endswith("ended 0")


def test_the_agents_image_brings_the_plugin_to_a_node(agent: Container, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert "installed /host/opt/cni/bin/knitter-cni" in agent.run("knitter-cni-install", options=("-v", f"{tmp_path}:/host"))
    chroot = shutil.which("chroot") or "/usr/sbin/chroot"
    command = [chroot, str(tmp_path), "/opt/cni/bin/knitter-cni"]
    done = subprocess.run(command, env={"CNI_COMMAND": "VERSION"}, input=b"{}", capture_output=True, check=True)
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]
