"""The agent away while pods go: DELs kept by the plugin, carried out by the real agent, and never against what came after them."""

import asyncio
import binascii
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess, SmallManager, agent_in
from harness.netns import ip, network_namespace
from harness.plugin import Plugin

from knitter.v1 import agent_pb2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

CONF: dict[str, Any] = {"cniVersion": "1.1.0", "name": "knitter", "type": "knitter-cni", "networks": "t1/control@net1"}
STDIN = json.dumps(CONF).encode()


@pytest.fixture
def sandbox() -> Iterator[str]:
    with network_namespace("pod") as path:
        yield path


class Place:
    """A running agent with a manager, and the plugin in front of it."""

    def __init__(self, agent: AgentProcess, manager: SmallManager, node: str) -> None:
        self.agent, self.manager, self.node = agent, manager, node
        self.plugin = Plugin(agent.home)

    async def call(self, verb: str, netns: str, stdin: bytes = STDIN, **env: str | None) -> Any:
        """One call that must succeed; returns what it printed."""
        outcome = await self.plugin.call(verb, stdin, {"CNI_NETNS": netns, **env})
        assert outcome.code == 0, (outcome, self.agent.daemon.log()[-3000:])
        return json.loads(outcome.stdout) if outcome.stdout else None

    def end(self, number: signal.Signals) -> None:
        """Ends the agent, and waits until it is gone."""
        self.agent.daemon.process.send_signal(number)
        self.agent.daemon.process.wait(20)

    async def clean(self) -> None:
        """Until nothing is left of any attachment."""
        await eventually(self._clean, self.agent)

    async def _clean(self) -> bool:
        if await self.agent.attachments() or self.manager.sets.held or self.plugin.queue:
            return False
        return {link["ifname"] for link in ip(self.node, "link", "show")} == {"lo"}


async def eventually(holds: Callable[[], Awaitable[object]], agent: AgentProcess) -> None:
    """Until it holds; another process's state has no event to wait for."""
    try:
        async with asyncio.timeout(15):
            while not await holds():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(agent.daemon.log()[-3000:]) from None


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    with network_namespace("node") as node:
        async with SmallManager() as manager:
            with agent_in(node, manager.address) as agent:
                yield Place(agent, manager, node)


