"""How long nobody writes when the writer ends, is killed or is stopped, and how soon clients find the one that writes then.

Three managers over one etcd of three members (lease 3 s, as by default) or over one SQLite file. `another writes` is from the
signal until another manager says that it writes; `found` from then to the answer of a call that was under way all the time: over an
agent's stream, and as any client's call. Each is a median of some turns, with the slowest.
"""

import asyncio
import contextlib
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from harness import etcd  # noqa: E402
from harness.managers import Managing, allocate, some_owner  # noqa: E402
from measure import Row, report  # noqa: E402

from knitter_agent.manager_client import ManagerClient  # noqa: E402
from knitter_common.managers import Managers  # noqa: E402
from knitter_common.model import Allocation, Return, Wish  # noqa: E402

TURNS = 5


async def no_journal(_: Managers) -> None:
    """A node on which nothing runs."""


async def turn(site: Managing, number: signal.Signals) -> tuple[float, float, float]:
    """Seconds until another one writes, and from then until a stream and a call are answered."""
    stream, caller = ManagerClient(Managers(site.addresses), no_journal), Managers(site.addresses)
    stream.start()
    owners = [some_owner() for _ in range(4)]
    try:
        await stream.allocate(Allocation(owner=owners[0], wishes=(Wish(network="small"),)), 20)
        await allocate(caller, owners[1], within=20)
        old, begin = await site.writer(), time.monotonic()
        site.managers[old].signal(number)

        async def streamed() -> float:
            await stream.allocate(Allocation(owner=owners[2], wishes=(Wish(network="small"),)), 30)
            return time.monotonic()

        async def called() -> float:
            await allocate(caller, owners[3], within=30)
            return time.monotonic()

        asking = asyncio.gather(streamed(), called())
        await site.writer(but=old, within=30)
        there = time.monotonic()
        found = [max(at - there, 0.0) for at in await asking]
        if number is signal.SIGSTOP:
            site.managers[old].signal(signal.SIGCONT)
        else:
            await asyncio.to_thread(site.managers[old].wait)
            await site.start(old)
        for owner in owners:
            await stream.release(Return(owner))
        return there - begin, found[0], found[1]
    finally:
        await stream.close()
        await caller.close()


async def measured(site: Managing, kind: str, numbers: list[signal.Signals]) -> list[Row]:
    """A row for each signal."""
    rows = []
    async with site.client():
        for number in numbers:
            taken = [await turn(site, number) for _ in range(TURNS)]
            writes, stream, call = (
                [f"{pick(column):.2f}" for pick in (statistics.median, max)] for column in zip(*taken, strict=True)
            )
            found = f"found by a stream {stream[0]} s ({stream[1]}), by a call {call[0]} s ({call[1]})"
            note = f"another writes {writes[0]} s ({writes[1]}); {found}"
            rows.append(Row(f"{kind}: {number.name}", note=note))
    return rows


def main() -> int:
    """One site after the other."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="knitter-bench-") as home, contextlib.ExitStack() as stack:
        stores: dict[str, dict[str, Any]] = {"SQLite": {"kind": "sqlite", "path": f"{home}/store.db"}}
        if reason := etcd.why_not():
            print(f"etcd is left out: {reason}", file=sys.stderr)
        else:
            cluster = stack.enter_context(etcd.Cluster(Path(home) / "members", size=3))
            stores["etcd"] = {"kind": "etcd", "endpoints": list(cluster.endpoints)}
        for kind, store in stores.items():
            folder = Path(home) / kind
            folder.mkdir()
            site = Managing(folder, store)
            try:
                numbers = [signal.SIGTERM, signal.SIGKILL] + ([signal.SIGSTOP] if kind == "etcd" else [])
                rows += asyncio.run(measured(site, kind, numbers))
            finally:
                site.close()
    report("Hand-over: the writer ends, is killed, is stopped", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
