"""The agent's disk is full: ADD is refused and leaves nothing, DEL is carried out before it is answered, and a restart serves."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess, SmallManager, agent_in, gone
from harness.netns import ip, network_namespace, ping

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and network namespaces need root")

CONF = {"networks": "t1/control@net1"}


class SmallDisk:
    """A file system of a few MiB that can be filled to the last octet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Nothing fits any more."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (65536, 512, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def free(self) -> None:
        """There is room again."""
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "state"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(path)], check=True)
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
async def manager() -> AsyncIterator[SmallManager]:
    async with SmallManager() as made:
        yield made


@pytest.fixture
def agent(manager: SmallManager, disk: SmallDisk) -> Iterator[AgentProcess]:
    with network_namespace("node") as node, agent_in(node, manager.address, state=str(disk.path)) as started:
        yield started


@pytest.fixture
def sandboxes() -> Iterator[list[str]]:
    with network_namespace("a") as first, network_namespace("b") as second:
        yield [first, second]


def links(path: str) -> set[str]:
    return {link["ifname"] for link in ip(path, "link", "show")} - {"lo"}


async def refused(agent: AgentProcess, sandbox: str) -> Any:
    """Adds and deletes until the disk is what refuses; the journal's log may have room for a few."""
    async with asyncio.timeout(30):
        while True:
            code, answer = await agent.call("ADD", "c2", sandbox, "eth0", CONF)
            if code:
                return answer
            assert await agent.call("DEL", "c2", sandbox, "eth0", CONF) == (0, None)


async def test_a_full_disk_refuses_adds_and_hinders_no_del(
    agent: AgentProcess, manager: SmallManager, disk: SmallDisk, sandboxes: list[str]
) -> None:
    first, second = sandboxes
    assert (await agent.call("ADD", "c1", first, "eth0", CONF))[0] == 0
    disk.fill()
    error = await refused(agent, second)
    assert (error["code"], "disk is full" in error["msg"]) == (5, True), error
    assert links(second) == set()
    ping(first, "10.1.0.1")
    assert await agent.call("DEL", "c1", first, "eth0", CONF) == (0, None)
    assert links(first) == set()  # not marked, so it was carried out before the answer
    assert links(agent.netns) == set()
    disk.free()
    await gone(agent)
    assert not manager.sets.held
    assert (await agent.call("ADD", "c1", first, "eth0", CONF))[0] == 0
    assert len(await agent.attachments()) == 1


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
async def test_an_agent_starts_and_serves_on_a_full_disk(
    agent: AgentProcess, manager: SmallManager, disk: SmallDisk, sandboxes: list[str], sign: signal.Signals
) -> None:
    first, second = sandboxes
    _, result = await agent.call("ADD", "c1", first, "eth0", CONF)
    disk.fill()
    await refused(agent, second)
    agent.daemon.process.send_signal(sign)
    await asyncio.to_thread(agent.daemon.wait)
    disk.fill()  # what a graceful end has set free
    await agent.restart()
    assert await agent.call("STATUS", conf={"cniVersion": "1.1.0"}) == (0, None)
    assert await agent.call("CHECK", "c1", first, "eth0", {**CONF, "prevResult": result}) == (0, None)
    ping(first, "10.1.0.1")
    assert await agent.call("DEL", "c1", first, "eth0", CONF) == (0, None)
    assert links(first) == set()
    disk.free()
    await gone(agent)
    assert not manager.sets.held
