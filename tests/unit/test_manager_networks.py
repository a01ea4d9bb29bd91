"""Networks: the same again is fine, what is in use is not hurt, and each refusal names who is in the way."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from harness.manager import addresses, allocate, core_on, held, named, network, pooled, release

from knitter_common.errors import Exhausted, Exists, KnitterError, NotFound, Refused, Stale, Unavailable
from knitter_common.model import Network, NetworkType, PodOwner, Quota, Subnet, Tenant, Wish
from knitter_manager.core import Core
from knitter_manager.store.memory import MemorySpace, MemoryStore
from knitter_manager.store.protocol import Commit, StoreDown

SHAPE = network("control", pooled("10.1.0.0/24", ("10.1.0.10", "10.1.0.19"), gateway="10.1.0.1"), "2001:db8:1::/64", tenant="t1")


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    async with core_on(MemoryStore()) as core:
        yield core


async def test_the_same_again_is_fine_and_something_else_is_not(core: Core) -> None:
    made = await core.networks.create(SHAPE)
    assert made.id
    assert made.source == "api"
    assert await core.networks.create(SHAPE) == made
    with pytest.raises(Exists, match="t1/control exists with another mtu"):
        await core.networks.create(replace(SHAPE, mtu=1400))
    many = await asyncio.gather(*(core.networks.create(replace(SHAPE, name="burst")) for _ in range(30)))
    assert len({one.id for one in many}) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (network("x", "10.1.0.5/24"), "subnets\\[0\\].cidr: '10.1.0.5/24' has host bits set; write 10.1.0.0/24"),
        (network("x", Subnet("10.1.0.0/24", gateway="10.2.0.1")), "subnets\\[0\\].gateway: 10.2.0.1 is not in 10.1.0.0/24"),
        (network("x", pooled("10.1.0.0/24", ("10.1.0.9", "10.1.0.5"))), "below the start"),
        (network("x", pooled("10.1.0.0/24", ("10.1.0.1", "10.1.0.5"), ("10.1.0.5", "10.1.0.9"))), "overlaps pools\\[0\\]"),
        (network("X"), "metadata.name: 'X' is no name"),
        (network("x", mtu=60), "mtu: 60"),
        (network("x", tenant="t1", public=True), "only networks of admin are public"),
        (network("x", "10.1.0.0/24", "10.1.0.0/16"), "overlaps 10.1.0.0/24"),
    ],
)
async def test_what_no_network_can_be_is_refused(core: Core, wrong: Network, said: str) -> None:
    with pytest.raises(KnitterError, match=said) as error:
        await core.networks.create(wrong)
    assert error.value.reason == "FIELD_INVALID"
    assert not core.cluster.networks


async def test_one_segment_has_no_two_subnets_alike(core: Core) -> None:
    lan = network("a", "10.1.0.0/24", type=NetworkType.MACVLAN, physical_network="eth1")
    await core.networks.create(lan)
    with pytest.raises(Refused, match=r"10\.1\.0\.0/25 overlaps 10\.1\.0\.0/24 of network admin/a on the same segment"):
        await core.networks.create(replace(lan, name="b", subnets=(Subnet("10.1.0.0/25"),)))
    await core.networks.create(replace(lan, name="c", physical_network="eth2"))
    await core.networks.create(network("d", "10.1.0.0/24"))
    await core.networks.create(network("e", "10.1.0.0/24"))


async def test_quota_of_networks_holds_under_parallel_requests(core: Core) -> None:
    wanted = [replace(SHAPE, name=f"n{number}") for number in range(30)]
    outcomes = await asyncio.gather(*(core.networks.create(one) for one in wanted), return_exceptions=True)
    assert len([one for one in outcomes if isinstance(one, Network)]) == 10
    assert {one.reason for one in outcomes if isinstance(one, Exhausted)} == {"QUOTA_EXCEEDED"}


async def test_a_live_network_grows(core: Core) -> None:
    await core.networks.create(SHAPE)
    for number in range(10):
        await allocate(core, named(f"a{number}", "t1"), Wish("control"))
    with pytest.raises(Exhausted):
        await allocate(core, named("b", "t1"), Wish("control"))
    before = held(core)
    grown = replace(SHAPE, subnets=(pooled("10.1.0.0/24", ("10.1.0.10", "10.1.0.29"), gateway="10.1.0.1"), SHAPE.subnets[1]))
    await core.networks.update(grown)
    assert held(core) == before
    assert addresses(await allocate(core, named("b", "t1"), Wish("control")))[0] == "10.1.0.20"
    more = replace(grown, subnets=(*grown.subnets, Subnet("10.2.0.0/24")))
    await core.networks.update(more)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"subnets": (SHAPE.subnets[1],)}, "removing subnet 10.1.0.0/24 would take 10.1.0.10 from pod t1/web-0"),
        ({"subnets": (pooled("10.1.0.0/24", ("10.1.0.11", "10.1.0.19"), gateway="10.1.0.1"), SHAPE.subnets[1])}, "10.1.0.10 from"),
        ({"subnets": (replace(SHAPE.subnets[0], exclude=("10.1.0.10",)), SHAPE.subnets[1])}, "would take 10.1.0.10 from pod t1"),
        ({"subnets": (replace(SHAPE.subnets[0], gateway="10.1.0.2"), SHAPE.subnets[1])}, "changing the gateway of 10.1.0.0/24"),
        ({"type": NetworkType.VXLAN}, "used by pod t1/web-0; changing type would cut off its ports"),
        ({"type": NetworkType.MACVLAN, "physical_network": "eth1"}, "used by pod t1/web-0; changing type"),
        ({"physical_network": "eth1", "external": True}, "changing physical_network would cut off"),
    ],
)
async def test_changes_that_would_hurt_are_refused(core: Core, change: dict[str, object], said: str) -> None:
    await core.tenants.create(Tenant("t1", allowed_types=tuple(NetworkType), allowed_physical_networks=("eth1",)))
    made = await core.networks.create(SHAPE)
    await allocate(core, PodOwner("t1", "web-0", "u"), Wish("control"))
    with pytest.raises(Refused, match=said) as error:
        await core.networks.update(replace(SHAPE, **change))  # type: ignore[arg-type]
    assert error.value.reason == "OBJECT_IN_USE"
    assert core.networks.get("t1", "control") == made
    with pytest.raises(Refused, match="network t1/control is used by pod t1/web-0; "):
        await core.networks.delete("t1", "control", 0, "")
    await release(core, PodOwner("t1", "web-0", "u"))
    await core.networks.update(replace(SHAPE, **change))  # type: ignore[arg-type]
    await core.networks.delete("t1", "control", 0, "")
    await core.networks.delete("t1", "control", 0, "")
    with pytest.raises(NotFound, match="tenant t1 has no network 'control'"):
        core.networks.get("t1", "control")
    assert not core.cluster.networks


async def test_a_tenant_keeps_sight_of_what_it_uses(core: Core) -> None:
    await core.networks.create(network("shared", "10.3.0.0/24", public=True))
    await allocate(core, PodOwner("t1", "web-0", "u"), Wish("shared"))
    with pytest.raises(Refused, match="tenant t1 would not see it any more, and pod t1/web-0 uses it"):
        await core.networks.update(network("shared", "10.3.0.0/24"))
    await core.networks.update(network("shared", "10.3.0.0/24", exported_to=("t1",)))
    with pytest.raises(Refused, match="tenant t1 would not see it"):
        await core.networks.update(network("shared", "10.3.0.0/24"))


async def test_revision_and_source_are_compared(core: Core) -> None:
    made = await core.networks.create(replace(SHAPE, source="files:site"))
    with pytest.raises(Refused, match="network t1/control is declared by files:site, not by api") as foreign:
        await core.networks.update(replace(SHAPE, mtu=1400))
    assert foreign.value.reason == "SOURCE_FOREIGN"
    changed = await core.networks.update(replace(SHAPE, mtu=1400, source="files:site", revision=made.revision))
    with pytest.raises(Stale, match=f"at revision {changed.revision}, not {made.revision}"):
        await core.networks.update(replace(SHAPE, mtu=1300, source="files:site", revision=made.revision))
    with pytest.raises(Refused, match="declared by files:site"):
        await core.networks.delete("t1", "control", 0, "")
    with pytest.raises(Stale):
        await core.networks.delete("t1", "control", made.revision, "files:site")
    await core.networks.delete("t1", "control", changed.revision, "files:site")


async def test_a_network_that_changes_while_ports_are_planned(core: Core) -> None:
    await core.networks.create(SHAPE)
    narrow = replace(SHAPE, subnets=(pooled("10.1.0.0/24", ("10.1.0.14", "10.1.0.19"), gateway="10.1.0.1"), SHAPE.subnets[1]))
    planned = [allocate(core, named(f"a{number}", "t1"), Wish("control")) for number in range(6)]
    outcomes = await asyncio.gather(*planned[:3], core.networks.update(narrow), *planned[3:], return_exceptions=True)
    refused = isinstance(outcomes[3], Refused)
    got = [addresses(one)[0] for at, one in enumerate(outcomes) if at != 3]  # type: ignore[arg-type]
    assert len(set(got)) == 6
    if not refused:
        assert all(int(text.rpartition(".")[2]) >= 14 for text in got)


async def test_a_creation_without_an_answer_is_known_before_anything_else_is_created(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    await core.tenants.create(Tenant("t1", quota=Quota(networks=1)))
    commit, take = core.store.commit, core.feed._take
    late: list[Sequence[Commit]] = []

    async def unanswered(*asked: Any) -> int:
        await commit(*asked)
        raise StoreDown("no answer")

    monkeypatch.setattr(core.feed, "_take", late.append)  # and the feed lags behind
    monkeypatch.setattr(core.store, "commit", unanswered)
    with pytest.raises(Unavailable) as raised:
        await core.networks.create(SHAPE)
    assert raised.value.reason == "STORE_UNAVAILABLE"
    monkeypatch.setattr(core.store, "commit", commit)
    again = asyncio.create_task(core.networks.create(SHAPE))
    other = asyncio.create_task(core.networks.create(replace(SHAPE, name="other", subnets=())))
    await asyncio.sleep(0.1)
    assert not again.done()
    monkeypatch.setattr(core.feed, "_take", take)
    for commits in late:
        take(commits)
    assert (await again).name == SHAPE.name
    with pytest.raises(KnitterError) as full:
        await other
    assert full.value.reason == "QUOTA_EXCEEDED"
    assert len(core.cluster.networks) == 1


async def test_it_is_all_there_after_a_restart() -> None:
    space = MemorySpace()
    async with core_on(MemoryStore(space)) as core:
        await core.networks.create(SHAPE)
        await allocate(core, named("a", "t1"), Wish("control"))
        await release(core, named("a", "t1"))
        await allocate(core, named("b", "t1"), Wish("control"))
        before = core.networks.get("t1", "control"), held(core)
    async with core_on(MemoryStore(space)) as core:
        assert (core.networks.get("t1", "control"), held(core)) == before
        assert addresses(await allocate(core, named("c", "t1"), Wish("control")))[0] == "10.1.0.12"  # .10 rests
        usage = core.cluster.names.at("t1/control").spaces[0].usage(0)  # type: ignore[union-attr]
        assert (usage.held, usage.resting, usage.free) == (2, 1, 7)
