"""The agent killed at every step: once it is back, each attachment is whole or nothing is left of it, and a runtime can go on."""

import asyncio
import contextlib
from collections.abc import Iterator

import grpc
import pytest
from harness.agent import AgentProcess, SmallManager, agent_in
from harness.daemons import NotStarted
from harness.netns import ip, network_namespace, ping

CONF = {"networks": "t1/control@net1"}
JOURNAL = ("journal.before-commit", "journal.after-commit")
ADD_STEPS = (
    "add.before-allocate", "add.after-allocate", "add.before-intent", "add.after-intent", "add.wire", "add.wire=1+kill",
    "add.wired", "add.before-done", "add.after-done", *(f"{step}={passed}+kill" for step in JOURNAL for passed in (2, 3)),
)  # fmt: skip
UNDO_STEPS = (
    "del.before-mark", "del.after-mark", "undo.before-unwire", "undo.unwire", "undo.after-unwire", "undo.before-release",
    "undo.before-drop", *(f"{step}={passed}+kill" for step in JOURNAL for passed in (1, 2)),
)  # fmt: skip


@pytest.fixture
def node() -> Iterator[str]:
    with network_namespace("node") as path:
        yield path


@pytest.fixture
def sandbox() -> Iterator[str]:
    with network_namespace("pod") as path:
        yield path


def _armed(step: str) -> dict[str, str]:
    return {"KNITTER_FAILPOINTS": step if "=" in step else f"{step}=kill"}


async def _killed(agent: AgentProcess, verb: str, sandbox: str) -> None:
    """A call during which the agent dies."""
    try:
        await agent.call(verb, "c1", sandbox, "eth0", CONF)
    except grpc.aio.AioRpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - a call may as well be answered before the end
    assert await asyncio.to_thread(agent.daemon.wait) == -9


def _shape(path: str) -> list[tuple[object, ...]]:
    keys = ("ifindex", "ifname", "address", "mtu", "flags", "master", "operstate")
    links = ip(path, "address", "show")
    return [(*(link.get(key) for key in keys), *(one["local"] for one in link["addr_info"])) for link in links]


def _links(path: str) -> set[str]:
    return {link["ifname"] for link in ip(path, "link", "show")} - {"lo"}


async def _nothing_left(agent: AgentProcess, manager: SmallManager, node: str, sandbox: str) -> None:
    async with asyncio.timeout(10):
        while await agent.attachments() or manager.sets.held:  # noqa: ASYNC110 - other processes' state
            await asyncio.sleep(0.02)
    assert _links(sandbox) == set()
    assert _links(node) == set()


@pytest.mark.parametrize("step", ADD_STEPS)
async def test_killed_in_add_then_added_again(node: str, sandbox: str, step: str) -> None:
    async with SmallManager() as manager:
        with agent_in(node, manager.address, env=_armed(step)) as agent:
            await _killed(agent, "ADD", sandbox)
            await agent.restart()
            code, result = await agent.call("ADD", "c1", sandbox, "eth0", CONF)
            assert code == 0, (result, agent.daemon.log())
            assert _links(sandbox) == {"eth0", "net1"}
            ping(sandbox, "10.1.0.1")
            assert await agent.call("CHECK", "c1", sandbox, "eth0", {**CONF, "prevResult": result}) == (0, None)
            assert len(manager.sets.held) == len(await agent.attachments()) == 1
            assert await agent.call("DEL", "c1", "", "eth0", CONF) == (0, None)
            await _nothing_left(agent, manager, node, sandbox)


@pytest.mark.parametrize("step", ADD_STEPS)
async def test_killed_in_add_then_deleted(node: str, sandbox: str, step: str) -> None:
    async with SmallManager() as manager:
        with agent_in(node, manager.address, env=_armed(step)) as agent:
            await _killed(agent, "ADD", sandbox)
            await agent.restart()
            assert await agent.call("DEL", "c1", sandbox, "eth0", CONF) == (0, None)
            await _nothing_left(agent, manager, node, sandbox)


@pytest.mark.parametrize("step", UNDO_STEPS)
async def test_killed_in_del(node: str, sandbox: str, step: str) -> None:
    async with SmallManager() as manager:
        with agent_in(node, manager.address) as agent:
            assert (await agent.call("ADD", "c1", sandbox, "eth0", CONF))[0] == 0
            agent.daemon.terminate()
            await agent.restart(_armed(step))
            await _killed(agent, "DEL", sandbox)
            await agent.restart()
            assert await agent.call("DEL", "c1", "", "eth0", CONF) == (0, None)  # as a runtime repeats it
            await _nothing_left(agent, manager, node, sandbox)


@pytest.mark.parametrize("step", ["recover.begin", "recover.marked", "undo.before-unwire", "undo.after-unwire", "undo.before-drop"])
@pytest.mark.parametrize("kind", ["kill", "error", "panic", "delay(100)"])
async def test_trouble_in_recovery(node: str, sandbox: str, step: str, kind: str) -> None:
    async with SmallManager() as manager:
        with agent_in(node, manager.address, env=_armed("add.wired")) as agent:
            await _killed(agent, "ADD", sandbox)
            for _ in range(2):
                with contextlib.suppress(NotStarted):  # it may as well serve first
                    await agent.restart(_armed(f"{step}=1*{kind}"))
                    if kind == "kill":
                        assert await asyncio.to_thread(agent.daemon.wait) == -9
                    await asyncio.to_thread(agent.daemon.close)
            await agent.restart()
            await _nothing_left(agent, manager, node, sandbox)
            assert (await agent.call("ADD", "c1", sandbox, "eth0", CONF))[0] == 0


async def test_what_runs_stays_while_the_agent_is_killed_and_comes_back(node: str, sandbox: str) -> None:
    async with SmallManager() as manager:
        with agent_in(node, manager.address) as agent:
            _, result = await agent.call("ADD", "c1", sandbox, "eth0", CONF)
            before = _shape(sandbox), _shape(node)
            agent.daemon.kill()
            ping(sandbox, "10.1.0.1")
            await agent.restart()
            assert (_shape(sandbox), _shape(node)) == before
            assert await agent.call("CHECK", "c1", sandbox, "eth0", {**CONF, "prevResult": result}) == (0, None)
            assert len(manager.told[-1].in_use) == 1
