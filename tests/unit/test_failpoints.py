"""knitter_common.failpoints: the grammar, and what each kind does."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import steps

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
    assert time.monotonic() - begin >= 0.06


def test_kill_and_the_variable() -> None:
    code = "from knitter_common import failpoints; failpoints.at('a'); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], env={failpoints.VARIABLE: "a=kill"}, capture_output=True, check=False)
    assert done.returncode == -9
    assert b"alive" not in done.stdout


@pytest.mark.parametrize(
    ("code", "page", "tried"),
    [
        ("knitter_agent", "agent.md", steps.ADD + steps.ADD_DELEGATED + steps.DEL + steps.RECOVERY + steps.REBOOT + steps.FOLLOW),
        ("knitter_manager", "manager.md", steps.COMMIT + steps.RESTORE),
    ],
)
def test_every_step_is_told_and_tried(code: str, page: str, tried: tuple[steps.Step, ...]) -> None:
    root = Path(__file__).parent.parent.parent
    text = "".join(path.read_text() for path in (root / code).rglob("*.py"))
    found = re.findall(r"failpoints\.(?:at|reach)\(([^)]*)\)", text)
    names = {one.strip('"') for one in found}
    assert all(re.fullmatch(r"[a-z.-]+", name) for name in names), "names are literals, so that they can be found"
    assert names == {step.name for step in tried}
    told = (root / "docs" / page).read_text()
    assert not [name for name in names if f"`{name}`" not in told]


@pytest.mark.parametrize(
    "text",
    ["a", "a=", "=kill", "a=die", "a=delay", "a=delay(x)", "A=kill", "a=*kill", "a=kill b=kill", "a=1+2+kill"],
)
def test_what_the_grammar_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="KNITTER_FAILPOINTS"):
        failpoints.arm(text)
