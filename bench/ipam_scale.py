"""A manager with very many held addresses, one to a set, on SQLite: memory per held address, and the time until it serves.

The file is made once and kept in $KNITTER_BENCH_CACHE, else in the folder for temporary files. Memory is what a manager that has
started on it has more than one that has started on an empty file; and what one has more once it has allocated so many by itself,
after it has filled what is bounded: the feed's ring, the store's tail, caches.

    ipam_scale.py [--json] [--held N] [--allocated N]
"""

import argparse
import asyncio
import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import grpc
import structlog

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

from allocation_stream import stream  # noqa: E402
from held import bench_network, owner, records  # noqa: E402
from measure import Row, report  # noqa: E402
from running import ManagerProcess  # noqa: E402

from knitter.v1 import manager_pb2, manager_pb2_grpc, types_pb2  # noqa: E402
from knitter_common.convert import network_to_proto, owner_to_proto  # noqa: E402
from knitter_manager.store.protocol import Record  # noqa: E402
from knitter_manager.store.sqlite import SqliteStore  # noqa: E402
from knitter_manager.store.sqlite.file import SCHEMA  # noqa: E402

ROUNDS = 3
COMMIT = 3000  # records in one commit while the file is made
SLICE = 10_000  # allocations that the client makes at once
FILLING = 30_000  # allocations until what is bounded is full
MEMORY_AIM = 700  # bytes for each held address
START_AIM = 10.0  # seconds for each million


async def prepared(held: int) -> Path:
    """The file with so many held addresses, from an earlier run if it has the same."""
    found = await records(bench_network("held", "11.0.0.0/8"), held)
    mark = hashlib.sha256(repr((SCHEMA, held, [record.value for record in found[-100:]])).encode())
    cache = Path(os.environ.get("KNITTER_BENCH_CACHE", Path(tempfile.gettempdir()) / "knitter-bench-cache"))
    path = cache / f"held-{held}-{mark.hexdigest()[:12]}.db"
    if not path.exists():
        cache.mkdir(exist_ok=True)
        making = cache / f"making-{os.getpid()}.db"
        await _make(making, found)
        making.rename(path)
    return path


async def _make(path: Path, found: Sequence[Record]) -> None:
    store = await SqliteStore.open(path)
    await store.acquire_writer("bench")
    for begin in range(0, len(found), COMMIT):
        await store.commit([], {record.key: record.value for record in found[begin : begin + COMMIT]})
    await store.compact(2**62)
    await store.close()


async def allocate(address: str, first: int, after: int) -> None:
    """Has a manager allocate for the pods of these numbers."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = manager_pb2_grpc.ManagerServiceStub(channel)
        message = network_to_proto(bench_network("held", "11.0.0.0/8"))
        await stub.CreateNetwork(manager_pb2.CreateNetworkRequest(network=message))
        for begin in range(first, after, SLICE):
            await stream(stub, [_operation(number) for number in range(begin, min(after, begin + SLICE))], 16)


def _operation(number: int) -> manager_pb2.AllocationOperation:
    wish = types_pb2.Wish(network="admin/held", interface="eth0")
    wanted = manager_pb2.Allocation(owner=owner_to_proto(owner("web", number)), node=f"node-{number % 1000:04}", wishes=[wish])
    return manager_pb2.AllocationOperation(id=number + 1, allocate=wanted)


def started(path: Path, held: int) -> tuple[Row, Row]:
    """Start and memory of a manager on that file against one on an empty file."""
    seconds, grown = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="knitter-bench-") as home, ManagerProcess(Path(home)) as empty:
            small, quick = empty.resident(), empty.seconds
        with (
            tempfile.TemporaryDirectory(prefix="knitter-bench-") as home,
            ManagerProcess(Path(home), {"kind": "sqlite", "path": str(path)}) as full,
        ):
            grown.append((full.resident() - small) / held)
            seconds.append((full.seconds - quick, full.seconds, quick))
    more, whole, alone = sorted(seconds)[ROUNDS // 2]
    per_million = more / held * 1e6
    size = sorted(grown)[ROUNDS // 2]
    return (
        Row(
            f"start with {held:,} held against an empty start", whole / alone, ours_ms=whole * 1000, reference_ms=alone * 1000,
            note=f"{per_million:.1f} s for each million more; aim {START_AIM:.0f}",
        ),
        Row(f"memory for each held address, {held:,} loaded", note=f"{size:.0f} bytes; aim {MEMORY_AIM}"),
    )  # fmt: skip


def grown_by(count: int) -> Row:
    """Memory that allocating takes."""
    with tempfile.TemporaryDirectory(prefix="knitter-bench-") as home, ManagerProcess(Path(home)) as manager:
        empty = manager.resident()
        asyncio.run(allocate(manager.address, 0, FILLING))
        before = manager.resident()
        asyncio.run(allocate(manager.address, FILLING, FILLING + count))
        size = (manager.resident() - before) / count
    bounded = (before - empty - FILLING * size) / 2**20
    note = f"{size:.0f} bytes; aim {MEMORY_AIM}; what is bounded takes {bounded:.0f} MiB"
    return Row(f"memory for each further one of {count:,} allocated", note=note)


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held", type=int, default=200_000, help="held addresses in the file")
    parser.add_argument("--allocated", type=int, default=100_000, help="addresses that a manager allocates by itself")
    arguments, _ = parser.parse_known_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    path = asyncio.run(prepared(arguments.held))
    rows = [*started(path, arguments.held), grown_by(arguments.allocated)]
    report("Very many held addresses, on SQLite", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
