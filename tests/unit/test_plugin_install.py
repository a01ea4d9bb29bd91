"""deploy/install_plugin.py: one executable file, put in place whole, without ever taking the old one away first."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from knitter_common.version import __version__

ROOT = Path(__file__).resolve().parent.parent.parent


def install(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "deploy" / "install_plugin.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def first_line(path: Path) -> str:
    return path.read_bytes().split(b"\n", 1)[0].decode()


def version(path: Path) -> bytes:
    return subprocess.run([str(path)], env={"CNI_COMMAND": "VERSION"}, input=b"", capture_output=True, check=True).stdout


def test_it_writes_one_executable_file_and_nothing_else(tmp_path: Path) -> None:
    done = install(tmp_path / "knitter-cni")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["knitter-cni"]
    assert stat.S_IMODE((tmp_path / "knitter-cni").stat().st_mode) == 0o755
    assert b"supportedVersions" in version(tmp_path / "knitter-cni")


def test_it_tells_its_version_to_people(tmp_path: Path) -> None:
    install(tmp_path / "knitter-cni")
    done = subprocess.run([tmp_path / "knitter-cni", "--version"], capture_output=True, text=True, check=True, env={})
    assert done.stdout == f"knitter-cni {__version__}\n"


def test_its_interpreter_is_the_real_one(tmp_path: Path) -> None:
    install(tmp_path / "knitter-cni")
    python, argument = first_line(tmp_path / "knitter-cni").removeprefix("#!").split(" ", 1)
    assert argument.startswith("-IScimport ")
    assert os.path.realpath(python) == python
    assert "venv" not in python
    assert "shims" not in python


def test_it_replaces_a_file_that_runs(tmp_path: Path) -> None:
    target = tmp_path / "knitter-cni"
    install(target)
    before = target.stat().st_ino
    with subprocess.Popen([str(target)], env={"CNI_COMMAND": "VERSION"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert install(target).returncode == 0
        assert b"supportedVersions" in running.communicate(b"", 20)[0]
    assert target.stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["knitter-cni"]


def test_the_mode_does_not_depend_on_the_callers_mask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        install(tmp_path / "knitter-cni")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "knitter-cni").stat().st_mode) == 0o755


def test_another_interpreter_is_named_as_it_is_given(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="kn-") as short:  # a script's first line has little room
        link = Path(short) / "python3"
        link.symlink_to(sys._base_executable)  # type: ignore[attr-defined]
        assert install("--python", link, tmp_path / "knitter-cni").returncode == 0
        assert first_line(tmp_path / "knitter-cni").startswith(f"#!{link} -ISc")
        assert b"supportedVersions" in version(tmp_path / "knitter-cni")


@pytest.mark.parametrize("python", ["/nonexistent/python3", "/bin/false", "/tmp/" + "x" * 130, "/tmp/a b/python3"])
def test_an_interpreter_that_cannot_run_it_is_refused_and_the_old_file_stays(tmp_path: Path, python: str) -> None:
    target = tmp_path / "knitter-cni"
    target.write_text("old")
    done = install("--python", python, target)
    assert done.returncode == 1
    assert python in done.stderr
    assert "Traceback" not in done.stderr
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = install(tmp_path / "missing" / "knitter-cni")
    assert done.returncode == 1
    assert "missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_in_its_place_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "knitter-cni").mkdir()
    done = install(tmp_path / "knitter-cni")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["knitter-cni"]


def test_the_longest_interpreter_and_socket_have_room(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="kn-") as short:
        room = 127 - len("#! -IScimport sys;f=open(sys.argv[1],'rb',0);exec(f.read(1024))")
        link = Path(short) / "p".ljust(room - len(short) - 1, "y")
        link.symlink_to(sys._base_executable)  # type: ignore[attr-defined]
        path = f"{short}/".ljust(107, "s")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            assert install("--python", link, "--socket", path, tmp_path / "knitter-cni").returncode == 0
            environment = {"CNI_COMMAND": "STATUS", "KNITTER_TIMEOUT": "0.1"}
            done = subprocess.run([tmp_path / "knitter-cni"], env=environment, input=b"{}", capture_output=True, check=False)
            assert b"did not answer in time" in done.stdout
            listener.settimeout(5)
            listener.accept()[0].close()


def test_a_socket_whose_name_is_too_long_is_told(tmp_path: Path) -> None:
    done = install("--socket", "/" + "é" * 200, tmp_path / "knitter-cni")
    assert done.returncode == 1
    assert "--socket" in done.stderr
    assert "Traceback" not in done.stderr
