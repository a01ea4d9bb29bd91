"""Three managers over one SQLite file, or over etcd with a lease that no test outlives: who ends hands over at once; who is killed
or stopped beside a file is followed, or waited for, and never written past."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from harness.etcd import shared
from harness.managers import Churn, Managing, addresses_of, allocate, direct, everything, release, some_owner

from knitter_common.errors import Unavailable
from knitter_common.managers import Managers

pytestmark = pytest.mark.timeout(120)


def store_in(kind: str, folder: Path) -> dict[str, Any]:
    """The settings of an empty store."""
    if kind == "sqlite":
        return {"kind": "sqlite", "path": str(folder / "store.db")}
    prefix = f"/test/{secrets.token_hex(6)}/"
    return {"kind": "etcd", "endpoints": list(shared().endpoints), "prefix": prefix, "compact": False, "lease": 60}


@pytest.fixture(params=["sqlite", "etcd"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Managing]:
    made = await asyncio.to_thread(Managing, tmp_path, store_in(request.param, tmp_path))
    yield made
    await asyncio.to_thread(made.close)


@pytest.fixture
async def managers(site: Managing) -> AsyncIterator[Managers]:
    async with site.client() as client:
        yield client


on_a_file = pytest.mark.parametrize("site", ["sqlite"], indirect=True)


async def test_sigterm_hands_over_at_once(site: Managing, managers: Managers) -> None:
    async with Churn(site).running(managers) as churn:
        for _ in range(2):
            old = await site.writer()
            ended = asyncio.create_task(asyncio.to_thread(site.managers[old].terminate))
            await site.writer(but=old, within=20)
            await churn.until_answered()
            assert await ended == 0
            await site.start(old)


@on_a_file
async def test_beside_a_file_a_killed_writer_is_followed_at_once(site: Managing, managers: Managers) -> None:
    async with Churn(site).running(managers) as churn:
        for _ in range(3):
            old = await site.writer()
            site.managers[old].kill()
            await site.writer(but=old)
            await churn.until_answered()
            await site.start(old)


@on_a_file
async def test_beside_a_file_a_stopped_writer_is_waited_for_and_named(site: Managing, managers: Managers) -> None:
    owner, waiting = some_owner(), some_owner()
    got = await allocate(managers, owner)
    old = await site.writer()
    site.managers[old].signal(signal.SIGSTOP)
    try:
        for number in range(3):
            if number != old:
                assert addresses_of((await everything(site, number))[owner.key]) == addresses_of(got)
                with pytest.raises(Unavailable) as raised:
                    await direct(site, number)
                assert (raised.value.reason, raised.value.metadata["writer"]) == ("NOT_WRITER", site.addresses[old])
        asked = asyncio.create_task(allocate(managers, waiting, within=30))
        await asyncio.sleep(1)
        assert not asked.done()
    finally:
        site.managers[old].signal(signal.SIGCONT)
    await asked
    assert await site.writer() == old
    for one in (owner, waiting):
        await release(managers, one)
