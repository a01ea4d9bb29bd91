"""A single-machine stack in the background: manager, monitor and agent on the embedded store.

    stack.py up   [--dir D]   starts what is not running, returns when it serves, prints key=value lines
    stack.py down [--dir D]   ends what `up` started; attached sandboxes keep their networks

Everything lives below D (default _output/stack): *.json (configuration), networks/ (YAML that the monitor applies), net.d/ (CNI
configuration), bin/ (the plugin, which knows this stack's socket), state/, log/ and run/. Several stacks run side by side.

The lines: manager= and monitor= (host:port), agent= (path of the socket), conf_dir=, bin_dir=, networks_dir=, state_dir=.
"""

import argparse
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / "_output" / "bin"
DEFAULT_DIR = ROOT / "_output" / "stack"
START_SECONDS = 30  # a daemon that has not served by then is ended and its log shown
STOP_SECONDS = 15  # after SIGTERM; then SIGKILL
PLUGIN_DIRS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))  # where reference plugins may be installed
SUN_PATH = 107  # bytes a unix socket's path may have


@dataclass(frozen=True)
class Stack:
    """The places of one stack."""

    home: Path

    @property
    def socket(self) -> Path:
        """The agent's socket, below /run when the home's path is too long for one."""
        path = self.home / "run" / "agent.sock"
        if len(os.fsencode(path)) <= SUN_PATH:
            return path
        return Path("/run") / f"knitter-{self.digest:08x}" / "agent.sock"

    @property
    def digest(self) -> int:
        """A number of 32 bits that tells stacks apart."""
        return int(hashlib.sha256(os.fsencode(self.home)).hexdigest()[:8], 16)

    def config(self, component: str) -> Path:
        """The daemon's configuration file."""
        return self.home / f"{component}.json"

    def pid_file(self, component: str) -> Path:
        """Holds the daemon's pid."""
        return self.home / "run" / f"{component}.pid"

    def log(self, component: str) -> Path:
        """What the daemon says."""
        return self.home / "log" / f"{component}.log"


COMPONENTS = ("knitter-manager", "knitter-monitor", "knitter-agent")


def up(stack: Stack) -> dict[str, str]:
    """Starts what is not running; returns the lines to print. Raises SystemExit with the log's end when a daemon does not serve."""
    for name in ("networks", "net.d", "bin", "state", "log", "run"):
        (stack.home / name).mkdir(parents=True, exist_ok=True)
    (stack.home / "run").chmod(0o700)
    manager = _ensure(stack, COMPONENTS[0], _manager_config(stack))
    default = stack.home / "networks" / "default.yaml"
    fresh = not default.exists()
    if fresh:
        default.write_text(_default_network(stack), encoding="utf-8")
    monitor = _ensure(stack, COMPONENTS[1], _monitor_config(stack, manager))
    if fresh:
        _await_default_network(stack, manager)
    _ensure(stack, COMPONENTS[2], _agent_config(stack, manager, monitor))
    _install_plugin(stack)
    conflist = stack.home / "net.d" / "10-knitter.conflist"
    if not conflist.exists():
        _write_json(conflist, _conflist())
    return {
        "manager": manager,
        "monitor": monitor,
        "agent": str(stack.socket),
        "conf_dir": str(stack.home / "net.d"),
        "bin_dir": str(stack.home / "bin"),
        "networks_dir": str(stack.home / "networks"),
        "state_dir": str(stack.home / "state"),
    }


def down(stack: Stack) -> None:
    """Ends the daemons of this stack, the agent first, each waited for."""
    for component in reversed(COMPONENTS):
        pid = _running(stack, component)
        if pid is not None:
            _end(pid)
        stack.pid_file(component).unlink(missing_ok=True)


def _manager_config(stack: Stack) -> dict[str, Any]:
    preferred = "127.0.0.1:7470" if stack.home == DEFAULT_DIR else "127.0.0.1:0"
    return {"listen": preferred, "store": {"kind": "sqlite", "path": str(stack.home / "state" / "manager.db")}}


def _monitor_config(stack: Stack, manager: str) -> dict[str, Any]:
    preferred = "127.0.0.1:7471" if stack.home == DEFAULT_DIR else "127.0.0.1:0"
    folder = {"name": "networks", "path": str(stack.home / "networks")}
    return {"listen": preferred, "managers": [manager], "folders": [folder]}


def _agent_config(stack: Stack, manager: str, monitor: str) -> dict[str, Any]:
    return {
        "listen": f"unix:{stack.socket}",
        "state": str(stack.home / "state" / "agent"),
        "managers": [manager],
        "monitors": [monitor],
    }


