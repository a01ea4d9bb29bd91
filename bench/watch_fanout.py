"""The monitor's push to many nodes, against a bare grpc.aio server that yields the same messages from prepared lists.

Server and clients are two processes. 1000 nodes watch, each with a few port sets on two networks. Measured: until every node is
synced; until a change of 2000 sets has arrived at their nodes; until a change on an overlay that all nodes carry has arrived at all
of them; memory of the server for each Watch and each port set.

    watch_fanout.py [--json] [--nodes N] [--sets N]
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from knitter.v1 import monitor_pb2 as pb
from knitter.v1 import monitor_pb2_grpc
from knitter.v1 import types_pb2 as types

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))

from measure import Row, paired, report  # noqa: E402

CHANNELS = 50  # connections that the watches share
OVERLAY_CHANGES = 20
ROUNDS = 3


def port_set(revision: int, node: int, number: int, kind: int, label: str = "") -> types.Change:
    """One set as it usually is: two ports with an address each."""
    owner = types.Owner(pod=types.PodOwner(namespace="bench", name=f"p{node}-{number}", uid="00000000-0000-0000-0000-000000000000"))
    ports = [
        types.Port(
            id=f"{node:06}{number:05}{index}", network_id=f"net{kind}{index}", network=f"bench/net{index}", interface=f"eth{index}",
            mac="02:4b:00:00:00:01", addresses=[types.PortAddress(cidr="10.1.0.9/16", gateway="10.1.0.1")], type=kind,
            node_gateway=True,
        )
        for index in range(2)
    ]  # fmt: skip
    made = types.PortSet(owner=owner, tenant="bench", node=f"n{node}", ports=ports, state=1, revision=revision, labels={"l": label})
    return types.Change(revision=revision, port_set=made)


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


class Plain(monitor_pb2_grpc.MonitorServiceServicer):
    """Yields what it is given for a node, and nothing else."""

    def __init__(self, sets: dict[str, list[types.Change]]) -> None:
        self.sets = sets
        self.queues: dict[str, asyncio.Queue[pb.WatchResponse]] = {}

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchResponse]:
        """Reset, Changes, Synced for each topic, then what comes."""
        queue = self.queues[request.node] = asyncio.Queue()
        for topic, changes in (("node/" + request.node, self.sets[request.node]), ("network/a", []), ("network/b", [])):
            yield pb.WatchResponse(topic=topic, reset=pb.TopicReset(epoch="e"))
            if changes:
                yield pb.WatchResponse(topic=topic, changes=pb.TopicChanges(changes=changes))
            yield pb.WatchResponse(topic=topic, synced=pb.TopicSynced(epoch="e", revision=1))
        while True:
            yield await queue.get()

    def push(self, node: str, change: types.Change) -> None:
        """One change for one node."""
        topic = "node/" + node
        self.queues[node].put_nowait(pb.WatchResponse(topic=topic, changes=pb.TopicChanges(changes=[change])))


async def serve(nodes: int, sets: int) -> None:
    """The server's process: both services, commanded over standard input."""
    from knitter_common.serve import ServerSettings, logs
    from knitter_monitor.config import PushSettings
    from knitter_monitor.connections import Connections
    from knitter_monitor.hub.facts import read
    from knitter_monitor.hub.hub import Hub
    from knitter_monitor.service import MonitorService

    logs.configure("bench", logs.LogSettings(level="error"))
    empty = resident()
    hub = Hub(PushSettings())
    hub.replace("e", (read(port_set(1, node, number, 1)) for node in range(nodes) for number in range(sets)), 1)
    loaded = resident()
    plain = Plain({f"n{node}": [port_set(1, node, number, 1) for number in range(sets)] for node in range(nodes)})
    addresses = []
    servers = []
    for service in (MonitorService(hub, Connections(time.time_ns), list, PushSettings(), time.time_ns), plain):
        server = grpc.aio.server(maximum_concurrent_rpcs=ServerSettings().max_concurrent_calls)
        monitor_pb2_grpc.add_MonitorServiceServicer_to_server(service, server)
        addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        servers.append(server)
    print(json.dumps({"addresses": addresses, "empty": empty, "loaded": loaded}), flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    revision = 1
    while line := (await commands.readline()).decode().split():
        match line:
            case ["ours", count]:
                for index in range(int(count)):
                    revision += 1
                    hub.apply([read(port_set(revision, index % nodes, index // nodes % sets, 1, str(revision)))])
            case ["plain", count]:
                for index in range(int(count)):
                    revision += 1
                    plain.push(f"n{index % nodes}", port_set(revision, index % nodes, index // nodes % sets, 1, str(revision)))
            case ["overlay-ours", node]:
                revision += 1
                hub.apply([read(port_set(revision, int(node), 9, 2, str(revision)))])
            case ["overlay-plain", node]:
                revision += 1
                change = port_set(revision, int(node), 9, 2, str(revision))
                for name in plain.queues:
                    plain.push(name, change)
                    plain.push(name, change)
            case ["overlay-begin"]:
                for node in range(nodes):
                    revision += 1
                    hub.apply([read(port_set(revision, node, 9, 2))])
        print(json.dumps({"resident": resident()}), flush=True)
    await asyncio.gather(*(server.stop(0) for server in servers))


class Server:
    """The server's process, seen from here."""

    def __init__(self, nodes: int, sets: int) -> None:
        command = [sys.executable, __file__, "--serve", "--nodes", str(nodes), "--sets", str(sets)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.told = self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line it prints."""
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def say(self, command: str) -> None:
        """A command; its answer is to be read."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()


class Nodes:
    """All nodes' watches; counts what arrives."""

    def __init__(self, address: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(CHANNELS)]
        self.synced = self.changes = 0
        self.arrived = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def watch(self, nodes: int) -> None:
        """Until every node has its topics."""
        stubs: list[Any] = [monitor_pb2_grpc.MonitorServiceStub(channel) for channel in self.channels]
        for node in range(nodes):
            self.tasks.append(asyncio.create_task(self._node(stubs[node % CHANNELS].Watch(pb.WatchRequest(node=f"n{node}")))))
        await self.until(lambda: self.synced >= nodes * 3)

    async def until(self, check: Any) -> None:
        """Until it is true."""
        while not check():
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 60)

    async def _node(self, call: Any) -> None:
        async for message in call:
            if message.HasField("synced"):
                self.synced += 1
            elif message.HasField("changes"):
                self.changes += len(message.changes.changes)
            self.arrived.set()

    async def close(self) -> None:
        """Ends all."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in self.channels))


async def timed(server: Server, nodes: Nodes, command: str, expected: int) -> float:
    """Seconds until that many changes have arrived."""
    target, begin = nodes.changes + expected, time.perf_counter()
    server.say(command)
    await nodes.until(lambda: nodes.changes >= target)
    took = time.perf_counter() - begin
    server.answer()
    return took


async def measure(count: int, sets: int) -> list[Row]:
    """All rows."""
    server = Server(count, sets)
    synced: list[list[float]] = [[], []]
    single: list[list[float]] = [[], []]
    overlay: list[list[float]] = [[], []]
    before = after = 0.0
    changes = min(2000, count * sets)  # each set once: who is behind is sent the newest state only
    for round_number in range(ROUNDS):
        both = [Nodes(address) for address in server.told["addresses"]]
        server.say("overlay-none")
        before = server.answer()["resident"] if not round_number else before
        for index, nodes in enumerate(both):
            begin = time.perf_counter()
            await nodes.watch(count)
            synced[index].append(time.perf_counter() - begin)
            if not round_number and not index:
                server.say("overlay-none")
                after = server.answer()["resident"]
        for index, (nodes, name) in enumerate(zip(both, ("ours", "plain"), strict=True)):
            single[index].append(await timed(server, nodes, f"{name} {changes}", changes))
        if round_number == ROUNDS - 1:
            server.say("overlay-begin")
            await asyncio.sleep(0)
            server.answer()
            await both[0].until(lambda nodes=both[0]: nodes.synced >= count * 5)
            for _ in range(OVERLAY_CHANGES):  # the change comes in two topics here, the bare server sends two messages
                for index, (nodes, name) in enumerate(zip(both, ("overlay-ours 0", "overlay-plain 0"), strict=True)):
                    overlay[index].append(await timed(server, nodes, name, count * 2 + (index == 0)))  # its own node's topic
        for nodes in both:
            await nodes.close()
    assert server.process.stdin is not None
    server.process.stdin.close()
    server.process.wait(30)
    each = (server.told["loaded"] - server.told["empty"]) * 1024 / (count * sets)
    return [
        paired(f"{count} nodes x {sets} sets: until all are synced", list(zip(*synced, strict=True))),
        paired(f"a change of {changes} sets, each to its node", list(zip(*single, strict=True))),
        paired(f"one change to {count} nodes, in two topics", list(zip(*overlay, strict=True))),
        Row("memory of a port set", note=f"{each:.2f} KiB"),
        Row("memory of an open Watch", note=f"{(after - before) * 1024 / count:.1f} KiB"),
    ]


def main() -> int:
    """Both processes begin here."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--sets", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.nodes, arguments.sets))
        return 0
    report("The push to the nodes, against a bare gRPC server", asyncio.run(measure(arguments.nodes, arguments.sets)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