def interfaces(netns: str) -> set[str]:
    return {link["ifname"] for link in ip(netns, "link", "show")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_del_while_the_agent_is_away_is_carried_out_at_its_start(
    place: Place, sandbox: str, number: signal.Signals
) -> None:
    await place.call("ADD", sandbox)
    assert interfaces(sandbox) == {"lo", "eth0", "net1"}
    place.end(number)
    await place.call("DEL", sandbox)
    await place.call("DEL", "")  # as containerd repeats it
    assert len(place.plugin.queue) == 2
    assert interfaces(sandbox) == {"lo", "eth0", "net1"}
    await place.agent.restart()
    await place.clean()
    assert interfaces(sandbox) == {"lo"}


async def test_a_del_kept_although_the_agent_runs_is_carried_out_at_once(place: Place, sandbox: str) -> None:
    await place.call("ADD", sandbox)
    await place.call("DEL", sandbox, KNITTER_SOCKET="/nonexistent")
    await place.clean()
    assert interfaces(sandbox) == {"lo"}


async def test_a_kept_del_does_not_end_what_was_added_after_it(place: Place, sandbox: str) -> None:
    await place.call("ADD", sandbox)
    place.end(signal.SIGTERM)
    await place.call("DEL", sandbox)
    old = place.plugin.queue[0].read_bytes()
    name = place.plugin.queue[0].name
    await place.agent.restart()
    await place.clean()
    result = await place.call("ADD", sandbox)
    place.end(signal.SIGKILL)
    (place.plugin.state / "delq" / name).write_bytes(old)
    await place.agent.restart()
    assert place.plugin.queue == []
    await place.call("CHECK", sandbox, json.dumps({**CONF, "prevResult": result}).encode())
    assert interfaces(sandbox) == {"lo", "eth0", "net1"}


def replace_namespace(name: str) -> None:
    """Another namespace under the same name, with interfaces of the same names."""
    for words in (f"netns del {name}", f"netns add {name}", f"-n {name} link add eth0 type veth peer name net1"):
        subprocess.run(["ip", *words.split()], check=True)


async def test_a_kept_del_does_not_touch_another_namespace_at_the_same_path(place: Place, sandbox: str) -> None:
    await place.call("ADD", sandbox)
    place.end(signal.SIGKILL)
    await place.call("DEL", sandbox)
    replace_namespace(Path(sandbox).name)
    await place.agent.restart()
    await place.clean()
    assert interfaces(sandbox) == {"lo", "eth0", "net1"}


def broken(entry: bytes) -> dict[str, bytes]:
    """What may lie in the queue after a bad disk, or a bad hand."""
    flipped = bytearray(entry)
    flipped[len(entry) // 2] ^= 1
    nothing = b"\xff" * 40
    return {
        "1-empty.del": b"",
        "2-cut.del": entry[:-10],
        "3-flipped.del": bytes(flipped),
        "4-magic.del": b"KDQ2" + entry[4:],
        "5-not-protobuf.del": b"KDQ1" + binascii.crc32(nothing).to_bytes(4, "big") + nothing,
        "6-no-invocation.del": b"KDQ1" + binascii.crc32(b"").to_bytes(4, "big"),
        "no-time.del": entry[:7],
    }


async def test_broken_entries_hinder_neither_the_good_ones_nor_the_agent(place: Place, sandbox: str) -> None:
    await place.call("ADD", sandbox)
    place.end(signal.SIGKILL)
    await place.call("DEL", sandbox)
    directory = place.plugin.state / "delq"
    bad = broken(place.plugin.queue[0].read_bytes())
    for name, data in bad.items():
        (directory / name).write_bytes(data)
    (directory / ".tmp-0123456789abcdef").write_bytes(b"half")
    (directory / "directory").mkdir()
    await place.agent.restart()
    await place.clean()
    assert interfaces(sandbox) == {"lo"}


async def test_an_entry_of_another_boot_has_nothing_to_do(place: Place, sandbox: str) -> None:
    result = await place.call("ADD", sandbox)
    place.end(signal.SIGTERM)
    await place.call("DEL", sandbox)
    (path,) = place.plugin.queue
    queued = agent_pb2.QueuedDetach.FromString(path.read_bytes()[8:])
    queued.boot_id = "00000000-0000-0000-0000-000000000000"
    body = queued.SerializeToString()
    path.write_bytes(b"KDQ1" + binascii.crc32(body).to_bytes(4, "big") + body)
    await place.agent.restart()
    assert place.plugin.queue == []
    await place.call("CHECK", sandbox, json.dumps({**CONF, "prevResult": result}).encode())


async def test_after_a_reboot_all_is_given_back_and_what_took_the_places_stays(place: Place, sandbox: str) -> None:
    await place.call("ADD", sandbox)
    place.end(signal.SIGKILL)
    await place.call("DEL", sandbox)
    place.agent.reboot()
    replace_namespace(Path(sandbox).name)
    for bridge in interfaces(place.node) - {"lo"}:
        ip(place.node, "link", "del", bridge)
    await place.agent.restart()
    await place.clean()
    assert interfaces(sandbox) == {"lo", "eth0", "net1"}
    ip(sandbox, "link", "del", "eth0")
    await place.call("ADD", sandbox)
    await place.call("DEL", sandbox)
    await place.clean()


async def test_the_queue_is_followed_where_its_directory_was_removed(place: Place, sandbox: str) -> None:
    await place.call("ADD", sandbox)
    shutil.rmtree(place.plugin.state / "delq")
    await place.call("DEL", sandbox, KNITTER_SOCKET="/nonexistent")
    await place.clean()
    assert interfaces(sandbox) == {"lo"}


async def test_many_kept_dels_are_all_carried_out(place: Place, sandbox: str) -> None:
    await place.call("ADD", sandbox)
    place.end(signal.SIGKILL)
    await asyncio.gather(*(place.call("DEL", "", CNI_CONTAINERID=f"gone{number}") for number in range(10)))
    await place.call("DEL", sandbox)
    assert len(place.plugin.queue) == 11
    await place.agent.restart()
    await place.clean()


async def test_status_while_the_agent_restarts_keeps_the_node_ready(place: Place, sandbox: str) -> None:
    await place.call("STATUS", sandbox)
    place.end(signal.SIGKILL)
    await place.call("STATUS", sandbox)
    assert (await place.plugin.call("ADD", STDIN, {"CNI_NETNS": sandbox})).error["code"] == 11
    shutil.rmtree(place.plugin.state / "delq", ignore_errors=True)
    (place.plugin.directory / "served").unlink()
    assert (await place.plugin.call("STATUS", STDIN)).error["code"] == 50


async def test_status_asks_for_a_manager_only_where_it_is_strict() -> None:
    with network_namespace("node") as node:
        async with SmallManager() as manager:
            for strict in (True, False):
                with agent_in(node, manager.address, strictStatus=strict) as agent:
                    plugin = Plugin(agent.home)
                    await eventually(lambda: ready(plugin), agent)  # noqa: B023 - ended before the next one
                    await manager.stop()
                    if strict:
                        await eventually(lambda: not_ready(plugin), agent)  # noqa: B023
                    else:
                        assert await ready(plugin)
                    await manager.start()


async def ready(plugin: Plugin) -> bool:
    return (await plugin.call("STATUS", STDIN)).code == 0


async def not_ready(plugin: Plugin) -> bool:
    outcome = await plugin.call("STATUS", STDIN)
    return outcome.code == 1 and outcome.error["code"] == 50 and "manager" in outcome.error["msg"]


async def test_status_is_strict_where_the_agent_is_told_to_be() -> None:
    with network_namespace("node") as node:
        async with SmallManager() as manager:
            with agent_in(node, manager.address, strictStatus=True) as agent:
                plugin = Plugin(agent.home)
                agent.daemon.process.send_signal(signal.SIGTERM)
                agent.daemon.process.wait(20)
                assert (await plugin.call("STATUS", STDIN)).error["code"] == 50