def _default_network(stack: Stack) -> str:
    second = 128 if stack.home == DEFAULT_DIR else 129 + stack.digest % 100
    return f"""\
# The network of a pod that asks for none.
apiVersion: knitter.io/v1
kind: Network
metadata: {{name: default, namespace: admin}}
spec:
  type: bridge
  public: true
  subnets:
  - {{cidr: 10.{second}.0.0/16, gateway: 10.{second}.0.1}}
"""


def _await_default_network(stack: Stack, manager: str) -> None:
    """Until the manager's feed tells the network that the monitor applies from the folder. Raises SystemExit."""
    python, script = ROOT / "_output" / "venv" / "bin" / "python", ROOT / "deploy" / "await_network.py"
    # a process of its own: the caller may be in another network namespace than its other threads
    done = subprocess.run([str(python), str(script), manager, "admin", "default", str(START_SECONDS)], check=False)
    if done.returncode != 0:
        said = stack.log("knitter-monitor").read_text(encoding="utf-8", errors="replace")
        raise SystemExit(f"the default network is not applied; the monitor's log:\n{said[-4000:]}")


def _conflist() -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": "knitter",
        "plugins": [
            {
                "type": "knitter-cni",
                "defaultNetwork": "admin/default",
                "capabilities": {"io.kubernetes.cri.pod-annotations": True, "ips": True, "mac": True, "bandwidth": True},
            }
        ],
    }


def _install_plugin(stack: Stack) -> None:
    target = stack.home / "bin" / "knitter-cni"
    command = [str(ROOT / "_output" / "venv" / "bin" / "python"), str(ROOT / "deploy" / "install_plugin.py"), str(target)]
    command += ["--socket", str(stack.socket), "--state", str(stack.home / "state" / "agent")]
    subprocess.run(command, check=True)
    for folder in PLUGIN_DIRS:  # a runtime calls `loopback` from the same directory; delegates are found there too
        for plugin in folder.iterdir() if folder.is_dir() else ():
            link = target.parent / plugin.name
            if not link.exists() and not link.is_symlink():
                link.symlink_to(plugin)


def _ensure(stack: Stack, component: str, wanted: dict[str, Any]) -> str:
    """Runs the component if it does not, and returns the address it serves on; the address stays the same from start to start."""
    path = stack.config(component)
    if path.exists():
        wanted = json.loads(path.read_text(encoding="utf-8"))
    if _running(stack, component) is not None:
        return str(wanted["listen"])
    _write_json(path, wanted)
    try:
        address = start(stack, component)
    except _AddressTaken:
        wanted["listen"] = "127.0.0.1:0"
        _write_json(path, wanted)
        address = start(stack, component)
    if wanted["listen"] != address:
        wanted["listen"] = address
        _write_json(path, wanted)
    return address


class _AddressTaken(Exception):
    """Somebody else listens on the preferred port."""


def start(stack: Stack, component: str) -> str:
    """Starts one daemon with its configuration as it is; returns its address once it serves. Raises SystemExit with its log."""
    read, write = os.pipe()
    begin = stack.log(component).stat().st_size if stack.log(component).exists() else 0
    with stack.log(component).open("ab") as log:
        process = subprocess.Popen(
            [str(BIN / component), "--config", str(stack.config(component)), "--ready-fd", str(write)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(write,), start_new_session=True, cwd="/",
        )  # fmt: skip
    os.close(write)
    stack.pid_file(component).write_text(f"{process.pid}\n", encoding="ascii")
    ready, _, _ = select.select([read], [], [], START_SECONDS)
    with os.fdopen(read) as pipe:
        address = pipe.readline().strip() if ready else ""
    if address:
        return address
    process.kill()
    process.wait()
    stack.pid_file(component).unlink(missing_ok=True)
    with stack.log(component).open("rb") as log:
        log.seek(begin)
        said = log.read().decode(errors="replace")
    if "cannot listen on" in said and not json.loads(stack.config(component).read_text())["listen"].endswith(":0"):
        raise _AddressTaken
    raise SystemExit(f"{component} does not serve; its log:\n{said[-4000:]}")


def _running(stack: Stack, component: str) -> int | None:
    """The daemon's pid, if that process still is the daemon."""
    try:
        pid = int(stack.pid_file(component).read_text(encoding="ascii"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(stack.config(component)) in command else None


def _end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if not select.select([descriptor], [], [], STOP_SECONDS)[0]:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [], STOP_SECONDS)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("stack.py", description="A single-machine Knitter in the background.")
    parser.add_argument("word", choices=("up", "down"))
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, metavar="D", help=f"where it lives (default {DEFAULT_DIR})")
    parser.add_argument("--purge", action="store_true", help="down: remove the directory too")
    arguments = parser.parse_args(argv)
    stack = Stack(arguments.dir.resolve())
    if arguments.word == "up":
        for key, value in up(stack).items():
            print(f"{key}={value}")
        return 0
    down(stack)
    if arguments.purge:
        shutil.rmtree(stack.home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
