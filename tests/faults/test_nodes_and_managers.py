"""Real agents on two nodes, three managers over three members of etcd: writers and agents are killed, stopped and cut off while
sandboxes come and go. No address has two owners at any moment, and in the end kernel, journals and store say the same."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness.agent import AgentProcess, agent_in
from harness.etcd import Cluster, why_not
from harness.history import History
from harness.managers import Managing
from harness.netns import ip, network_namespace
from harness.relay import Relay

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.managers import Managers

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(180),
]

NODES, WORKERS, FAULTS = 2, 3, 8  # workers of each node
CONF = {"defaultNetwork": "admin/small"}


class Site:
    """The managers, each with a line of its own to each member, and the nodes."""

    def __init__(self, home: Path) -> None:
        self.etcd = Cluster(home / "etcd", size=3)
        self.lines = [[Relay(endpoint) for endpoint in self.etcd.endpoints] for _ in range(3)]
        store = {"kind": "etcd", "lease": 2, "compact": False, "timeout": 2}
        stores = [store | {"endpoints": [line.address for line in lines]} for lines in self.lines]
        self.managing = Managing(home, stores, sockets=True)
        self.client = Managers(self.managing.addresses)
        self.agents: list[AgentProcess] = []

    async def sets(self) -> dict[str, set[str]]:
        """What the managers hold, by container."""
        answer = await self.client.call(lambda stub: stub.ListPortSets, pb.ListPortSetsRequest(page_size=1000), within=20)
        return {one.owner.sandbox.container_id: _addresses(one) for one in answer.port_sets}

    async def journals(self) -> dict[str, set[str]]:
        """What the agents have, by container."""
        found = {}
        for agent in self.agents:
            for row in await agent.attachments():
                found[row.container_id] = _addresses(row.port_set)
        return found

    async def close(self) -> None:
        """Ends all."""
        await self.client.close()
        await asyncio.to_thread(self.managing.close)
        for lines in self.lines:
            for line in lines:
                line.close()
        self.etcd.close()


def _addresses(port_set: Any) -> set[str]:
    return {one.cidr.partition("/")[0] for port in port_set.ports for one in port.addresses}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    home = Path(tempfile.mkdtemp(prefix="kn-"))
    made = Site(home)
    try:
        subnet = types.Subnet(cidr="10.86.0.0/28", gateway="10.86.0.1")
        network = types.Network(tenant="admin", name="small", subnets=[subnet])
        network.rest.FromSeconds(0)
        await made.client.call(lambda stub: stub.CreateNetwork, pb.CreateNetworkRequest(network=network), within=30)
        with contextlib.ExitStack() as stack:
            for number in range(NODES):
                netns = stack.enter_context(network_namespace(f"node{number}"))
                more = {"node": f"n{number}", "managers": made.managing.addresses}
                made.agents.append(stack.enter_context(agent_in(netns, made.managing.addresses[0], **more)))
            yield made
    finally:
        await made.close()
        shutil.rmtree(home, ignore_errors=True)


async def insist(call: Callable[[], Awaitable[tuple[int, Any]]]) -> tuple[int, Any]:
    """The answer of an agent, as soon as there is one."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.05)


async def churn(agent: AgentProcess, netns: str, history: History, ending: asyncio.Event) -> None:
    """ADD and DEL in one namespace until the end; an ADD may fail while something is away."""
    while not ending.is_set():
        container = uuid.uuid4().hex
        try:
            code, answer = await agent.call("ADD", container, netns, "eth0", CONF)
        except grpc.aio.AioRpcError as error:
            code, answer = 1, {"msg": str(error.code())}
        if code == 0:
            holding = history.added(container, tuple(entry["address"].split("/")[0] for entry in answer["ips"]))
            await asyncio.sleep(random.uniform(0, 0.05))
            holding.until = time.monotonic()
        else:
            history.failed(f"ADD {container}: {answer}")
        assert await insist(lambda: agent.call("DEL", container, netns, "eth0", CONF)) == (0, None)  # noqa: B023


async def trouble(site: Site, order: random.Random) -> None:
    """One fault, for a moment; afterwards all is as before."""
    kind = order.choice(("agent", "kill", "stop", "cut"))
    if kind == "agent":
        agent = order.choice(site.agents)
        await asyncio.to_thread(agent.daemon.kill)
        await asyncio.sleep(order.uniform(0, 0.5))
        await agent.restart()
        return
    writer = await site.managing.writer(within=30)
    match kind:
        case "kill":
            await asyncio.to_thread(site.managing.managers[writer].kill)
        case "stop":
            site.managing.managers[writer].signal(signal.SIGSTOP)
        case "cut":
            for line in site.lines[writer]:
                line.cut()
    await site.managing.writer(but=writer, within=30)
    await asyncio.sleep(order.uniform(0, 1))
    match kind:
        case "kill":
            await site.managing.start(writer)
        case "stop":
            site.managing.managers[writer].signal(signal.SIGCONT)
        case "cut":
            for line in site.lines[writer]:
                line.mend()


async def agree(site: Site, held: dict[str, set[str]]) -> None:
    """Until the journals and the store, as any manager tells it, hold exactly this; undoing follows an answered DEL."""
    async with asyncio.timeout(30):
        while not (await site.journals() == held and await site.sets() == held):  # noqa: ASYNC110 - other processes do it
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("seed", [1, 2])
async def test_kernel_journals_and_store_agree_whatever_is_killed_stopped_or_cut(site: Site, seed: int) -> None:
    order, history, ending = random.Random(seed), History(), asyncio.Event()
    with contextlib.ExitStack() as stack:
        places = [
            (agent, stack.enter_context(network_namespace(f"s{number}x{index}")))
            for number, agent in enumerate(site.agents)
            for index in range(WORKERS)
        ]
        workers = [asyncio.create_task(churn(agent, netns, history, ending)) for agent, netns in places]
        try:
            for _ in range(FAULTS):
                await trouble(site, order)
                await asyncio.sleep(order.uniform(0.2, 0.8))
        finally:
            ending.set()
            await asyncio.gather(*workers)
        assert history.violations() == []
        assert len(history.holdings) > FAULTS, history.failures[:5]
        await agree(site, {})
        held = {}
        for agent, netns in places:
            container = uuid.uuid4().hex
            code, answer = await agent.call("ADD", container, netns, "eth0", CONF)
            assert code == 0, answer
            held[container] = {entry["address"].split("/")[0] for entry in answer["ips"]}
            shown = ip(netns, "addr", "show", "dev", "eth0")[0]["addr_info"]
            assert held[container] == {entry["local"] for entry in shown if entry["scope"] == "global"}
        await agree(site, held)
        for agent, netns in places:
            for container in held:
                assert await agent.call("DEL", container, netns, "eth0", CONF) == (0, None)
        await agree(site, {})
