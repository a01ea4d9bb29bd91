"""A monitor that knows several managers: whichever of them is killed or stopped, what is declared is applied and what is allocated
is pushed, while the others run; and nothing that came in between is missed."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness.daemons import Daemons
from harness.etcd import shared
from harness.managers import Managing
from harness.monitor import WatchingNode, key_of
from harness.monitor_stack import Stack, declare, replace_file

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.managers import Managers

pytestmark = pytest.mark.timeout(120)


class Site(Stack):
    """Three managers over etcd, one monitor, one node."""

    def __init__(self, daemons: Daemons, home: Path, managing: Managing) -> None:
        super().__init__(daemons, home)
        self.managing, self.managers = managing, managing.addresses
        self.client = Managers(managing.addresses)

    async def applied(self, mtu: int) -> None:
        """Declares the network with another MTU; returns when the managers have it."""
        replace_file(self.folder / "a.yaml", declare("blue", "10.1.0.0/16", mtu=mtu))
        async with asyncio.timeout(30):
            while True:
                listed = await self.client.call(lambda stub: stub.ListNetworks, pb.ListNetworksRequest(), within=20)
                if mtu in [one.mtu for one in listed.networks]:
                    return
                await asyncio.sleep(0.05)

    async def pushed(self, node: WatchingNode, name: str) -> None:
        """Allocates a set of the node; returns when the node was told of it."""
        owner = types.Owner(sandbox=types.SandboxOwner(node=node.name, container_id=name, cni_network="k", interface="eth0"))
        wanted = pb.Allocation(owner=owner, node=node.name, wishes=[types.Wish(network="blue", interface="eth0")])
        made = await self.client.call(lambda stub: stub.Allocate, pb.AllocateRequest(allocation=wanted), within=30)
        key = key_of(types.Change(port_set=made.port_set))
        async with asyncio.timeout(30):
            while key not in node.state.keys(f"node/{node.name}"):  # noqa: ASYNC110 - another process tells it
                await asyncio.sleep(0.05)


@pytest.fixture
async def site(daemons: Daemons, tmp_path: Path) -> AsyncIterator[Site]:
    prefix = f"/test/{secrets.token_hex(6)}/"
    store = {"kind": "etcd", "endpoints": list(shared().endpoints), "prefix": prefix, "compact": False, "lease": 2}
    folder = tmp_path / "managers"
    folder.mkdir()
    managing = await asyncio.to_thread(Managing, folder, store)
    made = Site(daemons, tmp_path, managing)
    yield made
    await made.close()
    await made.client.close()
    await asyncio.to_thread(managing.close)


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_it_goes_on_with_the_managers_that_are_left(site: Site, fault: signal.Signals) -> None:
    managers = site.managing.managers
    await site.start_monitor()
    node = site.watch("n1")
    await site.applied(1400)
    await site.pushed(node, "c0")
    for number in range(3):
        managers[number].signal(fault)
        try:
            await site.applied(1401 + number)
            await site.pushed(node, f"c{number + 1}")
        finally:
            if fault is signal.SIGSTOP:
                managers[number].signal(signal.SIGCONT)
            else:
                await asyncio.to_thread(managers[number].wait)
                await site.managing.start(number)
    truth = {
        key_of(types.Change(port_set=one))
        for one in (await site.client.call(lambda stub: stub.ListPortSets, pb.ListPortSetsRequest(node="n1"))).port_sets
    }
    assert len(truth) == 4
    assert node.state.keys("node/n1") == truth
