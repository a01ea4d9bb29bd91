"""A manager and monitors as processes, a folder of declarations, and nodes that watch."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from harness.daemons import Daemon, Daemons
from harness.monitor import WatchingNode, key_of
from knitter.v1 import manager_pb2 as pb
from knitter.v1 import manager_pb2_grpc, monitor_pb2, monitor_pb2_grpc
from knitter.v1 import types_pb2 as types
from knitter_common.errors import KnitterError, from_rpc_error


def declare(name: str, subnet: str, **spec: Any) -> str:
    """A network of the operator as YAML."""
    more = "".join(f", {key}: {value}" for key, value in spec.items())
    return (
        f"apiVersion: knitter.io/v1\nkind: Network\nmetadata: {{name: {name}, namespace: admin}}\n"
        f"spec: {{type: bridge, subnets: [{{cidr: {subnet}}}]{more}}}\n"
    )


class Stack:
    """A manager, and monitors that read one folder."""

    def __init__(self, daemons: Daemons, home: Path, monitors: int = 1) -> None:
        self.daemons, self.home = daemons, home
        self.folder = home / "conf"
        self.folder.mkdir()
        self.manager_config = {
            "listen": f"127.0.0.1:{free_port()}",
            "store": {"kind": "sqlite", "path": str(home / "manager.db")},
            "heartbeat": "500ms",
        }
        self.managers = [str(self.manager_config["listen"])]  # what the monitors are told
        self.monitors = [f"127.0.0.1:{free_port()}" for _ in range(monitors)]
        self.nodes: list[WatchingNode] = []

    async def start_manager(self) -> Daemon:
        """Returns when it serves."""
        return await self.daemons.start_soon("knitter-manager", self.manager_config)

    async def start_monitor(self, index: int = 0) -> Daemon:
        """One of the monitors; returns when it serves."""
        config = {
            "listen": self.monitors[index],
            "managers": self.managers,
            "folders": [{"name": "test", "path": str(self.folder)}],
            "files": {"settle": "20ms", "vanishGrace": "200ms"},
            "push": {"heartbeat": "500ms"},
        }
        return await self.daemons.start_soon("knitter-monitor", config, name=f"monitor{index}")

    async def manager(self, method: str, request: Any) -> Any:
        """One call. Raises KnitterError."""
        return await self._call(str(self.manager_config["listen"]), manager_pb2_grpc.ManagerServiceStub, method, request)

    async def problems(self) -> list[monitor_pb2.SourceProblem]:
        """What the monitor says is wrong with the folder."""
        request = monitor_pb2.ListSourcesRequest()
        response = await self._call(self.monitors[0], monitor_pb2_grpc.MonitorServiceStub, "ListSources", request)
        (source,) = response.sources
        assert source.name == "files:test"
        return list(source.problems)

    async def network(self, name: str) -> types.Network | None:
        """What the manager holds."""
        try:
            found: types.Network = (await self.manager("GetNetwork", pb.GetNetworkRequest(tenant="admin", name=name))).network
        except KnitterError as error:
            if error.reason in ("NETWORK_NOT_FOUND", "OBJECT_NOT_FOUND"):
                return None
            raise
        return found

    async def until_network(self, name: str, check: Callable[[types.Network | None], object]) -> types.Network | None:
        """Until the manager's network is as `check` wants it."""
        async with asyncio.timeout(15):
            while not check(found := await self.network(name)):  # noqa: ASYNC110 - another process changes it
                await asyncio.sleep(0.02)
        return found

    async def until_problems(self, check: Callable[[list[monitor_pb2.SourceProblem]], object]) -> list[monitor_pb2.SourceProblem]:
        """Until the folder's problems are as `check` wants them."""
        async with asyncio.timeout(15):
            while not check(found := await self.problems()):  # noqa: ASYNC110 - another process changes them
                await asyncio.sleep(0.02)
        return found

    async def allocate(self, node: str, name: str, network: str) -> types.PortSet:
        """A set for a sandbox on that node."""
        owner = types.Owner(sandbox=types.SandboxOwner(node=node, container_id=name, cni_network="knitter", interface="eth0"))
        wishes = [types.Wish(network=network, interface="eth0")]
        request = pb.AllocateRequest(allocation=pb.Allocation(owner=owner, node=node, wishes=wishes))
        made: types.PortSet = (await self.manager("Allocate", request)).port_set
        return made

    async def sets_of(self, node: str) -> set[str]:
        """The keys of the node's sets, as the manager holds them."""
        response = await self.manager("ListPortSets", pb.ListPortSetsRequest(node=node, page_size=1000))
        return {key_of(types.Change(port_set=found)) for found in response.port_sets}

    async def release(self, port_set: types.PortSet) -> None:
        """Gives a set up."""
        await self.manager("Release", pb.ReleaseRequest(release=pb.Return(owner=port_set.owner)))

    def watch(self, node: str) -> WatchingNode:
        """A node that watches from now on."""
        self.nodes.append(WatchingNode(node, *self.monitors))
        return self.nodes[-1]

    async def close(self) -> None:
        """Ends the nodes; the daemons are the fixture's."""
        for node in self.nodes:
            await node.close()

    async def _call(self, address: str, stub: Any, method: str, request: Any) -> Any:
        async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                return await getattr(stub(channel), method)(request, timeout=10)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from error


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def replace_file(path: Path, text: str) -> None:
    """As an editor does: a hidden file, renamed."""
    temporary = path.with_name("." + path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
