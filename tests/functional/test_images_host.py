"""What the agent's image brings to a node: a plugin that runs on a root with no Python, no libc and no shell."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
sys.path.append(str(DEPLOY))

import host_python  # noqa: E402
import install_host  # noqa: E402

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root"),
    pytest.mark.skipif(not shutil.which("patchelf"), reason="patchelf is not installed: apt-get install patchelf"),
]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """/opt/knitter of the agent's image, at a path that a script's first line has room for."""
    with tempfile.TemporaryDirectory(prefix="kn-") as directory:
        home = Path(directory)
        python = host_python.make(f"{home}/python-{{id}}", Path("/"))
        subprocess.run([sys.executable, DEPLOY / "install_plugin.py", "--python", python, home / "knitter-cni"], check=True)
        yield home


def call(host: Path, verb: str) -> "subprocess.CompletedProcess[str]":
    chroot = shutil.which("chroot") or "/usr/sbin/chroot"
    command = [chroot, str(host), "/opt/cni/bin/knitter-cni"]
    return subprocess.run(command, env={"CNI_COMMAND": verb}, input="{}", capture_output=True, text=True, check=False)


def test_the_plugin_runs_on_an_empty_root(home: Path, tmp_path: Path) -> None:
    written = install_host.install(home, tmp_path, Path("/opt/cni/bin"))
    assert written[-1] == tmp_path / "opt/cni/bin/knitter-cni"
    assert not (tmp_path / "bin").exists()
    assert "0.3.1" in call(tmp_path, "VERSION").stdout
    missing = call(tmp_path, "ADD")
    assert (missing.returncode, '"code": 4' in missing.stdout) == (1, True), missing


def test_installing_again_writes_nothing(home: Path, tmp_path: Path) -> None:
    install_host.install(home, tmp_path, Path("/opt/cni/bin"))
    assert install_host.install(home, tmp_path, Path("/opt/cni/bin")) == []


def test_a_half_copied_interpreter_is_copied_again_and_old_ones_go(home: Path, tmp_path: Path) -> None:
    interpreter, _ = install_host.install(home, tmp_path, Path("/opt/cni/bin"))
    (interpreter / "complete").unlink()
    shutil.rmtree(interpreter / "lib")
    for age, name in enumerate(("python-00000002", "python-00000001")):
        (interpreter.parent / name).mkdir()
        os.utime(interpreter.parent / name, (1000 - age, 1000 - age))
    assert install_host.install(home, tmp_path, Path("/opt/cni/bin")) == [interpreter]
    assert call(tmp_path, "VERSION").returncode == 0
    assert sorted(path.name for path in interpreter.parent.glob("python-*")) == sorted([interpreter.name, "python-00000002"])
