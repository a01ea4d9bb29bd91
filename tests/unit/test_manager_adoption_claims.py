"""Sets that run on a node and use a claim or a group, told to a manager that has forgotten them."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from harness.manager import addresses, allocate, core_on, network, release

from knitter_common.errors import Refused
from knitter_common.model import Binding, IPClaim, IPGroup, Node, PodOwner, PortSet, Wish
from knitter_manager.core import Core
from knitter_manager.store.memory import MemoryStore

POD = PodOwner("t1", "vm-pod", "u1")
WISHES = (Wish("control", interface="eth0", ip_claim="vm"), Wish("control", interface="net1", ip_group="g"))


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    async with core_on(MemoryStore()) as core:
        await core.networks.create(network("control", "10.1.0.0/28", tenant="t1"))
        await core.nodes.create(Node("n1"))
        await core.claims.create(IPClaim("t1", "vm", "control", wanted_addresses=("10.1.0.7",)))
        await core.groups.create(IPGroup("t1", "g", "control", ips=("10.1.0.9",)))
        yield core


async def forgotten(core: Core) -> PortSet:
    """What a node runs, and the store does not know any more, as after a restore."""
    made = await allocate(core, POD, *WISHES, node="n1", binding=Binding("c1"))
    await core.sets.without_node(POD, "n1")
    await release(core, POD)
    assert not core.cluster.sets
    assert core.claims.get("t1", "vm").used_by is None
    return replace(made, revision=0)


async def test_it_uses_its_claim_and_its_group_again(core: Core) -> None:
    told = await forgotten(core)
    outcome = await core.reconciler.told(Node("n1"), [told], more=False)
    assert outcome.adopted == [POD]
    assert core.claims.get("t1", "vm").used_by == POD
    assert (await core.groups.get("t1", "control", "g")).addresses[0].used_by == POD
    with pytest.raises(Refused, match="claim t1/vm is used by pod t1/vm-pod"):
        await allocate(core, PodOwner("t1", "other", "u2"), WISHES[0])


async def test_where_its_claim_is_gone_the_addresses_are_its_own(core: Core) -> None:
    told = await forgotten(core)
    await core.claims.delete("t1", "vm", 0, "")
    outcome = await core.reconciler.told(Node("n1"), [told], more=False)
    assert outcome.adopted == [POD]
    with pytest.raises(Refused, match=r"10\.1\.0\.7 of network t1/control is held by pod t1/vm-pod"):
        await core.claims.create(IPClaim("t1", "vm", "control", wanted_addresses=("10.1.0.7",)))


async def test_where_another_uses_its_claim_it_is_not_adopted(core: Core) -> None:
    told = await forgotten(core)
    other = await allocate(core, PodOwner("t1", "other", "u2"), WISHES[0], node="n2", binding=Binding("c2"))
    outcome = await core.reconciler.told(Node("n1"), [told], more=False)
    assert not outcome.adopted
    assert outcome.refused == [POD]
    assert core.claims.get("t1", "vm").used_by == other.owner
    assert addresses(other) == ["10.1.0.7"]
