"""Managers and monitors are killed while sets come and go and files change.

In the end every node knows what is true, and no node was ever told to let go of a set that nobody released.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from harness.daemons import Daemon, Daemons
from harness.monitor import key_of
from harness.monitor_stack import Stack, declare, replace_file

from knitter.v1 import types_pb2 as types
from knitter_common.errors import Unavailable

T = TypeVar("T")

NODES = ("n1", "n2", "n3")
SECONDS = 6.0


@pytest.fixture
async def stack(daemons: Daemons, tmp_path: Path) -> AsyncIterator[Stack]:
    made = Stack(daemons, tmp_path, monitors=2)
    yield made
    await made.close()


class Churn:
    """Allocates and releases on all nodes; an operation is repeated until a manager has answered it."""

    def __init__(self, stack: Stack, dice: random.Random) -> None:
        self.stack, self.dice = stack, dice
        self.held: dict[str, types.PortSet] = {}
        self.released: set[str] = set()
        self.made = 0

    async def step(self) -> None:
        """One operation."""
        if self.held and self.dice.random() < 0.4:
            key = self.dice.choice(sorted(self.held))
            self.released.add(key)
            given_up = self.held.pop(key)
            await _answered(lambda: self.stack.release(given_up))
            return
        self.made += 1
        node, name, network = self.dice.choice(NODES), f"c{self.made}", self.dice.choice(("blue", "red"))
        made = await _answered(lambda: self.stack.allocate(node, name, network))
        self.held[key_of(types.Change(port_set=made))] = made


async def _answered(operation: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await operation()
        except Unavailable:
            await asyncio.sleep(0.05)


async def _kill(daemon: Daemon, start: Callable[[], Awaitable[Daemon]]) -> Daemon:
    await asyncio.to_thread(daemon.kill)
    return await start()


async def _accidents(stack: Stack, running: dict[str, Daemon], dice: random.Random, end: float) -> None:
    starts: dict[str, Callable[[], Awaitable[Daemon]]] = {
        "manager": stack.start_manager, "0": stack.start_monitor, "1": lambda: stack.start_monitor(1)
    }  # fmt: skip
    mtu = 1300
    while time.monotonic() < end:
        name = dice.choice(sorted(starts))
        mtu += 1
        replace_file(stack.folder / "a.yaml", declare("blue", "10.1.0.0/16", mtu=mtu))
        running[name] = await _kill(running[name], starts[name])


async def _agree(stack: Stack, name: str, within: float = 20.0) -> set[str]:
    """Waits until a node and the manager hold the same; returns it."""
    (node,) = (node for node in stack.nodes if node.name == name)
    topic = f"node/{name}"
    async with asyncio.timeout(within):
        while True:
            truth = await stack.sets_of(name)
            if topic in node.state.topics and node.state.topics[topic].synced and node.state.keys(topic) == truth:
                return truth
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("seed", [1, 2])
async def test_after_kills_every_node_knows_what_is_true(stack: Stack, seed: int) -> None:
    dice = random.Random(seed)
    replace_file(stack.folder / "a.yaml", declare("blue", "10.1.0.0/16"))
    replace_file(stack.folder / "b.yaml", declare("red", "10.2.0.0/16"))
    manager = await stack.start_manager()
    running = {"manager": manager, "0": await stack.start_monitor(), "1": await stack.start_monitor(1)}
    await stack.until_network("blue", bool)
    await stack.until_network("red", bool)
    nodes = [stack.watch(name) for name in NODES]
    churn = Churn(stack, dice)
    end = time.monotonic() + SECONDS
    accidents = asyncio.create_task(_accidents(stack, running, random.Random(seed + 100), end))
    while not accidents.done():
        await churn.step()
        await asyncio.sleep(0.01)
    await accidents
    truth = set().union(*[await _agree(stack, name) for name in NODES])
    assert churn.held.keys() <= truth, "what was acknowledged is there"
    assert len(churn.held) > 3
    for node in nodes:
        removed = {key for topic in node.state.topics.values() for key in topic.removed}
        assert removed <= churn.released, "no node was told to let go of what nobody released"
    last = (stack.folder / "a.yaml").read_text().rpartition("mtu: ")[2].split("}")[0]
    blue = await stack.until_network("blue", lambda found: found is not None and found.mtu == int(last))
    assert blue is not None
    key = f"network/{blue.id}"
    for node in nodes:
        if key in node.state.topics:
            await node.until(lambda state: state.topics[key].objects[key].network.mtu == int(last))
