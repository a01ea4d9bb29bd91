"""What one allocation costs, against the size of the pool and against what is held: a /8 or a /64 must cost what a /24 does.

In process: the manager's own work alone, from the wish to the answer, on a store that does nothing, batches of 16 side by side, in
processor time. Over the stream: a manager on SQLite, 64 operations under way. All cases in turns; each ratio is against the empty
/24 of the same round. "held" is what is held when a batch is done.

    ipam_cost.py [--json] [--held N] [--rounds N]
"""

import argparse
import asyncio
import gc
import ipaddress
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import grpc
import structlog

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

from allocation_stream import allocations, stream  # noqa: E402
from held import NoStore, bench_network, core_on, records  # noqa: E402
from measure import Row, paired, report  # noqa: E402
from running import ManagerProcess  # noqa: E402

from knitter.v1 import manager_pb2, manager_pb2_grpc  # noqa: E402
from knitter_common.convert import network_to_proto  # noqa: E402
from knitter_common.model import Allocation, NamedOwner, Return, Wish  # noqa: E402
from knitter_manager import keys  # noqa: E402
from knitter_manager.core import Core  # noqa: E402
from knitter_manager.records import port_set_of  # noqa: E402
from knitter_manager.store.protocol import Record  # noqa: E402

BATCH = 16
BATCHES = 5  # of one case in one round
OPERATIONS = 240  # of one case in one round, over the stream: a /24 has room for them
AIM = 1.2

# name, CIDR, how much of it is held, in percent
CASES = (
    ("/24", "10.1.0.0/24", 0),
    ("/24, 50 % held", "10.1.1.0/24", 50),
    ("/24, 99 % held", "10.1.2.0/24", 99),
    ("/16", "10.2.0.0/16", 0),
    ("/16, 50 % held", "10.3.0.0/16", 50),
    ("/16, 99 % held", "10.4.0.0/16", 99),
    ("/8", "11.0.0.0/8", 0),
    ("/64", "2001:db8:1::/64", 0),
)


class Case:
    """One network of a manager in this process."""

    def __init__(self, name: str, core: Core, path: str) -> None:
        self.name, self._core = name, core
        self._wishes = (Wish(network=path, interface="eth0"),)
        self._count = 0
        self.alone: list[float] = []  # processor seconds for the allocations of a batch, the median of a round
        self.both: list[float] = []  # the same with the releases that follow

    async def round(self) -> None:
        """Adds one figure to each list."""
        self.alone.append(statistics.median([await self._allocated() for _ in range(BATCHES)]))
        self.both.append(statistics.median([await self._allocated_and_released() for _ in range(BATCHES)]))

    async def _allocated(self) -> float:
        """Processor seconds for one batch of addresses that were never used, or so it will seem to the next one."""
        owners, wanted = self._batch()
        begin = time.thread_time()
        made = await asyncio.gather(*[self._core.sets.allocate(one) for one in wanted])
        spent = time.thread_time() - begin
        gone = [keys.port_set(owner.key) for owner in owners]
        for record in made:
            port = port_set_of(record or b"").ports[0]
            gone.append(keys.address(port.network_id, port.addresses[0].cidr.partition("/")[0]))
        await self._core.committer.commit({}, {}, gone)
        return spent

    async def _allocated_and_released(self) -> float:
        owners, wanted = self._batch()
        begin = time.thread_time()
        await asyncio.gather(*[self._core.sets.allocate(one) for one in wanted])
        await asyncio.gather(*[self._core.sets.release(Return(owner=owner)) for owner in owners])
        return time.thread_time() - begin

    def _batch(self) -> tuple[list[NamedOwner], list[Allocation]]:
        self._count += 1
        owners = [NamedOwner("admin", f"{self._wishes[0].network[6:]}-{self._count:06}-{number:02}") for number in range(BATCH)]
        return owners, [Allocation(owner=owner, node="node-0001", wishes=self._wishes) for owner in owners]


async def cases(told: Sequence[tuple[str, str, int]]) -> list[Case]:
    """The networks (name, CIDR, held) of one new manager."""
    state: list[Record] = []
    paths = []
    for number, (_, cidr, count) in enumerate(told):
        shape = bench_network(f"n{number}", cidr)
        paths.append(shape.path)
        state += await records(shape, count, f"w{number}")
    core = await core_on(NoStore(sorted(state)))
    return [Case(name, core, path) for (name, *_), path in zip(told, paths, strict=True)]


async def in_process(held: int, rounds: int) -> list[Row]:
    """The manager alone."""
    small = []
    for name, cidr, fill in CASES:
        size = ipaddress.ip_network(cidr).num_addresses - 3  # without network, broadcast and gateway
        small.append((name, cidr, max(0, size * fill // 100 - BATCH) if fill else 0))
    large = [(f"{name}, {held:,} held", cidr, held) for name, cidr in (("/8", "11.0.0.0/8"), ("/64", "2001:db8:1::/64"))]
    large.append((f"/24, {2 * held:,} held in others", "10.1.0.0/24", 0))
    every = await cases(small) + await cases(large)
    gc.collect()
    gc.freeze()  # as a daemon does once it serves
    for turn in range(rounds + 1):
        for case in every[turn % len(every) :] + every[: turn % len(every)]:
            await case.round()
    rows = []
    for what, figures in (("", [case.alone[1:] for case in every]), (", with its release", [case.both[1:] for case in every])):
        rows += compared([f"{case.name}{what}" for case in every], figures, BATCH, f"in process{what}")
    return rows


def compared(names: Sequence[str], figures: Sequence[Sequence[float]], operations: int, place: str) -> list[Row]:
    """A row for each case against the first, and one for the dearest against the cheapest. Figures are seconds."""
    rows = []
    for name, mine in zip(names, figures, strict=True):
        micro = statistics.median(mine) / operations * 1e6
        row = paired(name, list(zip(mine, figures[0], strict=True)), note=f"{micro:.0f} µs each")
        rows.append(replace(row, ours_ms=None, reference_ms=None))
    ratios = [row.ratio or 1.0 for row in rows]
    rows.append(Row(f"dearest against cheapest, {place}", max(ratios) / min(ratios), aim=AIM))
    return rows


async def over_stream(address: str, rounds: int) -> list[Row]:
    """End to end, on SQLite."""
    names = [(name, cidr) for name, cidr, fill in CASES if not fill]
    figures: list[list[float]] = [[] for _ in names]
    async with grpc.aio.insecure_channel(address) as channel:
        stub = manager_pb2_grpc.ManagerServiceStub(channel)
        for number, (_, cidr) in enumerate(names):
            message = network_to_proto(bench_network(f"n{number}", cidr))
            await stub.CreateNetwork(manager_pb2.CreateNetworkRequest(network=message))
        for turn in range(rounds + 1):
            for number in range(len(names)):
                wanted, undone = allocations(f"admin/n{number}", OPERATIONS)
                rate = await stream(stub, wanted, 1)
                await stream(stub, undone, 16)
                if turn:
                    figures[number].append(OPERATIONS / rate)
    return compared([f"{name}, over the stream" for name, _ in names], figures, OPERATIONS, "over the stream")


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held", type=int, default=250_000, help="addresses that are held in the /8, and in the /64")
    parser.add_argument("--rounds", type=int, default=25)
    arguments, _ = parser.parse_known_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    rows = asyncio.run(in_process(arguments.held, arguments.rounds))
    with tempfile.TemporaryDirectory(prefix="knitter-bench-") as home, ManagerProcess(Path(home)) as manager:
        rows += asyncio.run(over_stream(manager.address, arguments.rounds))
    report("One allocation, against the empty /24", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
