"""knitter_common.failpoints: the grammar, and what each kind does."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from knitter_common import failpoints
from knitter_common.errors import Internal, Invalid
from knitter_common.failpoints import Panic


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


async def test_nothing_happens_unarmed() -> None:
    failpoints.at("a.b")
    await failpoints.reach("a.b")


async def test_error_and_panic() -> None:
    failpoints.arm("a.b=error; c-d=panic")
    with pytest.raises(Internal, match=r"a\.b"):
        failpoints.at("a.b")
    with pytest.raises(Internal):
        await failpoints.reach("a.b")
    with pytest.raises(Panic):
        failpoints.at("c-d")
    failpoints.at("other")


def test_skipped_and_counted() -> None:
    failpoints.arm("a=2+1*error")
    failpoints.at("a")
    failpoints.at("a")
    with pytest.raises(Internal):
        failpoints.at("a")
    failpoints.at("a")


async def test_delay() -> None:
    failpoints.arm("a=delay(30)")
    begin = time.monotonic()
    failpoints.at("a")
    await asyncio.gather(failpoints.reach("a"), failpoints.reach("a"))
    assert 0.06 <= time.monotonic() - begin < 1


def test_kill_and_the_variable() -> None:
    code = "from knitter_common import failpoints; failpoints.at('a'); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], env={failpoints.VARIABLE: "a=kill"}, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-9, b"")


def test_every_step_of_the_agent_is_told_and_tried() -> None:
    root = Path(__file__).parent.parent.parent
    code = "".join(path.read_text() for path in (root / "knitter_agent").rglob("*.py"))
    steps = set(re.findall(r"failpoints\.(?:at|reach)\(\"([^\"]+)\"\)", code))
    told = (root / "docs" / "agent.md").read_text()
    tried = "".join(path.read_text() for path in (root / "tests").rglob("test_*.py"))
    assert len(steps) > 15
    assert not [step for step in steps if f"`{step}`" not in told]
    assert not [step for step in steps if f'"{step}' not in tried]


@pytest.mark.parametrize(
    "text",
    ["a", "a=", "=kill", "a=die", "a=delay", "a=delay(x)", "A=kill", "a=*kill", "a=kill b=kill", "a=1+2+kill"],
)
def test_what_the_grammar_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="KNITTER_FAILPOINTS"):
        failpoints.arm(text)
