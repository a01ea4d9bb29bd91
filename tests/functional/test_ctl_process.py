"""knitterctl as a process against a stand-in for the manager: pages, the writer among several, time-outs, pipes, completion."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from harness.ctl import KNITTERCTL, ctl, environment

from knitter.v1 import manager_pb2 as manager
from knitter.v1 import manager_pb2_grpc
from knitter.v1 import types_pb2 as types
from knitter_common.errors import NotFound, Unavailable
from knitter_common.serve.interceptor import ErrorInterceptor
from knitter_common.version import __version__


class StandIn(manager_pb2_grpc.ManagerServiceServicer):
    """Networks in a dict, pages of three, and what the tests need to go wrong."""

    def __init__(self) -> None:
        self.networks: dict[tuple[str, str], types.Network] = {}
        self.writer = ""  # another manager's address
        self.asked: list[str] = []
        self.revision = 0

    async def CreateNetwork(self, request: Any, context: Any) -> Any:
        self._write("CreateNetwork")
        network = types.Network()
        network.CopyFrom(request.network)
        return manager.CreateNetworkResponse(network=self._store(network))

    async def UpdateNetwork(self, request: Any, context: Any) -> Any:
        self._write("UpdateNetwork")
        current = self.networks[request.network.tenant, request.network.name]
        if current == request.network:
            return manager.UpdateNetworkResponse(network=current)
        network = types.Network()
        network.CopyFrom(request.network)
        return manager.UpdateNetworkResponse(network=self._store(network))

    async def GetNetwork(self, request: Any, context: Any) -> Any:
        self.asked.append("GetNetwork")
        found = self.networks.get((request.tenant, request.name))
        if found is None:
            raise NotFound("NETWORK_NOT_FOUND", f"there is no network {request.tenant}/{request.name}")
        return manager.GetNetworkResponse(network=found)

    async def ListNetworks(self, request: Any, context: Any) -> Any:
        self.asked.append("ListNetworks")
        start = int(request.page_token or 0)
        found = sorted(self.networks.values(), key=lambda network: (network.tenant, network.name))
        found = [network for network in found if request.tenant in ("", network.tenant)]
        token = str(start + 3) if start + 3 < len(found) else ""
        return manager.ListNetworksResponse(networks=found[start : start + 3], next_page_token=token)

    async def ListNodes(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(60)

    async def Changes(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.asked.append(f"Changes {request.after_revision}")
        if not request.after_revision:
            yield manager.ChangesResponse(reset=manager.FeedReset(epoch="e"))
            yield manager.ChangesResponse(synced=manager.FeedSynced(epoch="e", revision=5))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        batch = manager.ChangeBatch(changes=[types.Change(revision=6, network=types.Network(id="i", tenant="t1", name="late"))])
        yield manager.ChangesResponse(changes=batch)
        await asyncio.sleep(60)

    def put(self, tenant: str, name: str) -> None:
        self._store(types.Network(tenant=tenant, name=name, type=types.NETWORK_TYPE_BRIDGE, state=types.OBJECT_STATE_ACTIVE))

    def _write(self, call: str) -> None:
        self.asked.append(call)
        if self.writer:
            raise Unavailable("NOT_WRITER", "another one writes", writer=self.writer)

    def _store(self, network: types.Network) -> types.Network:
        self.revision += 1
        network.revision, network.source, network.state = self.revision, "api", types.OBJECT_STATE_ACTIVE
        self.networks[network.tenant, network.name] = network
        return network


async def serve(servicer: StandIn) -> tuple[Any, str]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    manager_pb2_grpc.add_ManagerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


@pytest.fixture
async def stand_in() -> AsyncIterator[tuple[StandIn, str]]:
    servicer = StandIn()
    server, address = await serve(servicer)
    yield servicer, address
    await server.stop(0)


NETWORK = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: %s, namespace: t1}
spec: {subnets: [{cidr: 10.1.0.0/24}]}
---
"""


async def test_a_list_is_fetched_page_by_page(stand_in: tuple[StandIn, str]) -> None:
    servicer, address = stand_in
    for number in range(8):
        servicer.put("t1", f"net{number}")
    result = await ctl("get", "networks", "--no-headers", manager=address)
    assert (result.code, result.err) == (0, "")
    assert [row[1] for row in result.rows()] == [f"net{number}" for number in range(8)]
    assert servicer.asked.count("ListNetworks") == 3


async def test_a_write_goes_to_the_writer_that_is_named(stand_in: tuple[StandIn, str]) -> None:
    servicer, address = stand_in
    follower = StandIn()
    follower.writer = address
    server, other = await serve(follower)
    try:
        result = await ctl("apply", "-f", "-", "--manager", other, stdin=NETWORK % "control")
        assert (result.code, result.out) == (0, "network/t1/control created\n"), result.err
        assert ("t1", "control") in servicer.networks
        assert "CreateNetwork" in follower.asked
    finally:
        await server.stop(0)


async def test_the_other_manager_is_asked_when_one_is_dead(stand_in: tuple[StandIn, str]) -> None:
    servicer, address = stand_in
    servicer.put("t1", "control")
    result = await ctl("--manager", f"127.0.0.1:1,{address}", "get", "net", "-o", "name")
    assert (result.code, result.out) == (0, "network/t1/control\n"), result.err


