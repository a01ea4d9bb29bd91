"""Runs knitterctl as a process, as a person or a script does.

result = await ctl("get", "networks", manager="127.0.0.1:7470")
result.code, result.out, result.err, result.json()
"""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KNITTERCTL = str(Path(sys.executable).with_name("knitterctl"))


@dataclass(frozen=True)
class Result:
    """How it ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its standard output, parsed."""
        return json.loads(self.out)

    def rows(self) -> list[list[str]]:
        """The words of each line."""
        return [line.split() for line in self.out.splitlines()]


def environment(manager: str, **more: str) -> dict[str, str]:
    """The environment of one run; `manager` is $KNITTER_MANAGER, "" leaves it out."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KNITTER_")}
    return kept | {"COLUMNS": "200"} | ({"KNITTER_MANAGER": manager} if manager else {}) | more


async def ctl(*arguments: str, manager: str = "", stdin: str = "", within: float = 30.0, **env: str) -> Result:
    """Runs it to its end. `env` is added to the environment."""
    process = await asyncio.create_subprocess_exec(
        KNITTERCTL, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=environment(manager, **env),
    )  # fmt: skip
    try:
        async with asyncio.timeout(within):
            out, err = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


class Operator:
    """Who runs knitterctl against one manager."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Its output; the command must succeed."""
        result = await self.tries(*arguments, stdin=stdin)
        assert result.code == 0, result.err
        return result.out

    async def tries(self, *arguments: str, stdin: str = "") -> Result:
        """However it ends."""
        return await ctl(*arguments, manager=self.address, stdin=stdin)
