"""`StreamAllocations`, durable on SQLite, against an echo of the same messages: both over grpc.aio, both in a process of their own.

The client keeps a window of messages under way, 1 or 16 operations each. The echo answers every operation with a set of the same
size, and does nothing else. Each round allocates and then releases, so that the store does not grow.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from knitter.v1 import manager_pb2, manager_pb2_grpc, types_pb2

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))

from measure import rates, report  # noqa: E402

WINDOW = 64  # messages under way
OPERATIONS = 1600  # a round
ROUNDS = 7


class Echo(manager_pb2_grpc.ManagerServiceServicer):
    """Answers each operation with a set of the usual size."""

    async def StreamAllocations(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        """The same number of outcomes, at once."""
        async for request in request_iterator:
            yield manager_pb2.StreamAllocationsResponse(
                outcomes=[
                    manager_pb2.AllocationOutcome(id=operation.id, port_set=_answer(operation))
                    for operation in request.operations
                ]
            )


def _answer(operation: Any) -> Any:
    port = types_pb2.Port(
        id="0123456789ab", network_id="0123456789ab", network="admin/bench", interface="eth0", mac="02:4b:00:00:00:01",
        addresses=[types_pb2.PortAddress(cidr="10.1.0.9/16", gateway="10.1.0.1")], type=1, node_gateway=True,
    )  # fmt: skip
    return types_pb2.PortSet(owner=operation.allocate.owner, tenant="admin", node="n", ports=[port], state=1, revision=1)


async def serve_echo() -> None:
    """The echo's process: prints its address."""
    server = grpc.aio.server()
    manager_pb2_grpc.add_ManagerServiceServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def stream(stub: Any, operations: list[Any], size: int) -> float:
    """Sends the operations, `size` a message; returns operations per second. Raises RuntimeError when one failed."""
    window, answered = asyncio.Semaphore(WINDOW), 0
    messages = [operations[start : start + size] for start in range(0, len(operations), size)]

    async def requests() -> AsyncIterator[Any]:
        for message in messages:
            await window.acquire()
            yield manager_pb2.StreamAllocationsRequest(operations=message)

    begin, owed = time.perf_counter(), 0
    call = stub.StreamAllocations(requests())
    async for response in call:
        for outcome in response.outcomes:
            if outcome.WhichOneof("result") == "error":
                raise RuntimeError(outcome.error.message)
        answered += len(response.outcomes)
        owed += len(response.outcomes)
        while owed >= size:
            owed -= size
            window.release()
        if answered == len(operations):
            break
    spent = time.perf_counter() - begin
    call.cancel()
    return len(operations) / spent


def allocations() -> tuple[list[Any], list[Any]]:
    """New owners' allocations, and the releases that undo them."""
    run = uuid.uuid4().hex[:12]
    owners = [types_pb2.Owner(named=types_pb2.NamedOwner(tenant="admin", name=f"{run}-{index}")) for index in range(OPERATIONS)]
    wish = types_pb2.Wish(network="admin/bench", interface="eth0")
    wanted = [
        manager_pb2.AllocationOperation(id=index + 1, allocate=manager_pb2.Allocation(owner=owner, node="n", wishes=[wish]))
        for index, owner in enumerate(owners)
    ]
    undone = [
        manager_pb2.AllocationOperation(id=index + 1, release=manager_pb2.Return(owner=owner)) for index, owner in enumerate(owners)
    ]
    return wanted, undone


async def measure(ours: str, echo: str) -> list[Any]:
    """Alternates the two."""
    async with grpc.aio.insecure_channel(ours) as mine, grpc.aio.insecure_channel(echo) as theirs:
        manager, other = manager_pb2_grpc.ManagerServiceStub(mine), manager_pb2_grpc.ManagerServiceStub(theirs)
        subnet = types_pb2.Subnet(cidr="10.1.0.0/16", gateway="10.1.0.1")
        network = types_pb2.Network(tenant="admin", name="bench", type=1, subnets=[subnet])
        await manager.CreateNetwork(manager_pb2.CreateNetworkRequest(network=network))
        one, sixteen, across = [], [], []
        for turn in range(ROUNDS + 1):
            wanted, undone = allocations()
            echo_one = await stream(other, wanted, 1)
            ours_one = await stream(manager, wanted, 1)
            await stream(manager, undone, 16)
            wanted, undone = allocations()
            echo_many = await stream(other, wanted, 16)
            ours_many = await stream(manager, wanted, 16)
            await stream(manager, undone, 16)
            if turn:
                one.append((ours_one, echo_one))
                sixteen.append((ours_many, echo_many))
                across.append((ours_many, echo_one))
    return [
        rates("1 operation a message", one, aim=0.5),
        rates("16 a message, echo at 1 a message", across, aim=1.3),
        rates("16 a message, echo at 16 a message", sixteen),
    ]


def main() -> int:
    """Starts the two servers, measures, ends them."""
    if sys.argv[1:] == ["--echo"]:
        asyncio.run(serve_echo())
        return 0
    with tempfile.TemporaryDirectory(prefix="knitter-bench-") as home:
        config = Path(home) / "manager.json"
        config.write_text(json.dumps({"listen": "127.0.0.1:0", "store": {"kind": "sqlite", "path": f"{home}/m.db"}}))
        read, write = os.pipe()
        binary = str(ROOT / "_output/bin/knitter-manager")
        manager = subprocess.Popen(
            [binary, "--config", str(config), "--ready-fd", str(write)], pass_fds=[write], stderr=subprocess.DEVNULL
        )
        os.close(write)
        echo = subprocess.Popen([sys.executable, __file__, "--echo"], stdout=subprocess.PIPE, text=True)
        try:
            with os.fdopen(read) as ready:
                ours = ready.readline().strip()
            assert echo.stdout is not None
            rows = asyncio.run(measure(ours, echo.stdout.readline().strip()))
        finally:
            for process in (manager, echo):
                process.terminate()
                process.wait()
    report("StreamAllocations on SQLite against an echo (rates)", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
