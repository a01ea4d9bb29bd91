"""What every daemon does alike: `--version`, `--check`, the log level at run time, a graceful end, health and reflection."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.daemons import Daemon, Daemons, manager_config
from harness.node import eventually
from harness.reflection import Reflected

from knitter_common.version import __version__

BIN = Path(sys.executable).parent
SERVICES = {"manager": "ManagerService", "monitor": "MonitorService", "agent": "AgentService"}
EACH = pytest.mark.parametrize("component", SERVICES)

Begin = Callable[[str], Daemon]


@pytest.fixture
def begin(daemons: Daemons, tmp_path: Path) -> Begin:
    """Starts a component, the manager first where it needs one."""

    def started(component: str) -> Daemon:
        manager = daemons.start("knitter-manager", manager_config(tmp_path))
        if component == "manager":
            return manager
        if component == "monitor":
            return daemons.start("knitter-monitor", {"listen": "127.0.0.1:0", "managers": [manager.address]})
        socket, state = f"unix:{tmp_path}/run/agent.sock", str(tmp_path / "state")
        return daemons.start("knitter-agent", {"listen": socket, "state": state, "managers": [manager.address]})

    return started


def lines(daemon: Daemon, event: str) -> list[dict[str, Any]]:
    """What it logged under this name."""
    told = (json.loads(line) for line in daemon.log().splitlines() if line.startswith("{"))
    return [line for line in told if line["event"] == event]


@EACH
def test_the_version_is_told_without_a_configuration(component: str) -> None:
    done = subprocess.run([BIN / f"knitter-{component}", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"knitter-{component} {__version__}\n"


@EACH
def test_a_configuration_is_checked_without_starting_anything(component: str, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    command = [BIN / f"knitter-{component}", "--config", file, "--check"]
    file.write_text('{"lisen": "unix:/x"}', encoding="utf-8")
    bad = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stderr) == (2, f"knitter-{component}: {file}: unknown key 'lisen'; did you mean 'listen'?\n")
    file.write_text("{}", encoding="utf-8")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@EACH
def test_the_log_level_changes_while_it_runs(begin: Begin, component: str) -> None:
    daemon = begin(component)
    told: list[str] = []

    def after(number: int, level: str) -> None:
        daemon.signal(number)
        told.append(level)
        eventually(lambda: [line["now"] for line in lines(daemon, "log level")] == told, daemon.log)

    after(signal.SIGUSR1, "debug")
    after(signal.SIGUSR1, "info")
    config = json.loads(daemon.config.read_text())
    daemon.config.write_text(json.dumps({**config, "log": {"level": "warning"}}))
    after(signal.SIGHUP, "warning")
    daemon.config.write_text("{")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: lines(daemon, "the configuration was not read again"), daemon.log)
    assert daemon.running


@EACH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_gracefully(begin: Begin, component: str, number: signal.Signals) -> None:
    daemon = begin(component)
    daemon.signal(number)
    assert daemon.wait() == 0
    assert not daemon.address.startswith("unix:") or not Path(daemon.address.removeprefix("unix:")).exists()


@EACH
def test_it_is_healthy_and_describes_itself(begin: Begin, component: str) -> None:
    service = f"knitter.v1.{SERVICES[component]}"
    with Reflected(begin(component).address) as server:
        assert {service, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} == set(server.services())
        assert f"service {SERVICES[component]} {{" in server.describe(service)
        for name in ("", service):
            assert server.call("grpc.health.v1.Health/Check", {"service": name}) == {"status": "SERVING"}


def test_a_daemon_that_cannot_listen_ends_and_says_so(begin: Begin, tmp_path: Path) -> None:
    first = begin("manager")
    config = manager_config(tmp_path / "other", listen=first.address)
    (tmp_path / "other").mkdir()
    file = tmp_path / "second.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    ready, tell = os.pipe()
    try:
        command = [BIN / "knitter-manager", "--config", file, "--ready-fd", str(tell)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=(tell,), timeout=30)
        os.close(tell)
        assert select.select([ready], [], [], 0)[0]
        assert os.read(ready, 10) == b""
    finally:
        os.close(ready)
    assert done.returncode == 1
    assert '"reason": "LISTEN_FAILED"' in done.stderr
    assert "is another one running?" in done.stderr
