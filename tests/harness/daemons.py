"""Starts Knitter's daemons as real processes, waits until they serve, and ends them by their own pid.

    with start("knitter-manager", {"listen": "127.0.0.1:0", …}, tmp_path) as manager:
        manager.address   # what it told through --ready-fd
        manager.terminate(); manager.kill(); manager.log()

`start` blocks; where the daemon needs something of the test's own event loop to come up, `await start_soon(…)`.
The fixture `daemons` (tests/conftest.py) starts several and ends what a test left running.
"""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class NotStarted(Exception):
    """The daemon ended, or did not serve in time; the message holds the end of its log."""


class Daemon:
    """A running daemon. `address` is what it serves on, `config` its configuration file."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", config: Path, log_file: Path) -> None:
        self.name, self.process, self.config, self.log_file = name, process, config, log_file
        self.address = ""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self.process.poll() is None

    def log(self) -> str:
        """All it has written to its standard output and error so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int) -> None:
        """Sends it a signal (SIGSTOP, SIGHUP …)."""
        self.process.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        """Until it ends; returns the exit code, negative for a signal."""
        return self.process.wait(timeout)

    def terminate(self, timeout: float = 20.0) -> int:
        """SIGTERM, and waits for its end. Returns the exit code, 0 for a graceful end."""
        if self.running:
            self.process.terminate()
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL, and waits for its end."""
        if self.running:
            self.process.kill()
        self.wait()

    def close(self) -> None:
        """Ends it whatever state it is in: gracefully, and by SIGKILL after 10 s."""
        if self.running:
            self.process.send_signal(signal.SIGCONT)
        try:
            self.terminate(10.0)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def start(
    component: str,
    config: Mapping[str, Any],
    tmp_path: Path,
    *,
    name: str = "",
    netns: str = "",
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> Daemon:
    """Starts `component` ("knitter-manager" …) with this configuration and waits until it serves.

    `name` (default: the component's) names its files in `tmp_path`: <name>.json and <name>.log, appended to when it is started
    again. `netns` is a named network namespace to run in, `env` is added to the environment. Raises NotStarted.
    """
    name = name or component
    config_file, log_file = tmp_path / f"{name}.json", tmp_path / f"{name}.log"
    config_file.write_text(json.dumps(config, indent=2), encoding="utf-8")
    ready, tell = os.pipe()
    command = [*(["ip", "netns", "exec", netns] if netns else []), *_executable(component)]
    command += ["--config", str(config_file), "--ready-fd", str(tell)]
    try:
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(tell,), env={**os.environ, **(env or {})}
            )
    finally:
        os.close(tell)
    daemon = Daemon(name, process, config_file, log_file)
    try:
        daemon.address = _told(ready, timeout)
    finally:
        os.close(ready)
        if not daemon.address:
            daemon.kill()
    if not daemon.address:
        raise NotStarted(f"{name} does not serve (exit code {process.returncode}):\n{daemon.log()[-4000:]}")
    return daemon


async def start_soon(component: str, config: Mapping[str, Any], tmp_path: Path, **more: Any) -> Daemon:
    """`start` in a thread, so that the event loop of the test goes on."""
    return await asyncio.to_thread(start, component, config, tmp_path, **more)


def manager_config(tmp_path: Path, **more: Any) -> dict[str, Any]:
    """A manager on a free port, with its store in `tmp_path`."""
    return {"listen": "127.0.0.1:0", "store": {"kind": "sqlite", "path": str(tmp_path / "manager.db")}, **more}


class Daemons:
    """Several daemons of one test; what still runs at the end is ended, the newest first."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self._started: list[Daemon] = []

    def start(self, component: str, config: Mapping[str, Any], **more: Any) -> Daemon:
        """As `start`, with files in the test's folder."""
        daemon = start(component, config, self.tmp_path, **more)
        self._started.append(daemon)
        return daemon

    async def start_soon(self, component: str, config: Mapping[str, Any], **more: Any) -> Daemon:
        """As `start_soon`, with files in the test's folder."""
        daemon = await start_soon(component, config, self.tmp_path, **more)
        self._started.append(daemon)
        return daemon

    def close(self) -> None:
        """Ends all of them."""
        while self._started:
            self._started.pop().close()


def _executable(component: str) -> list[str]:
    script = Path(sys.executable).with_name(component)
    if script.exists():
        return [str(script)]
    module = component.replace("-", "_")
    return [sys.executable, "-c", f"import sys; from {module}.main import main; sys.exit(main())"]


def _told(ready: int, timeout: float) -> str:
    """The line the daemon wrote; "" when it ended or the time is over."""
    data, end = b"", time.monotonic() + timeout
    while not data.endswith(b"\n"):
        readable, _, _ = select.select([ready], [], [], max(end - time.monotonic(), 0))
        chunk = os.read(ready, 4096) if readable else b""
        if not chunk:
            return ""
        data += chunk
    return data.decode().strip()
