"""Trouble of every kind at every step of ADD, DEL and recovery, with the real kernel: the end is everything or nothing."""

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness import steps
from harness.agent import CONF as CALL
from harness.agent import AgentProcess, SmallManager, agent_in
from harness.daemons import NotStarted
from harness.netns import entered, ip, network_namespace, ping
from harness.plugin import Plugin
from harness.steps import KINDS, Step

from knitter.v1 import agent_pb2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

# `admin/default` for eth0 is the manager's default where nothing else is said.
CONF: dict[str, Any] = {"networks": "t1/control@net1"}
DELEGATE = """#!/bin/sh
echo "$CNI_COMMAND" >> "${0%/*}/calls"
cat > /dev/null
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}], "ips": []}'
"""


class Place:
    """A node with an agent and a manager, one sandbox, and a delegate that notes how it was called."""

    def __init__(self, node: str, sandbox: str, manager: SmallManager, agent: AgentProcess, plugins: Path) -> None:
        self.node, self.sandbox, self.manager, self.agent, self.plugins = node, sandbox, manager, agent, plugins
        self.conf = CONF
        self.interfaces = {"eth0", "net1"}

    def delegate(self) -> None:
        """From now on the primary interface is the delegate's, which makes none."""
        self.conf = {**CONF, "delegate": {"type": "noting", "cniVersion": "1.0.0", "name": "n"}}
        self.interfaces = {"net1"}

    async def call(self, verb: str, netns: str, container: str = "c1", **conf: Any) -> tuple[int, Any]:
        """One call of the plugin's. Raises AioRpcError when the agent dies meanwhile."""
        more = {"CNI_PATH": str(self.plugins)}
        return await self.agent.call(verb, container, netns, "eth0", {**self.conf, **conf}, more=more)

    async def in_trouble(self, verb: str, netns: str, kind: str) -> tuple[int, Any]:
        """A call that meets the trouble; (-9, None) when the agent dies of it. Then it is started again, without."""
        try:
            answer = await self.call(verb, netns)
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - a call may as well be answered before the end
            answer = -9, None
        if kind != "kill":
            await self.until(lambda: "fail-point" in self.agent.daemon.log())
            return answer
        assert await asyncio.to_thread(self.agent.daemon.wait) == -9
        await self.agent.restart()
        return -9, None

    async def until(self, holds: Callable[[], object]) -> None:
        """Until it holds; another process's state has no event to wait for."""
        try:
            async with asyncio.timeout(15):
                while not holds():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(self.agent.daemon.log()[-4000:]) from None

    async def settled(self) -> list[Any]:
        """The attachments, once none of them is under way and the manager holds a set for each."""
        async with asyncio.timeout(15):
            while True:
                found = await self.agent.attachments()
                attached = all(one.state == agent_pb2.ATTACHMENT_STATE_ATTACHED for one in found)
                if attached and len(self.manager.sets.held) == len(found):
                    return found
                await asyncio.sleep(0.02)

    async def whole(self) -> None:
        """All of the attachment is there, and works."""
        (attachment,) = await self.settled()
        assert _links(self.sandbox) == self.interfaces, self.agent.daemon.log()[-3000:]
        (held,) = self.manager.sets.held.values()
        wanted = {one.cidr.partition("/")[0] for port in held.ports for one in port.addresses}
        links = [link for link in ip(self.sandbox, "address", "show") if link["ifname"] != "lo"]
        assert {one["local"] for link in links for one in link["addr_info"] if one["scope"] == "global"} == wanted
        assert {one.cidr.partition("/")[0] for port in attachment.port_set.ports for one in port.addresses} == wanted
        for port in held.ports:
            ping(self.sandbox, port.addresses[0].gateway)

    async def nothing(self) -> None:
        """Nothing of it is left anywhere."""
        assert await self.settled() == [], self.agent.daemon.log()[-3000:]
        assert _links(self.sandbox) == set()
        assert _links(self.node) == set()

    async def serves(self) -> None:
        """What a runtime does next works: ADD, CHECK, DEL, and DEL again."""
        code, result = await self.call("ADD", self.sandbox)
        assert code == 0, (result, self.agent.daemon.log()[-3000:])
        await self.whole()
        assert await self.call("CHECK", self.sandbox, prevResult=result) == (0, None)
        await self.ended()

    async def ended(self) -> None:
        """DEL, and DEL again without a namespace as some runtimes do."""
        for netns in (self.sandbox, ""):
            assert await self.call("DEL", netns) == (0, None)
        await self.nothing()


