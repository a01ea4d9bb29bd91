"""Starts store_churn.py as a process of its own, reads what it acknowledged, and ends it by its pid."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from knitter_manager.store import StoreSettings

_ROOT = Path(__file__).resolve().parent.parent.parent


class Churn:
    """A writer in another process. `acknowledged` maps each number it told to the commit's revision."""

    def __init__(self, settings: StoreSettings, tag: str, failpoints: str = "") -> None:
        fields = {key: value for key, value in asdict(settings).items() if key != "retention"}
        script = str(Path(__file__).with_name("store_churn.py"))
        self.tag = tag
        self.acknowledged: dict[int, int] = {}
        self.error = ""
        self.process = subprocess.Popen(
            [sys.executable, script, json.dumps(fields), tag],
            stdout=subprocess.PIPE, cwd=_ROOT, text=True,
            env={**os.environ, "PYTHONPATH": str(_ROOT), "KNITTER_FAILPOINTS": failpoints},
        )  # fmt: skip

    def read_until(self, count: int) -> None:
        """Reads until so many commits are acknowledged, or it told an error or ended. Blocks."""
        assert self.process.stdout is not None
        while len(self.acknowledged) < count and not self.error:
            line = self.process.stdout.readline()
            if not line:
                return
            self._parse(line)

    def wait_writing(self) -> None:
        """Until it is the writer. Blocks."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "writing\n"

    def kill(self) -> None:
        """SIGKILL, and what it told before."""
        self.process.kill()
        self.finish()

    def finish(self) -> None:
        """Reads to its end."""
        assert self.process.stdout is not None
        for line in self.process.stdout.read().splitlines(keepends=True):
            self._parse(line)
        self.process.wait()

    def _parse(self, line: str) -> None:
        if not line.endswith("\n") or line == "writing\n":
            return
        if line.startswith("!"):
            self.error = line[2:].strip()
            return
        number, revision = line.split()
        self.acknowledged[int(number)] = int(revision)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process.wait()
