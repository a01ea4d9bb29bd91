"""Named places in the code where a test can make something fail; nothing happens at them unless KNITTER_FAILPOINTS is set.

    KNITTER_FAILPOINTS="attach.after-intent=kill;detach.before-release=2*error;manager.commit=delay(200)"

Grammar: rules separated by ";", each `step=[S+][N*]kind`. `S+` passes by the first S times, `N*` then acts N times only. The kinds:

    error       raises Internal(INTERNAL), as a refusing disk or kernel would make the step do
    panic       raises Panic, which no code of ours expects
    delay(MS)   waits that many milliseconds
    kill        ends the process with SIGKILL

`at` is for threads and plain functions, `reach` for coroutines. Unset, each costs one look-up of a name and a comparison.
"""

import asyncio
import os
import re
import signal
import time
from dataclasses import dataclass

import structlog

from knitter_common.errors import Internal, Invalid

VARIABLE = "KNITTER_FAILPOINTS"

log = structlog.get_logger()

_RULE = re.compile(
    r"\s*(?P<step>[a-z0-9.-]+)=(?:(?P<skip>\d+)\+)?(?:(?P<times>\d+)\*)?(?P<kind>error|panic|kill|delay\((?P<ms>\d+)\))\s*\Z"
)


class Panic(Exception):
    """A failure that no code expects, as a defect of ours would raise it; no KnitterError."""


@dataclass(slots=True)
class _Rule:
    kind: str
    seconds: float
    left: int | None
    skip: int


_rules: dict[str, _Rule] = {}


def arm(text: str) -> None:
    """Replaces all rules; "" disarms. Raises Invalid(FIELD_INVALID) for what the grammar does not know."""
    rules = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        match = _RULE.match(part)
        if match is None:
            raise Invalid("FIELD_INVALID", f"{VARIABLE}: {part!r} is not step=[S+][N*]error|panic|kill|delay(MS)", field=VARIABLE)
        seconds = int(match["ms"]) / 1000 if match["ms"] else 0.0
        left = int(match["times"]) if match["times"] else None
        rules[match["step"]] = _Rule(match["kind"].split("(")[0], seconds, left, int(match["skip"] or 0))
    _rules.clear()
    _rules.update(rules)


def at(step: str) -> None:
    """The place `step` is reached, in a thread or a plain function."""
    if _rules and (seconds := _act(step)):
        time.sleep(seconds)


async def reach(step: str) -> None:
    """The place `step` is reached, in a coroutine."""
    if _rules and (seconds := _act(step)):
        await asyncio.sleep(seconds)


def _act(step: str) -> float:
    rule = _rules.get(step)
    if rule is None or rule.left == 0:
        return 0.0
    if rule.skip:
        rule.skip -= 1
        return 0.0
    if rule.left is not None:
        rule.left -= 1
    log.warning("fail-point", step=step, kind=rule.kind)
    match rule.kind:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "error":
            raise Internal("INTERNAL", f"fail-point {step}", step=step)
        case "panic":
            raise Panic(step)
    return rule.seconds


arm(os.environ.get(VARIABLE, ""))
