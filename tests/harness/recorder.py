"""What a runtime really calls: a plugin in a bin_dir is replaced by a script that keeps every call and hands it on.

calls = Recorder(bin_dir)                # from now on
calls.of("DEL")[0].environment["CNI_NETNS"]
"""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = """#!/bin/sh
# Keeps environment, standard input, output and exit code of each call; the real plugin answers.
call={kept}/$(date +%s%N)-$$
cat > "$call.stdin"
env > "$call.environment"
{real} < "$call.stdin" > "$call.stdout"
code=$?
echo $code > "$call.code"
cat "$call.stdout"
exit $code
"""


@dataclass(frozen=True)
class RecordedCall:
    """One call. `stdin` and `stdout` are parsed; the latter is None where nothing was printed."""

    verb: str
    environment: dict[str, str]
    stdin: dict[str, Any]
    stdout: dict[str, Any] | None
    code: int


class Recorder:
    """Records the calls of one plugin from the moment it is made."""

    def __init__(self, bin_dir: Path, plugin: str = "knitter-cni") -> None:
        self._kept = bin_dir / f".{plugin}.calls"
        self._kept.mkdir()
        real = bin_dir / f".{plugin}.real"
        (bin_dir / plugin).rename(real)
        script = bin_dir / f".{plugin}.script"
        script.write_text(SCRIPT.format(kept=shlex.quote(str(self._kept)), real=shlex.quote(str(real))))
        script.chmod(0o755)
        script.rename(bin_dir / plugin)

    def of(self, verb: str) -> list[RecordedCall]:
        """The calls of a verb that have ended, in the order in which they began."""
        found = [self._read(ended) for ended in sorted(self._kept.glob("*.code"))]
        return [call for call in found if call.verb == verb]

    def _read(self, ended: Path) -> RecordedCall:
        lines = ended.with_suffix(".environment").read_text().splitlines()
        environment = dict(line.partition("=")[::2] for line in lines if line.startswith("CNI_"))
        stdout = ended.with_suffix(".stdout").read_text()
        return RecordedCall(
            environment["CNI_COMMAND"],
            environment,
            json.loads(ended.with_suffix(".stdin").read_text()),
            json.loads(stdout) if stdout.strip() else None,
            int(ended.read_text()),
        )
