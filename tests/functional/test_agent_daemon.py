"""The agent as a daemon, with the real kernel: ADD, CHECK, DEL through its socket, in namespaces of the test's own."""

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
