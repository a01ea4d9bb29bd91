"""The agent as a daemon, with the real kernel: ADD, CHECK, DEL through its socket, in namespaces of the test's own."""

import asyncio
from collections.abc import Iterator

import pytest
from harness.agent import SmallManager, agent_in, gone
from harness.netns import ip, network_namespace, ping

CONF = {"networks": "t1/control@net1"}


@pytest.fixture
def node() -> Iterator[str]:
    with network_namespace("node") as path:
        yield path


@pytest.fixture
def sandbox() -> Iterator[str]:
    with network_namespace("pod") as path:
        yield path


async def test_a_sandbox_gets_its_interfaces_and_loses_them(node: str, sandbox: str) -> None:
    async with SmallManager() as manager:
        with agent_in(node, manager.address) as agent:
            code, result = await agent.call("ADD", "c1", sandbox, "eth0", CONF)
            assert code == 0, (result, agent.daemon.log())
            assert result["ips"][0]["address"] == "10.1.0.2/16"
            assert {link["ifname"] for link in ip(sandbox, "link", "show")} == {"lo", "eth0", "net1"}
            ping(sandbox, "10.1.0.1")
            assert await agent.call("CHECK", "c1", sandbox, "eth0", {**CONF, "prevResult": result}) == (0, None)
            assert await agent.call("DEL", "c1", "", "eth0", CONF) == (0, None)
            await gone(agent)
            assert {link["ifname"] for link in ip(sandbox, "link", "show")} == {"lo"}
            assert {link["ifname"] for link in ip(node, "link", "show")} == {"lo"}
            assert not manager.sets.held


async def test_the_nodes_side_is_made_whole_again(node: str, sandbox: str) -> None:
    async with SmallManager() as manager:
        with agent_in(node, manager.address, livenessInterval="100ms") as agent:
            _, result = await agent.call("ADD", "c1", sandbox, "eth0", CONF)
            bridge = ip(node, "link", "show", "type", "bridge")[0]["ifname"]
            for link in ip(node, "link", "show", "type", "bridge"):
                ip(node, "link", "delete", link["ifname"])
            async with asyncio.timeout(10):
                while (await agent.call("CHECK", "c1", sandbox, "eth0", {**CONF, "prevResult": result}))[0]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            ping(sandbox, "10.1.0.1")
            assert bridge in {link["ifname"] for link in ip(node, "link", "show", "type", "bridge")}


async def test_a_sandbox_that_died_without_a_del_is_found(node: str) -> None:
    async with SmallManager() as manager:
        with agent_in(node, manager.address, livenessInterval="50ms", livenessGrace="300ms") as agent:
            with network_namespace("brief") as brief, network_namespace("long") as long:
                assert (await agent.call("ADD", "c1", brief, "eth0", CONF))[0] == 0
                assert (await agent.call("ADD", "c2", long, "eth0", CONF))[0] == 0
                await asyncio.sleep(0.6)
                assert len(await agent.attachments()) == 2
            async with asyncio.timeout(10):
                while manager.sets.held:  # noqa: ASYNC110 - another process's doing
                    await asyncio.sleep(0.02)
            await gone(agent)
            assert {link["ifname"] for link in ip(node, "link", "show")} == {"lo"}