async def test_apply_creates_configures_and_leaves_alone(stand_in: tuple[StandIn, str]) -> None:
    servicer, address = stand_in
    assert (await ctl("apply", "-f", "-", manager=address, stdin=NETWORK % "a")).out == "network/t1/a created\n"
    assert (await ctl("apply", "-f", "-", manager=address, stdin=NETWORK % "a")).out == "network/t1/a unchanged\n"
    wider = (NETWORK % "a").replace("/24", "/16").replace("10.1", "10.2")
    assert (await ctl("apply", "--dry-run", "-f", "-", manager=address, stdin=wider)).out == "network/t1/a configured (dry run)\n"
    assert servicer.networks["t1", "a"].subnets[0].cidr == "10.1.0.0/24"
    assert (await ctl("apply", "-f", "-", manager=address, stdin=wider)).out == "network/t1/a configured\n"


async def test_what_names_no_namespace_is_admins_or_that_of_the_option(stand_in: tuple[StandIn, str]) -> None:
    text = (NETWORK % "a").replace(", namespace: t1", "")
    assert (await ctl("apply", "-f", "-", manager=stand_in[1], stdin=text)).out == "network/admin/a created\n"
    assert (await ctl("apply", "-n", "t2", "-f", "-", manager=stand_in[1], stdin=text)).out == "network/t2/a created\n"


async def test_a_bad_input_sends_nothing(stand_in: tuple[StandIn, str]) -> None:
    servicer, address = stand_in
    result = await ctl("apply", "-f", "-", manager=address, stdin=NETWORK % "good" + NETWORK.replace("cidr", "cdir") % "bad")
    assert result.code == 2
    assert "cdir" in result.err
    assert "way out:" in result.err
    assert servicer.asked == []


async def test_what_is_not_there_is_told_with_where_it_is(stand_in: tuple[StandIn, str]) -> None:
    servicer, address = stand_in
    servicer.put("t1", "control")
    result = await ctl("get", "network", "control", manager=address)
    assert result.code == 3
    assert result.err.startswith("error: NETWORK_NOT_FOUND: ")
    assert "network/t1/control" in result.err


async def test_an_absent_manager_is_unavailable() -> None:
    result = await ctl("get", "networks", "--timeout", "0.3", manager="127.0.0.1:1")
    assert result.code == 5
    assert "127.0.0.1:1" in result.err


async def test_a_silent_agent_and_a_silent_monitor_are_named() -> None:
    agent = await ctl("attachments", "--agent", "unix:/nowhere/agent.sock", "--timeout", "1")
    assert (agent.code, agent.out) == (5, "")
    assert agent.err.startswith("error: AGENT_UNAVAILABLE: no agent answers at unix:/nowhere/agent.sock")
    for command in ("connections", "sources"):
        monitor = await ctl(command, "--monitor", "127.0.0.1:1", "--timeout", "1")
        assert monitor.code == 5
        assert "no monitor answers at 127.0.0.1:1" in monitor.err


async def test_the_time_out_is_kept(stand_in: tuple[StandIn, str]) -> None:
    result = await ctl("get", "nodes", "--timeout", "0.3", manager=stand_in[1], within=10)
    assert result.code == 5


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "pods"),
        ("get", "nodes", "--network", "control"),
        ("get", "networks", "--manager", "nowhere"),
        ("get", "networks", "--output", "xml"),
        ("apply",),
        ("apply", "-f", "/does/not/exist.yaml"),
        ("delete", "network"),
        ("delete", "network", "a", "-f", "b"),
        ("allocate", "--network", "control"),
        ("allocate", "--network", "control=x", "--owner", "t1/db"),
        ("release", "--owner", "db"),
        ("watch", "-o", "yaml"),
        ("frobnicate",),
    ],
)
async def test_bad_usage_ends_with_2_and_sends_nothing(arguments: tuple[str, ...], stand_in: tuple[StandIn, str]) -> None:
    result = await ctl(*arguments, manager=stand_in[1])
    assert (result.code, result.out) == (2, ""), result.err
    assert result.err
    assert stand_in[0].asked == []


async def test_watch_takes_a_cut_feed_up_again_and_ends_on_interrupt(stand_in: tuple[StandIn, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        KNITTERCTL, "watch", "networks", stdout=asyncio.subprocess.PIPE, env=environment(stand_in[1])
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        line = await process.stdout.readline()
        assert line.split()[:3] == [b"6", b"added", b"network/t1/late"]
        assert stand_in[0].asked[:2] == ["Changes 0", "Changes 5"]
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def test_a_reader_that_has_enough_is_no_error(stand_in: tuple[StandIn, str]) -> None:
    for number in range(3000):
        stand_in[0].put("t1", f"network-with-a-long-name-{number}")
    shell = await asyncio.create_subprocess_exec(
        "bash", "-c", f"set -o pipefail; {KNITTERCTL} get networks | head -n 1", stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=environment(stand_in[1]),
    )  # fmt: skip
    out, err = await shell.communicate()
    assert (shell.returncode, err) == (0, b"")
    assert out.startswith(b"TENANT")


async def test_version_is_told_without_a_manager() -> None:
    for arguments in (("--version",), ("version",)):
        assert (await ctl(*arguments)).out == f"knitterctl {__version__}\n"


async def test_bash_completes_commands_and_kinds() -> None:
    assert (await ctl("completion", "bash")).out.startswith("_knitterctl_completion() {")
    words = {"COMP_WORDS": "knitterctl get n", "COMP_CWORD": "2", "_KNITTERCTL_COMPLETE": "complete_bash"}
    assert (await ctl(**words)).out.split() == ["networks", "nodes"]
