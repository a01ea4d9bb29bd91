"""For benchmarks: managers in processes of their own, and what the plugin is run by."""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent


def interpreter_of(plugin: Path) -> str:
    """The interpreter that an installed plugin's first line names."""
    return plugin.read_bytes().split(b"\n", 1)[0].removeprefix(b"#!").split()[0].decode()


class ManagerProcess:
    """A manager that serves when this is made: `address`, and `seconds` that its start took. `home` gets its configuration, and the
    SQLite file m.db unless `store` says something else."""

    def __init__(self, home: Path, store: Mapping[str, Any] | None = None) -> None:
        config = home / "manager.json"
        settings = {"listen": "127.0.0.1:0", "store": store or {"kind": "sqlite", "path": str(home / "m.db")}}
        config.write_text(json.dumps(settings), encoding="utf-8")
        read, write = os.pipe()
        command = [str(ROOT / "_output/bin/knitter-manager"), "--config", str(config), "--ready-fd", str(write)]
        begin = time.perf_counter()
        with (home / "manager.log").open("wb") as log:
            self._process = subprocess.Popen(command, pass_fds=[write], stderr=log)
        os.close(write)
        with os.fdopen(read) as ready:
            self.address = ready.readline().strip()
        self.seconds = time.perf_counter() - begin
        if not self.address:
            self._process.wait()
            raise RuntimeError(f"the manager did not start: {(home / 'manager.log').read_text(encoding='utf-8')[-2000:]}")

    def resident(self) -> int:
        """Bytes of memory that it has now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()
