"""A manager whose disk is full: writes say so, reads go on, nothing acknowledged is lost and nothing refused was done by half; with
room it goes on by itself."""

import asyncio
import os
from pathlib import Path

import pytest
from harness.daemons import Daemons
from harness.managers import addresses_of, allocate, release, some_owner

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common import convert
from knitter_common.errors import Unavailable
from knitter_common.managers import Managers
from knitter_common.model import NamedOwner, PortSet


def fill(folder: Path) -> Path:
    """A file that leaves no room."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                os.write(file.fileno(), b"x" * 4096)
        except OSError:
            return ballast


async def held(managers: Managers) -> dict[str, PortSet]:
    """All sets."""
    answer = await managers.call(lambda stub: stub.ListPortSets, pb.ListPortSetsRequest(page_size=1000))
    found = [convert.port_set_from_proto(message) for message in answer.port_sets]
    return {one.owner.key: one for one in found}


async def test_a_full_disk_is_told_and_left_behind(small_disk: Path, daemons: Daemons) -> None:
    path = small_disk / "store.db"
    config = {"listen": "127.0.0.1:0", "store": {"kind": "sqlite", "path": str(path)}}
    manager = await daemons.start_soon("knitter-manager", config)
    managers = Managers([manager.address])
    try:
        network = types.Network(tenant="admin", name="small", subnets=[types.Subnet(cidr="10.4.0.0/23")])
        await managers.call(lambda stub: stub.CreateNetwork, pb.CreateNetworkRequest(network=network))
        victim = some_owner()
        told = {victim.key: await allocate(managers, victim)}
        ballast = fill(small_disk)
        refused: dict[str, NamedOwner] = {}
        reasons = set()
        while len(refused) < 20:
            owner = some_owner()
            try:
                told[owner.key] = await allocate(managers, owner, within=0.5)
            except Unavailable as error:
                reasons.add(error.reason)
                refused[owner.key] = owner
        assert reasons == {"STORE_UNAVAILABLE"}
        with pytest.raises(Unavailable, match="disk"):
            await release(managers, victim, within=0.5)
        assert told.keys() <= (await held(managers)).keys() <= told.keys() | refused.keys()
        ballast.unlink()
        again = await asyncio.gather(*(allocate(managers, owner) for owner in refused.values()))
        everything = [address for one in (*told.values(), *again) for address in addresses_of(one)]
        assert len(everything) == len(set(everything))
        await release(managers, victim)
        del told[victim.key]
        manager.kill()
        manager = await daemons.start_soon("knitter-manager", config | {"listen": manager.address})
        after = await held(managers)
        assert after.keys() == {*told, *(one.owner.key for one in again)}
        assert all(addresses_of(after[key]) == addresses_of(one) for key, one in told.items())
    finally:
        await managers.close()
