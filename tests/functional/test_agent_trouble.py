"""The agent as a daemon in trouble: a lost journal, a manager that disagrees, callers that go, deadlines, two at once, too many."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from harness.agent import AgentProcess, SmallManager, agent_in, environment_of, gone
from harness.daemons import NotStarted, start_soon
from harness.netns import ip, network_namespace, ping

from knitter.v1 import agent_pb2, agent_pb2_grpc
from knitter_common import convert
from knitter_common.errors import Exhausted
from knitter_common.model import Binding, PortSet, SandboxOwner

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

CONF = {"networks": "t1/control@net1"}


@pytest.fixture
def node() -> Iterator[str]:
    with network_namespace("node") as path:
        yield path


@pytest.fixture
def sandbox() -> Iterator[str]:
    with network_namespace("pod") as path:
        yield path


@pytest.fixture
async def manager() -> AsyncIterator[SmallManager]:
    async with SmallManager() as made:
        yield made


@pytest.fixture
def agent(manager: SmallManager, node: str) -> Iterator[AgentProcess]:
    with agent_in(node, manager.address) as started:
        yield started


def _links(path: str) -> set[str]:
    return {link["ifname"] for link in ip(path, "link", "show")} - {"lo"}


async def _until(holds: object) -> None:
    assert callable(holds)
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - other processes' state
            await asyncio.sleep(0.02)


async def test_a_lost_journal_is_made_again_from_what_the_manager_knows(
    agent: AgentProcess, manager: SmallManager, node: str, sandbox: str
) -> None:
    _, result = await agent.call("ADD", "c1", sandbox, "eth0", CONF)
    agent.daemon.kill()
    agent.lose_journal()
    await agent.restart()
    async with asyncio.timeout(10):
        while not await agent.attachments():  # noqa: ASYNC110 - another process's journal
            await asyncio.sleep(0.02)
    ping(sandbox, "10.1.0.1")
    assert await agent.call("CHECK", "c1", sandbox, "eth0", {**CONF, "prevResult": result}) == (0, None)
    assert manager.sets.held
    assert await agent.call("DEL", "c1", sandbox, "eth0", CONF) == (0, None)
    await gone(agent)
    assert (_links(sandbox), _links(node), manager.sets.held) == (set(), set(), {})
    assert "broken" in agent.daemon.log()


async def test_a_set_that_nothing_uses_is_given_back(agent: AgentProcess, manager: SmallManager, sandbox: str) -> None:
    await agent.call("ADD", "c1", sandbox, "eth0", CONF)
    stray = SandboxOwner("node1", "stray", "knitter", "eth0")
    other = SandboxOwner("node2", "stray", "knitter", "eth0")
    for owner in (stray, other):
        manager.sets.held[owner.key] = PortSet(owner, "admin", "node1", binding=Binding("stray", sandbox))
    await manager.stop()
    await manager.start()
    await _until(lambda: stray.key not in manager.sets.held)
    assert other.key in manager.sets.held
    assert _links(sandbox) == {"eth0", "net1"}
    assert len(await agent.attachments()) == 1


async def test_what_belongs_to_others_by_now_is_detached(agent: AgentProcess, manager: SmallManager, sandbox: str) -> None:
    await agent.call("ADD", "c1", sandbox, "eth0", CONF)
    manager.refused.append(convert.owner_to_proto(SandboxOwner("node1", "c1", "knitter", "eth0")))
    await manager.stop()
    await manager.start()
    await gone(agent)
    assert _links(sandbox) == set()
    told = [len(request.in_use) for request in manager.told]
    assert told[-2:] == [1, 0]  # that nothing of it is left, at once: the manager waits for it


async def test_pods_start_and_end_while_the_manager_comes_and_goes(
    agent: AgentProcess, manager: SmallManager, sandbox: str
) -> None:
    await agent.call("ADD", "c1", sandbox, "eth0", CONF)
    await manager.stop()
    assert await agent.call("DEL", "c1", sandbox, "eth0", CONF) == (0, None)
    await _until(lambda: _links(sandbox) == set())
    adding = asyncio.create_task(agent.call("ADD", "c2", sandbox, "eth0", CONF))
    await asyncio.sleep(0.2)
    await manager.start()
    assert (await adding)[0] == 0
    await _until(lambda: len(manager.sets.held) == 1)


async def test_a_manager_that_is_away_is_told_in_time(manager: SmallManager, node: str, sandbox: str) -> None:
    with agent_in(node, manager.address, managerPatience="300ms") as agent:
        await manager.stop()
        code, error = await agent.call("ADD", "c1", sandbox, "eth0", CONF)
        assert (code, error["code"]) == (1, 11)
        assert "MANAGER_UNAVAILABLE" in error["details"]
        await manager.start()
        await _until(lambda: not manager.sets.held)


@pytest.mark.parametrize("slow", ["add.after-allocate=1*delay(3000)", "add.after-intent=1*delay(700)", "add.wired=1*delay(700)"])
async def test_the_callers_deadline_ends_an_add_and_leaves_nothing(
    manager: SmallManager, node: str, sandbox: str, slow: str
) -> None:
    with agent_in(node, manager.address, env={"KNITTER_FAILPOINTS": slow}) as agent:
        code, error = await agent.call("ADD", "c1", sandbox, "eth0", CONF, within=1.0)
        assert (code, error["code"]) == (1, 11)
        assert "DEADLINE_EXCEEDED" in error["details"]
        await gone(agent)
        assert (_links(sandbox), manager.sets.held) == (set(), {})


@pytest.mark.parametrize(
    "step", ["add.before-allocate", "add.after-allocate", "add.after-intent", "add.wire", "add.wired", "add.before-done"]
)
async def test_a_caller_that_is_gone_leaves_nothing(manager: SmallManager, node: str, sandbox: str, step: str) -> None:
    with agent_in(node, manager.address, env={"KNITTER_FAILPOINTS": f"{step}=1*delay(400)"}) as agent:
        adding = asyncio.create_task(agent.call("ADD", "c1", sandbox, "eth0", CONF))
        await asyncio.sleep(0.2)
        adding.cancel()
        await asyncio.wait([adding])
        code, _ = await agent.call("ADD", "c1", sandbox, "eth0", CONF)  # waits for what is left of the first
        assert code == 0
        assert await agent.call("DEL", "c1", sandbox, "eth0", CONF) == (0, None)
        await gone(agent)
        await _until(lambda: not manager.sets.held)
        assert _links(sandbox) == set()


@pytest.mark.parametrize("step", ["del.before-mark", "journal.before-commit=4", "journal.after-commit=4", "del.after-mark"])
async def test_a_del_whose_caller_is_gone_goes_on(manager: SmallManager, node: str, sandbox: str, step: str) -> None:
    name, _, passed = step.partition("=")
    with agent_in(node, manager.address, env={"KNITTER_FAILPOINTS": f"{name}={passed or 0}+1*delay(400)"}) as agent:
        assert (await agent.call("ADD", "c1", sandbox, "eth0", CONF))[0] == 0
        deleting = asyncio.create_task(agent.call("DEL", "c1", sandbox, "eth0", CONF))
        await _until(lambda: "fail-point" in agent.daemon.log())
        deleting.cancel()
        await asyncio.wait([deleting])
        await gone(agent)
        await _until(lambda: not manager.sets.held)
        assert _links(sandbox) == set()


@pytest.mark.parametrize("slow", ["add.after-allocate=1*delay(5000)", "add.after-intent=1*delay(1000)"])
async def test_a_del_ends_an_add_that_takes_long(manager: SmallManager, node: str, sandbox: str, slow: str) -> None:
    with agent_in(node, manager.address, env={"KNITTER_FAILPOINTS": slow}) as agent:
        adding = asyncio.create_task(agent.call("ADD", "c1", sandbox, "eth0", CONF))
        await asyncio.sleep(0.3)
        assert await agent.call("DEL", "c1", sandbox, "eth0", CONF, within=2.0) == (0, None)
        code, error = await adding
        assert (code, error["code"]) == (1, 11)
        await gone(agent)
        assert _links(sandbox) == set()


async def test_an_add_waits_for_an_undo_in_its_namespace_by_whatever_path_it_comes(
    manager: SmallManager, node: str, sandbox: str
) -> None:
    other = os.open(sandbox, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with agent_in(node, manager.address, env={"KNITTER_FAILPOINTS": "undo.before-unwire=1*delay(500)"}) as agent:
            assert (await agent.call("ADD", "c1", sandbox, "eth0", CONF))[0] == 0
            assert await agent.call("DEL", "c1", sandbox, "eth0", CONF) == (0, None)
            code, result = await agent.call("ADD", "c2", f"/proc/{os.getpid()}/fd/{other}", "eth0", CONF)
            assert code == 0, result
            assert _links(sandbox) == {"eth0", "net1"}
    finally:
        os.close(other)


async def test_a_namespace_that_became_a_plain_file_hinders_no_del(agent: AgentProcess, manager: SmallManager, node: str) -> None:
    with network_namespace("gone") as sandbox:
        assert (await agent.call("ADD", "c1", sandbox, "eth0", CONF))[0] == 0
        ip(None, "netns", "del", Path(sandbox).name)
        Path(sandbox).write_text("a plain file")
        assert await agent.call("DEL", "c1", sandbox, "eth0", CONF) == (0, None)
        await gone(agent)
        assert await agent.call("DEL", "c1", sandbox, "eth0", CONF) == (0, None)
        assert (_links(node), manager.sets.held) == (set(), {})


async def test_a_network_without_addresses_fails_its_pods_and_not_the_node(
    agent: AgentProcess, manager: SmallManager, sandbox: str
) -> None:
    manager.sets.refuse = Exhausted("POOL_EXHAUSTED", "network t1/control is full")
    code, error = await agent.call("ADD", "c1", sandbox, "eth0", CONF)
    assert (code, "t1/control is full" in error["msg"]) == (1, True)
    assert await agent.call("STATUS", conf={"cniVersion": "1.1.0"}) == (0, None)


async def test_gc_waits_for_what_a_failed_add_still_undoes(manager: SmallManager, node: str, sandbox: str) -> None:
    slow = {"KNITTER_FAILPOINTS": "add.wired=1*error;undo.before-unwire=1*delay(500)"}
    with agent_in(node, manager.address, env=slow) as agent:
        adding = asyncio.create_task(agent.call("ADD", "c1", sandbox, "eth0", CONF))
        await _until(lambda: '"undo.before-unwire"' in agent.daemon.log())  # it has failed, and what it made is there still
        assert _links(sandbox) == {"eth0", "net1"}
        adding.cancel()
        conf = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
        assert await agent.call("GC", "", "", "", conf) == (0, None)
        assert _links(sandbox) == set()


async def test_a_graceful_end_finishes_what_is_under_way(manager: SmallManager, node: str, sandbox: str) -> None:
    with agent_in(node, manager.address, env={"KNITTER_FAILPOINTS": "add.after-intent=1*delay(500)"}) as agent:
        adding = asyncio.create_task(agent.call("ADD", "c1", sandbox, "eth0", CONF))
        await asyncio.sleep(0.2)
        assert await asyncio.to_thread(agent.daemon.terminate) == 0
        code, result = await adding
        assert code == 0
        await agent.restart()
        assert await agent.call("CHECK", "c1", sandbox, "eth0", {**CONF, "prevResult": result}) == (0, None)


async def test_two_agents_do_not_share_a_socket_or_a_journal(agent: AgentProcess) -> None:
    for change in ({}, {"listen": f"unix:{agent.home}/other.sock"}):
        with pytest.raises(NotStarted):
            await start_soon("knitter-agent", {**agent.config, **change}, agent.home, name="second")
    assert await agent.call("STATUS", "", "", "", {"cniVersion": "1.1.0"}) == (0, None)


async def test_more_adds_than_it_takes_are_told_to_come_again(manager: SmallManager, node: str, sandbox: str) -> None:
    armed = {"KNITTER_FAILPOINTS": "add.before-allocate=delay(300)"}
    with agent_in(node, manager.address, env=armed, maxConcurrentAdds=2) as agent:
        outcomes = await asyncio.gather(*(agent.call("ADD", f"c{number}", sandbox, f"eth{number}", {}) for number in range(5)))
        assert sorted(code for code, _ in outcomes) == [0, 0, 1, 1, 1]
        assert {error["code"] for code, error in outcomes if code} == {11}


async def test_the_journal_is_listed_in_pages(agent: AgentProcess, manager: SmallManager, sandbox: str) -> None:
    for number in range(5):
        assert (await agent.call("ADD", f"c{number}", sandbox, f"eth{number}", {}))[0] == 0
    async with grpc.aio.insecure_channel(agent.address) as channel:
        stub = agent_pb2_grpc.AgentServiceStub(channel)
        first = await stub.ListAttachments(agent_pb2.ListAttachmentsRequest(page_size=3))
        second = await stub.ListAttachments(agent_pb2.ListAttachmentsRequest(page_size=3, page_token=first.next_page_token))
        assert [one.container_id for one in (*first.attachments, *second.attachments)] == [f"c{number}" for number in range(5)]
        assert not second.next_page_token
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListAttachments(agent_pb2.ListAttachmentsRequest(page_token="x"))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_defect_is_an_answer_too(manager: SmallManager, node: str, sandbox: str) -> None:
    with agent_in(node, manager.address, env={"KNITTER_FAILPOINTS": "add.wired=1*panic"}) as agent:
        code, error = await agent.call("ADD", "c1", sandbox, "eth0", CONF)
        assert (code, error["code"]) == (1, 144)
        await gone(agent)
        assert _links(sandbox) == set()
        assert (await agent.call("ADD", "c1", sandbox, "eth0", CONF))[0] == 0


async def test_what_is_no_invocation_is_an_answer_too(agent: AgentProcess) -> None:
    async with grpc.aio.insecure_channel(agent.address) as channel:
        stub = agent_pb2_grpc.AgentServiceStub(channel)
        for invocation in (
            agent_pb2.Invocation(),
            agent_pb2.Invocation(environment=environment_of("DEL", "c", "", "e"), stdin=b"{"),
        ):
            answer = (await stub.Detach(agent_pb2.DetachRequest(invocation=invocation))).answer
            assert answer.exit_code == 1