def _links(path: str) -> set[str]:
    return {link["ifname"] for link in ip(path, "link", "show")} - {"lo"}


def _armed(step: Step, kind: str) -> dict[str, str]:
    return {"KNITTER_FAILPOINTS": step.rule(kind)}


Placing = Callable[[dict[str, str]], Awaitable[Place]]


@pytest.fixture
async def placing(tmp_path: Path) -> AsyncIterator[Placing]:
    """Makes a place whose agent has that in its environment."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "noting").write_text(DELEGATE, encoding="utf-8")
    (plugins / "noting").chmod(0o755)
    async with contextlib.AsyncExitStack() as stack:

        async def make(env: dict[str, str]) -> Place:
            node, sandbox = (stack.enter_context(network_namespace(label)) for label in ("node", "pod"))
            manager = await stack.enter_async_context(SmallManager())
            agent = stack.enter_context(agent_in(node, manager.address, env=env))
            return Place(node, sandbox, manager, agent, plugins)

        yield make


def _tried(table: tuple[Step, ...]) -> list[Any]:
    return [pytest.param(step, kind, id=f"{step}-{kind}") for step in table for kind in KINDS]


@pytest.mark.parametrize(("step", "kind"), _tried(steps.ADD))
async def test_trouble_in_add(placing: Placing, step: Step, kind: str) -> None:
    await _trouble_in_add(await placing(_armed(step, kind)), step, kind)


@pytest.mark.parametrize(("step", "kind"), _tried(steps.ADD_DELEGATED))
async def test_trouble_in_add_with_a_delegate(placing: Placing, step: Step, kind: str) -> None:
    place = await placing(_armed(step, kind))
    place.delegate()
    await _trouble_in_add(place, step, kind)


async def _trouble_in_add(place: Place, step: Step, kind: str) -> None:
    code, answer = await place.in_trouble("ADD", place.sandbox, kind)
    if kind.startswith("delay"):
        assert code == 0, answer
    elif kind != "kill":
        assert code == 1
        assert answer["code"] >= 100, "a failure of ours, not one that the specification knows"
        assert kind == "panic" or step.name in answer["msg"] + answer.get("details", "")
    if code == 0 or (kind == "kill" and step.done):
        await place.whole()
    else:
        await place.nothing()
    if code == 0:
        await place.ended()
    await place.serves()
    _delegates_were_told(place)


@pytest.mark.parametrize(("step", "kind"), _tried(steps.DEL))
async def test_trouble_in_del(placing: Placing, step: Step, kind: str) -> None:
    place = await placing(_armed(step, kind))
    if "delegates" in step.name:
        place.delegate()
    assert (await place.call("ADD", place.sandbox))[0] == 0
    await place.whole()
    code, answer = await place.in_trouble("DEL", place.sandbox, kind)
    if kind.startswith("delay") or (step.done and not step.name.startswith(("journal", "del")) and kind != "kill"):
        assert code == 0, answer
    if code == 0 or step.done:
        await place.nothing()  # and nobody asks for it again
    await place.ended()
    await place.serves()
    _delegates_were_told(place)


def _delegates_were_told(place: Place) -> None:
    calls = place.plugins / "calls"
    if calls.exists():
        verbs = calls.read_text(encoding="utf-8").split()
        assert verbs[-1] == "DEL"
        assert verbs.count("DEL") >= verbs.count("ADD") > 0


async def _started_in_trouble(place: Place, step: Step, kind: str) -> None:
    """Killed twice, so that trouble meets what trouble left; then without."""
    for _ in range(2 if kind == "kill" else 1):
        with contextlib.suppress(NotStarted):  # it may as well serve first
            await place.agent.restart(_armed(step, kind))
            if kind == "kill":
                with contextlib.suppress(Exception):
                    await asyncio.to_thread(place.agent.daemon.wait, 2.0)
        await asyncio.to_thread(place.agent.daemon.close)
    await place.agent.restart()


@pytest.mark.parametrize(("step", "kind"), _tried(steps.RECOVERY))
async def test_trouble_in_recovery(placing: Placing, step: Step, kind: str) -> None:
    place = await placing({"KNITTER_FAILPOINTS": "add.wired=1+1*kill"})
    plugin = Plugin(place.agent.home)
    with network_namespace("kept") as kept:
        code, _ = await place.call("ADD", kept, container="kept")
        assert code == 0
        with pytest.raises(grpc.aio.AioRpcError):
            await place.call("ADD", place.sandbox)
        assert await asyncio.to_thread(place.agent.daemon.wait) == -9
        stdin = json.dumps({**CALL, **place.conf}).encode()
        away = await plugin.call("DEL", stdin, {"CNI_NETNS": kept, "CNI_CONTAINERID": "kept", "CNI_PATH": str(place.plugins)})
        assert away.code == 0
        assert plugin.queue
        await _started_in_trouble(place, step, kind)
        await place.nothing()
        await place.until(lambda: not plugin.queue)
        assert _links(kept) == set()
    await place.serves()


def _delete_links(path: str) -> None:
    with entered(path):
        for name in _links(path):
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)  # one end takes the other with it


@pytest.mark.parametrize(("step", "kind"), _tried(steps.REBOOT))
async def test_trouble_after_a_reboot(placing: Placing, step: Step, kind: str) -> None:
    place = await placing({})
    assert (await place.call("ADD", place.sandbox))[0] == 0
    await asyncio.to_thread(place.agent.daemon.kill)
    with contextlib.closing(sqlite3.connect(place.agent.home / "state" / "journal.db")) as journal, journal:
        journal.execute("UPDATE meta SET value = 'another boot' WHERE key = 'boot_id'")
    _delete_links(place.node)
    await _started_in_trouble(place, step, kind)
    await place.nothing()
    await place.serves()


async def test_a_loss_of_power_right_after_add_leaves_nothing(placing: Placing) -> None:
    place = await placing({})
    state = place.agent.home / "state"
    await place.until(lambda: place.manager.told)
    await place.serves()  # whatever it writes at its start it has written
    synced = {path: path.read_bytes() for path in state.glob("journal.db*")}
    code, result = await place.call("ADD", place.sandbox)
    assert (code, len(place.manager.sets.held)) == (0, 1), result
    await asyncio.to_thread(place.agent.daemon.kill)
    for path, content in synced.items():
        path.write_bytes(content)
    place.agent.reboot()
    _delete_links(place.node)
    await place.agent.restart()
    await place.nothing()
    await place.serves()


@pytest.mark.parametrize("step", ["add.after-done", "journal.after-commit=3"])
@pytest.mark.parametrize("then", ["undo.before-unwire", "undo.after-unwire", "undo.before-drop"])
async def test_a_failed_add_that_the_disk_has_as_done_is_not_left_by_halves(placing: Placing, step: str, then: str) -> None:
    name, _, passed = step.partition("=")
    place = await placing({"KNITTER_FAILPOINTS": f"{Step(name, int(passed or 0)).rule('error')};{then}=kill"})
    await place.in_trouble("ADD", place.sandbox, "kill")
    await place.nothing()
    await place.serves()


async def test_what_runs_stays_while_the_agent_is_killed_and_comes_back(placing: Placing) -> None:
    place = await placing({})
    _, result = await place.call("ADD", place.sandbox)
    before = _shape(place.sandbox), _shape(place.node)
    place.agent.daemon.kill()
    ping(place.sandbox, "10.1.0.1")
    await place.agent.restart()
    assert (_shape(place.sandbox), _shape(place.node)) == before
    assert await place.call("CHECK", place.sandbox, prevResult=result) == (0, None)
    await place.until(lambda: len(place.manager.told) == 2)
    assert len(place.manager.told[-1].in_use) == 1


def _shape(path: str) -> list[tuple[object, ...]]:
    keys = ("ifindex", "ifname", "address", "mtu", "flags", "master", "operstate")
    links = ip(path, "address", "show")
    return [(*(link.get(key) for key in keys), *(one["local"] for one in link["addr_info"])) for link in links]
