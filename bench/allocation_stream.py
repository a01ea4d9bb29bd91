"""`StreamAllocations`, durable on SQLite and on etcd (one member on this machine), against an echo of the same messages: each over
grpc.aio, each in a process of its own.

The client keeps a window of messages under way, 1 or 16 operations each. The echo answers every operation with a set of the same
size, and does nothing else. There are two: one has grpc as it comes, as the client has it for all, and the aims are about that one;
the other has grpc's polling as our daemons choose it (knitter_common/__init__.py). Each round allocates and then releases, so that
the store does not grow.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc

from knitter.v1 import manager_pb2, manager_pb2_grpc, types_pb2

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

from measure import Row, rates, report  # noqa: E402
from running import ManagerProcess  # noqa: E402

from knitter_common import GRPC_POLLING  # noqa: E402 after grpc, which is to be as it comes here

WINDOW = 64  # messages under way
OPERATIONS = 1600  # a round
ROUNDS = 25
PLAIN, ALIKE = "echo", "echo polled alike"
# operations in one of our messages, which echo, and operations in one of its messages
CASES = ((1, PLAIN, 1), (16, PLAIN, 1), (16, PLAIN, 16), (1, ALIKE, 1), (16, ALIKE, 1))
AIMS = {("SQLite", 1, PLAIN, 1): 0.5, ("SQLite", 16, PLAIN, 1): 1.3}


class Echo(manager_pb2_grpc.ManagerServiceServicer):
    """Answers each operation with a set of the usual size."""

    async def StreamAllocations(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        """The same number of outcomes, at once."""
        async for request in request_iterator:
            yield manager_pb2.StreamAllocationsResponse(
                outcomes=[
                    manager_pb2.AllocationOutcome(id=operation.id, port_set=_answer(operation)) for operation in request.operations
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


@contextmanager
def echo_process(environment: Mapping[str, str]) -> Iterator[str]:
    """An echo in a process of its own: its address."""
    command = [sys.executable, __file__, "--echo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


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


def allocations(network: str = "admin/bench", count: int = OPERATIONS) -> tuple[list[Any], list[Any]]:
    """New owners' allocations, and the releases that undo them."""
    run = uuid.uuid4().hex[:12]
    owners = [types_pb2.Owner(named=types_pb2.NamedOwner(tenant="admin", name=f"{run}-{index}")) for index in range(count)]
    wish = types_pb2.Wish(network=network, interface="eth0")
    wanted = [
        manager_pb2.AllocationOperation(id=index + 1, allocate=manager_pb2.Allocation(owner=owner, node="n", wishes=[wish]))
        for index, owner in enumerate(owners)
    ]
    undone = [
        manager_pb2.AllocationOperation(id=index + 1, release=manager_pb2.Return(owner=owner)) for index, owner in enumerate(owners)
    ]
    return wanted, undone


async def measure(managers: Mapping[str, str], echoes: Mapping[str, str]) -> list[Row]:
    """Alternates them all. `managers` maps a store to an address, `echoes` a kind."""
    rates_of: dict[tuple[str, int], list[float]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        stubs = {}
        for name, address in {**echoes, **managers}.items():
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            stubs[name] = manager_pb2_grpc.ManagerServiceStub(channel)
        subnet = types_pb2.Subnet(cidr="10.1.0.0/16", gateway="10.1.0.1")
        network = types_pb2.Network(tenant="admin", name="bench", type=1, subnets=[subnet])
        for name in managers:
            await stubs[name].CreateNetwork(manager_pb2.CreateNetworkRequest(network=network))
        for turn in range(ROUNDS + 1):
            for size in (1, 16):
                for name, stub in stubs.items():
                    wanted, undone = allocations()
                    rate = await stream(stub, wanted, size)
                    if name in managers:
                        await stream(stub, undone, 16)
                    if turn:
                        rates_of[name, size].append(rate)
    rows = []
    for name in managers:
        for size, echo, other in CASES:
            pairs = list(zip(rates_of[name, size], rates_of[echo, other], strict=True))
            rows.append(rates(f"{name}: {size} a message, {echo} at {other}", pairs, aim=AIMS.get((name, size, echo, other))))
    return rows


def etcd_of(stack: ExitStack, home: Path) -> str:
    """The endpoint of an etcd of one member; "" where there can be none, which is told."""
    from harness import etcd

    if reason := etcd.why_not():
        print(f"etcd is left out: {reason}", file=sys.stderr)
        return ""
    return stack.enter_context(etcd.Cluster(home)).endpoints[0]


def main() -> int:
    """Starts the servers, measures, ends them."""
    if sys.argv[1:] == ["--echo"]:
        asyncio.run(serve_echo())
        return 0
    with tempfile.TemporaryDirectory(prefix="knitter-bench-") as home, ExitStack() as stack:
        stores: dict[str, dict[str, Any]] = {"SQLite": {"kind": "sqlite", "path": f"{home}/m.db"}}
        if endpoint := etcd_of(stack, Path(home) / "etcd"):
            stores["etcd"] = {"kind": "etcd", "endpoints": [endpoint]}
        managers = {}
        for name, store in stores.items():
            folder = Path(home) / f"manager-{name}"
            folder.mkdir()
            managers[name] = stack.enter_context(ManagerProcess(folder, store)).address
        without = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
        polling = {PLAIN: without, ALIKE: {**without, "GRPC_EXPERIMENTS": GRPC_POLLING}}
        echoes = {name: stack.enter_context(echo_process(environment)) for name, environment in polling.items()}
        rows = asyncio.run(measure(managers, echoes))
    report("StreamAllocations against an echo (rates)", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
