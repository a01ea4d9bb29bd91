"""Snapshots that are taken while many write: each is of one moment, whole and true in itself, from the writer or a follower."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from harness.etcd import shared
from harness.managers import Churn, Managing
from harness.stores import open_site

from knitter.v1 import types_pb2 as types
from knitter_common import convert
from knitter_common.snapshot import Reader
from knitter_ctl import snapshots
from knitter_ctl.session import Session
from knitter_manager.config import ManagerSettings
from knitter_manager.core import Core

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=["sqlite", "etcd"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Managing]:
    store: dict[str, Any] = {"kind": "sqlite", "path": str(tmp_path / "store.db")}
    if request.param == "etcd":
        prefix = f"/test/{secrets.token_hex(6)}/"
        store = {"kind": "etcd", "endpoints": list(shared().endpoints), "prefix": prefix, "compact": False}
    made = await asyncio.to_thread(Managing, tmp_path, store, 2)
    yield made
    await asyncio.to_thread(made.close)


def records_of(path: Path) -> dict[str, bytes]:
    """All of a file, which is whole."""
    reader = Reader()
    found = {key: value for entries in reader.feed(path.read_bytes()) for key, value in entries}
    reader.end()
    return found


def judge(records: dict[str, bytes]) -> set[str]:
    """The owners' keys; every address that a set has is held by its owner, and nobody holds another one."""
    held = {key: value.decode() for key, value in records.items() if key.startswith("addr/") and value}
    wanted: dict[str, str] = {}
    owners = set()
    for key, value in records.items():
        if key.startswith("portset/"):
            one = convert.port_set_from_proto(types.PortSet.FromString(value))
            owners.add(one.owner.key)
            for port in one.ports:
                for address in port.addresses:
                    wanted[f"addr/{port.network_id}/{address.cidr.partition('/')[0]}"] = one.owner.key
    assert held == wanted
    return owners


async def test_each_is_of_one_moment(site: Managing, tmp_path: Path) -> None:
    async with site.client() as client, Churn(site).running(client) as churn:
        revisions = []
        for turn in range(6):
            path = tmp_path / f"{turn}.snap"
            asked = site.addresses[turn % 2]
            living = {one.container for one in churn.history.living()}
            async with Session([asked], 20) as session:
                header, trailer = await snapshots.save(session, path)
            records = records_of(path)
            assert len(records) == trailer.records
            owners = judge(records)
            kept = living & {one.container for one in churn.history.living()}
            assert kept <= owners, "what was acknowledged before and not given back since is in it"
            revisions.append(header.revision)
            await churn.until_answered()
        assert revisions == sorted(set(revisions))
    async with open_site("memory", tmp_path) as place:
        core = Core(ManagerSettings(), await place.open())
        await core.load()
        await core.lead("me:1")

        async def pieces() -> AsyncIterator[bytes]:
            yield path.read_bytes()

        done = await core.restore.restore(pieces(), only_if_empty=True, complete=True)
        assert (done.records, set(core.cluster.sets)) == (len(records), owners)
        await core.stop()
