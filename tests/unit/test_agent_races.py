"""knitter_agent.attachment when things happen at once, or a caller goes at a bad moment: everything or nothing."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness.agent import Parts, call_of, parts

from knitter_agent.record import Key, State
from knitter_common import failpoints
from knitter_common.errors import Exists, KnitterError

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


async def test_adds_and_dels_of_one_attachment_at_once_end_whole_or_with_nothing(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        for seed in range(30):
            tasks: list[asyncio.Task[object]] = []
            for number in range(6):
                work = agent.delete() if (seed >> (number % 5)) & 1 else agent.add(**TWO)
                tasks.append(asyncio.create_task(work))  # type: ignore[arg-type]
                if seed % 3:
                    await asyncio.sleep(0)
                if seed % 7 == number:
                    tasks[number // 2].cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            unexpected = [one for one in outcomes if isinstance(one, Exception) and not isinstance(one, KnitterError)]
            assert not unexpected
            await agent.settle()
            if KEY in agent.journal.records:
                assert agent.journal.records[KEY].state is State.ATTACHED
                assert agent.kernel.interfaces("/ns/a") == ["eth0", "net1"]
                assert len(agent.manager.sets.held) == 1
                await agent.delete()
                await agent.settle()
            _nothing_left(agent)
