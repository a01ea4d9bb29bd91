"""knitter_agent.attachment.follow over fakes: records and kernel follow what a network is now, and nothing else is touched."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness.agent import Parts, parts

from knitter_agent.attachment import Follower
from knitter_agent.record import Key, Record, State
from knitter_common import failpoints
from knitter_common.model import Network

KEY = Key("knitter", "c1", "eth0")
ID = "net000000001"  # of the default network, the first that Parts' manager meets


def network(mtu: int, revision: int = 100) -> Network:
    """As a monitor pushes it."""
    return Network("admin", "default", id=ID, mtu=mtu, revision=revision)


def mtus(agent: Parts) -> list[Any]:
    """What the journal says of the network in each attachment."""
    return [record.wirings[0].facts.get("mtu") for record in agent.journal.records.values()]


class Pushes:
    """What a monitor has pushed."""

    def __init__(self) -> None:
        self.known: dict[str, Network] = {}

    def follower(self, agent: Parts) -> Follower:
        """Over these."""
        return Follower(agent.tools, self.known.get)


async def until(agent: Parts, mtu: int) -> None:
    """Until the journal says so of all attachments."""
    async with asyncio.timeout(5):
        while set(mtus(agent)) != {mtu}:  # noqa: ASYNC110 - the follower's task changes it
            await asyncio.sleep(0.001)


async def test_all_attachments_of_a_network_follow_it_once(tmp_path: Path) -> None:
    pushes = Pushes()
    async with parts(tmp_path) as agent:
        agent.kernel.add_namespace("/ns/b")
        await agent.add()
        await agent.add("c2", "/ns/b")
        follower = pushes.follower(agent)
        assert await follower.follow(ID) == 0  # not pushed
        pushes.known[ID] = network(1300)
        assert await follower.follow(ID) == 2
        assert agent.kernel.settled == [[(None, 1300), (None, 1300)]]
        assert await follower.follow(ID) == 0
        await agent.restart()
        assert mtus(agent) == [1300, 1300]


async def test_other_networks_are_left_alone(tmp_path: Path) -> None:
    pushes = Pushes()
    async with parts(tmp_path) as agent:
        await agent.add(networks="t1/control@net1")
        pushes.known[ID] = network(1300)
        assert await pushes.follower(agent).follow(ID) == 1
        first, second = agent.journal.records[KEY].wirings
        assert (first.facts["mtu"], second.facts.get("mtu")) == (1300, None)


async def test_what_the_kernel_refuses_is_tried_again(tmp_path: Path) -> None:
    pushes = Pushes()
    async with parts(tmp_path) as agent:
        await agent.add()
        agent.kernel.unsettling = 2
        follower = pushes.follower(agent)
        running = asyncio.create_task(follower.run())
        pushes.known[ID] = network(1300)
        follower.pushed(pushes.known[ID])
        await until(agent, 1300)
        assert agent.kernel.settled == [[(None, 1300)]]
        running.cancel()


@pytest.mark.parametrize("step", ["follow.before-settle", "follow.settled", "journal.before-commit"])
@pytest.mark.parametrize("kind", ["error", "panic"])
async def test_so_is_what_breaks_off_anywhere(tmp_path: Path, step: str, kind: str) -> None:
    pushes = Pushes()
    async with parts(tmp_path) as agent:
        await agent.add()
        follower = pushes.follower(agent)
        running = asyncio.create_task(follower.run())
        pushes.known[ID] = network(1300)
        failpoints.arm(f"{step}=1*{kind}")
        follower.pushed(pushes.known[ID])
        await until(agent, 1300)
        failpoints.arm("")
        assert set(map(tuple, agent.kernel.settled)) == {((None, 1300),)}
        running.cancel()


async def test_a_plan_that_is_older_than_the_network_follows_it_and_a_newer_one_does_not(tmp_path: Path) -> None:
    pushes = Pushes()
    async with parts(tmp_path) as agent:
        await agent.add()  # planned with an MTU of 1400, at revision 1
        record = agent.journal.records[KEY]
        follower = pushes.follower(agent)
        running = asyncio.create_task(follower.run())
        pushes.known[ID] = network(1300, revision=1)
        follower.attached(record)
        await asyncio.sleep(0.02)
        assert mtus(agent) == [None]
        pushes.known[ID] = network(1300, revision=2)
        follower.attached(record)
        await until(agent, 1300)
        running.cancel()


async def test_one_that_is_being_detached_stays_so(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        attached = agent.journal.records[KEY]
        detaching = replace(attached, state=State.DETACHING)
        await asyncio.gather(agent.journal.put(detaching), agent.journal.rewire(replace(attached, wirings=())))
        assert agent.journal.records[KEY] == detaching
        await agent.journal.put(attached)
        other: Record = replace(attached, time=attached.time + 1, wirings=())  # one that took its place
        await agent.journal.rewire(other)
        assert agent.journal.records[KEY] == attached
        await agent.restart()
        assert agent.journal.records[KEY].wirings == attached.wirings
