"""knitter_agent.attachment when things happen at once, or a caller goes at a bad moment: everything or nothing."""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from harness.agent import FakeNamespace, Parts, call_of, parts

from knitter_agent.netlink import Namespace
from knitter_agent.record import Key, State
from knitter_common import failpoints
from knitter_common.errors import Exists, KnitterError
from knitter_common.failpoints import Panic

KEY = Key("knitter", "c1", "eth0")
TWO = {"networks": "t1/control@net1"}


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def _nothing_left(agent: Parts) -> None:
    assert not agent.kernel.made
    assert not agent.journal.records
    assert not agent.manager.sets.held
    assert agent.kernel.opened == 0


async def _until(reached: "asyncio.Task[object]", agent: Parts, state: State) -> None:
    """Until the journal shows the attachment in that state, or the task has ended."""
    async with asyncio.timeout(5):
        while not reached.done() and (  # noqa: ASYNC110 - the journal's memory has no event to wait for
            KEY not in agent.journal.records or agent.journal.records[KEY].state is not state
        ):
            await asyncio.sleep(0)


async def test_the_second_of_two_adds_is_refused_although_the_first_is_not_answered_yet(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        calls = [call_of("ADD", "c1", "/ns/a", "eth0", TWO) for _ in range(2)]
        first, second = (asyncio.create_task(agent.attachments.add(call)) for call in calls)
        assert (await first)["ips"]
        with pytest.raises(Exists):
            await second
        agent.attachments.answered(calls[0])
        with pytest.raises(Exists):
            await agent.add(**TWO)
        assert agent.kernel.interfaces("/ns/a") == ["eth0", "net1"]
        assert agent.journal.records[KEY].state is State.ATTACHED


async def test_an_add_undoes_what_is_marked_although_nobody_works_on_it(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add(**TWO)
        await agent.journal.put(replace(agent.journal.records[KEY], state=State.DETACHING))
        await agent.add()
        assert agent.kernel.detached == [["kv-c1/knitter/eth0/eth0", "kv-c1/knitter/eth0/net1"]]
        await agent.settle()
        assert agent.journal.records[KEY].state is State.ATTACHED
        assert agent.kernel.interfaces("/ns/a") == ["eth0"]


@pytest.mark.parametrize("step", ["del.before-mark", "journal.before-commit", "del.after-mark"])
async def test_a_del_whose_caller_goes_is_carried_out_all_the_same(tmp_path: Path, step: str) -> None:
    async with parts(tmp_path) as agent:
        await agent.add(**TWO)
        failpoints.arm(f"{step}=1*delay(50)")
        deleting = asyncio.create_task(agent.delete())
        await asyncio.sleep(0.02)
        deleting.cancel()
        await asyncio.wait([deleting])
        assert deleting.cancelled()
        await _gone(agent)
        _nothing_left(agent)


async def _gone(agent: Parts) -> None:
    async with asyncio.timeout(5):
        while agent.journal.records or agent.attachments.undoer.pending:  # noqa: ASYNC110 - it begins when the journal answers
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("passed", [0, 1])  # the intent, and done
async def test_a_caller_that_goes_while_the_journal_writes_leaves_nothing(tmp_path: Path, passed: int) -> None:
    async with parts(tmp_path) as agent:
        failpoints.arm(f"journal.before-commit={passed}+1*delay(100)")
        adding = asyncio.create_task(agent.add(**TWO))
        await asyncio.sleep(0.05)
        adding.cancel()
        await asyncio.wait([adding])
        assert adding.cancelled()
        await agent.settle()
        await asyncio.sleep(0.1)  # what the journal was writing is written by now
        await agent.settle()
        _nothing_left(agent)


async def test_a_foreign_interface_stays_although_the_caller_goes_before_it_is_found(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        agent.kernel.made[(agent.kernel.namespaces["/ns/a"], "net1")] = "kv-c1/knitter/eth0/net1"  # the very name ours would have
        agent.kernel.failing["net1"] = Exists("CNI_INTERFACE_EXISTS", "net1 exists")
        agent.kernel.slow = 0.05
        adding = asyncio.create_task(agent.add(**TWO))
        await _until(adding, agent, State.ATTACHING)
        await asyncio.sleep(0.01)
        adding.cancel()
        await asyncio.wait([adding])
        await agent.settle()
        assert agent.kernel.interfaces("/ns/a") == ["net1"]
        assert not agent.journal.records


async def test_what_belongs_to_others_is_not_detached_in_the_middle_of_its_add(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        failpoints.arm("add.after-intent=1*delay(50)")
        adding = asyncio.create_task(agent.add(**TWO))
        await _until(adding, agent, State.ATTACHING)
        seen = agent.journal.records[KEY]
        ended = await agent.attachments.end(seen)
        assert adding.done()  # it is waited for, and then it goes as a whole
        assert ended
        await agent.settle()
        _nothing_left(agent)


async def test_a_namespace_is_let_go_although_the_caller_goes_while_a_failure_is_told(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:

        def slow(path: str) -> Namespace:
            time.sleep(0.05)
            return cast(Namespace, FakeNamespace(agent.kernel, path))

        await agent.restart(open_namespace=slow)
        failpoints.arm("add.before-allocate=1*panic")
        adding = asyncio.create_task(agent.add())
        await asyncio.sleep(0.02)
        adding.cancel()
        await asyncio.wait([adding])
        await agent.tools.worker.run(lambda _: None)  # what was handed over before has been done
        await asyncio.sleep(0)
        _nothing_left(agent)


STEPS = (
    "add.before-allocate", "add.after-allocate", "add.before-intent", "add.after-intent", "add.wire", "add.wired",
    "add.before-done", "add.after-done", "del.before-mark", "del.after-mark", "undo.before-unwire", "undo.unwire",
    "undo.after-unwire", "undo.before-release", "undo.before-drop", "journal.before-commit",
)  # fmt: skip


def _rules(chance: random.Random) -> str:
    """Some trouble at some steps. The journal's thread knows refusals alone."""
    rules = []
    for step in chance.sample(STEPS, chance.randint(0, 3)):
        kinds = ("error", "delay(5)", "delay(20)") if step.startswith("journal") else ("error", "panic", "delay(5)", "delay(20)")
        rules.append(f"{step}={chance.randint(0, 3)}+{chance.randint(1, 2)}*{chance.choice(kinds)}")
    return ";".join(rules)


async def _one_call(agent: Parts, chance: random.Random) -> None:
    """ADD, DEL, GC or the end of a dead sandbox, of one of two containers in one of two namespaces."""
    container, netns, draw = chance.choice(("c1", "c2")), chance.choice(("/ns/a", "/ns/b")), chance.random()
    if draw < 0.5:
        await agent.add(container, netns, **chance.choice(({}, TWO)))
    elif draw < 0.8:
        await agent.delete(container, netns)
    elif draw < 0.9:
        await agent.collect((container, "eth0"))
    elif (seen := agent.journal.records.get(Key("knitter", container, "eth0"))) is not None:
        await agent.attachments.end(seen)


async def _settled(agent: Parts) -> None:
    """Until nothing is under way any more."""
    async with asyncio.timeout(10):
        while agent.attachments.undoer.pending or agent.tools.background.busy or agent.tools.locks.held:  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def _consistent(agent: Parts) -> None:
    """Journal, kernel and manager say the same, and nothing is half."""
    records = agent.journal.records
    assert {record.state for record in records.values()} <= {State.ATTACHED}
    wired = {str(wiring.facts["host"]) for record in records.values() for wiring in record.wirings}
    assert set(agent.kernel.made.values()) == wired
    assert set(agent.manager.sets.held) == {f"sandbox/node1/{key.container_id}/knitter/eth0" for key in records}
    assert agent.kernel.opened == 0


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_comes_at_once_fails_and_is_called_off_ends_whole_or_with_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with parts(tmp_path, patience=0.3) as agent:
        agent.kernel.add_namespace("/ns/b")
        for _ in range(3):
            failpoints.arm(_rules(chance))
            agent.kernel.slow = chance.choice((0.0, 0.0, 0.005))
            calls: list[asyncio.Task[None]] = []
            for _ in range(chance.randint(2, 8)):
                calls.append(asyncio.create_task(_one_call(agent, chance)))
                await asyncio.sleep(chance.choice((0, 0, 0.001, 0.004, 0.01)))
                if chance.random() < 0.4:
                    chance.choice(calls).cancel()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert not [one for one in outcomes if isinstance(one, Exception) and not isinstance(one, KnitterError | Panic)]
            failpoints.arm("")
            await _settled(agent)
            _consistent(agent)
            for container in ("c1", "c2"):
                await agent.delete(container)
            await _settled(agent)
            _nothing_left(agent)
