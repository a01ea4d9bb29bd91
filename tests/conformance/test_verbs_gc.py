"""GC by the real agent in the real kernel: what the list does not name goes, of this network name alone, and at once."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from harness.agent import AgentProcess, SmallManager, agent_in
from harness.netns import ip, network_namespace

LIST = "cni.dev/valid-attachments"
TWO = {"networks": "t1/control@net1"}


@pytest.fixture
def sandboxes() -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(network_namespace(f"gc{index}")) for index in range(3)]


@pytest.fixture
async def manager() -> AsyncIterator[SmallManager]:
    async with SmallManager() as made:
        yield made


@pytest.fixture
def agent(manager: SmallManager) -> Iterator[AgentProcess]:
    with network_namespace("node") as node, agent_in(node, manager.address) as started:
        yield started


def links(sandbox: str) -> set[str]:
    return {link["ifname"] for link in ip(sandbox, "link", "show")} - {"lo"}


def valid(*attachments: tuple[str, str], **conf: Any) -> dict[str, Any]:
    """A GC's configuration."""
    entries = [{"containerID": container, "ifname": interface} for container, interface in attachments]
    return {"cniVersion": "1.1.0", LIST: entries, **conf}


async def test_what_is_not_listed_goes_with_all_its_interfaces(
    agent: AgentProcess, manager: SmallManager, sandboxes: list[str]
) -> None:
    for number, sandbox in enumerate(sandboxes):
        assert (await agent.call("ADD", f"c{number}", sandbox, "eth0", TWO))[0] == 0
    # the interface's name belongs to the attachment: c1's eth0 is not what is listed here
    assert await agent.call("GC", "", "", "", valid(("c0", "eth0"), ("c1", "eth9"), ("unknown", "eth0"))) == (0, None)
    assert [links(sandbox) for sandbox in sandboxes] == [{"eth0", "net1"}, set(), set()]
    assert [row.container_id for row in await agent.attachments() if row.container_id == "c0"] == ["c0"]
    assert await agent.call("GC", "", "", "", valid()) == (0, None)
    assert links(sandboxes[0]) == set()


async def test_another_networks_attachments_are_not_its_business(agent: AgentProcess, sandboxes: list[str]) -> None:
    assert (await agent.call("ADD", "c0", sandboxes[0], "eth0", TWO))[0] == 0
    assert (await agent.call("ADD", "c0", sandboxes[0], "oth0", {"name": "other"}))[0] == 0
    assert await agent.call("GC", "", "", "", valid(name="other")) == (0, None)
    assert links(sandboxes[0]) == {"eth0", "net1"}
    assert await agent.call("GC", "", "", "", valid(name="third")) == (0, None)
    assert links(sandboxes[0]) == {"eth0", "net1"}


@pytest.mark.parametrize("conf", [{"cniVersion": "1.1.0"}, {"cniVersion": "1.1.0", LIST: None}, {"cniVersion": "1.1.0", LIST: {}}])
async def test_without_a_list_nothing_goes(agent: AgentProcess, sandboxes: list[str], conf: dict[str, Any]) -> None:
    assert (await agent.call("ADD", "c0", sandboxes[0], "eth0", TWO))[0] == 0
    code, error = await agent.call("GC", "", "", "", conf)
    assert (code, error["code"]) == (1, 7)
    assert LIST in error["msg"]
    assert links(sandboxes[0]) == {"eth0", "net1"}
