"""The states that the benchmarks make (bench/held.py) are such as a manager would have written."""

import sys
from pathlib import Path

import pytest
from harness.manager import allocate, core_on, named
from harness.stores import open_site

from knitter_common.model import Wish

sys.path.append(str(Path(__file__).resolve().parent.parent.parent / "bench"))

from held import bench_network, records


@pytest.mark.parametrize("cidr", ["10.1.0.0/24", "2001:db8::/64"])
async def test_made_records_are_loaded_as_what_they_stand_for(tmp_path: Path, cidr: str) -> None:
    made = await records(bench_network("held", cidr), 30)
    async with open_site("sqlite", tmp_path) as site:
        store = await site.open_writer()
        await store.commit([], {record.key: record.value for record in made})
        await store.close()
        async with core_on(await site.open()) as core:  # compares the state with itself at its end
            (entry,) = core.cluster.networks.values()
            assert entry.spaces[0].usage(0).held == len(core.cluster.sets) == 30
            await allocate(core, named("next"), Wish(network="held"))
            assert entry.spaces[0].usage(0).held == 31
