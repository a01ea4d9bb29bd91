"""Port sets: same owner same answer, all or none, binding, release and rest. On the store in memory, with a clock that the
test moves."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from harness.manager import Clock, addresses, allocate, core_on, held, named, network, pooled, release, settings

from knitter_common.errors import Exhausted, Invalid, KnitterError, NotFound, Refused, Stale, Unavailable
from knitter_common.model import (
    Allocation,
    Bind,
    Binding,
    IPGroup,
    NetworkType,
    Node,
    PodOwner,
    PortSetState,
    Route,
    SandboxOwner,
    Subnet,
    Wish,
)
from knitter_manager.core import Core
from knitter_manager.records import port_set_of
from knitter_manager.store.memory import MemoryStore

POD = PodOwner("t1", "web-0", "uid-1")
BOX = SandboxOwner("n1", "c1", "knitter", "eth0")


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def core(clock: Clock) -> AsyncIterator[Core]:
    async with core_on(MemoryStore(), clock) as core:
        await core.networks.create(network("default", Subnet("10.0.0.0/24", gateway="10.0.0.1")))
        subnets = Subnet("10.1.0.0/24", gateway="10.1.0.1"), Subnet("2001:db8::/64", gateway="2001:db8::1")
        await core.networks.create(network("dual", *subnets, public=True))
        await core.networks.create(network("tiny", pooled("10.2.0.0/24", ("10.2.0.10", "10.2.0.11"))))
        await core.networks.create(network("wire"))
        yield core


async def test_three_interfaces_in_one_commit(core: Core) -> None:
    before = core.cluster.revision
    port_set = await allocate(core, named("a"), Wish("dual", primary=True), Wish("tiny"), Wish("wire", interface="net7"))
    assert [port.interface for port in port_set.ports] == ["eth_dual", "eth_tiny", "net7"]
    assert addresses(port_set) == ["10.1.0.2", "2001:db8::2", "10.2.0.10"]
    assert port_set.ports[0].routes == (Route("0.0.0.0/0", "10.1.0.1"), Route("::/0", "2001:db8::1"))
    assert port_set.ports[0].node_gateway
    assert not port_set.ports[1].routes
    assert not port_set.ports[2].addresses
    assert len({port.mac for port in port_set.ports}) == 3
    assert port_set.revision == core.cluster.revision == before + 1


async def test_the_same_owner_gets_the_same_answer(core: Core) -> None:
    one = await allocate(core, named("a"), Wish("dual"))
    revision = core.cluster.revision
    assert await allocate(core, named("a"), Wish("dual", place="elsewhere")) == one
    assert core.cluster.revision == revision


async def test_at_the_same_time_too(core: Core) -> None:
    many = await asyncio.gather(*(allocate(core, named("a"), Wish("dual")) for _ in range(20)))
    assert len({one.revision for one in many}) == 1
    assert core.cluster.tenant("admin").addresses == 2


async def test_other_wishes_by_hand_are_refused(core: Core) -> None:
    await allocate(core, named("a"), Wish("dual"))
    with pytest.raises(Refused, match="admin/a has a set with other wishes") as error:
        await allocate(core, named("a"), Wish("tiny"))
    assert error.value.reason == "OWNER_HAS_OTHER_WISHES"


async def test_the_newest_plan_wins_and_keeps_what_fits(core: Core) -> None:
    old = await allocate(core, POD, Wish("dual", interface="eth0"), Wish("admin/wire"), tenant="admin")
    new = await allocate(core, POD, Wish("dual", interface="eth0"), Wish("tiny"), tenant="admin", replace=True)
    assert addresses(new)[:2] == addresses(old)
    assert new.ports[0].mac == old.ports[0].mac
    assert new.create_time == old.create_time
    tenant = core.cluster.tenant("admin")
    assert (tenant.ports, tenant.addresses) == (2, 3)
    again = await allocate(core, POD, Wish("tiny"), tenant="admin", replace=True)
    assert addresses(again) == ["10.2.0.10"]
    assert len(held(core)) == 1


async def test_no_wishes_mean_the_default_network(core: Core) -> None:
    port_set = await allocate(core, BOX)
    assert [(port.network, port.interface, port.primary) for port in port_set.ports] == [("admin/default", "eth0", True)]
    assert not port_set.wishes
    other = await allocate(core, POD)  # though it is neither public nor theirs: the operator chose it for everybody
    assert other.ports[0].network == "admin/default"


async def test_a_full_pool_takes_nothing_from_the_others(core: Core) -> None:
    for name in "ab":
        await allocate(core, named(name), Wish("tiny"))
    before = [pool.held for entry in core.cluster.networks.values() for space in entry.spaces for pool in space.pools]
    with pytest.raises(Exhausted, match=r"network admin/tiny has no free IPv4 address in 10\.2\.0\.0/24") as error:
        await allocate(core, named("c"), Wish("dual"), Wish("tiny"))
    assert error.value.reason == "POOL_EXHAUSTED"
    after = [pool.held for entry in core.cluster.networks.values() for space in entry.spaces for pool in space.pools]
    assert before == after
    assert all(not entry.pending for entry in core.cluster.networks.values())
    assert addresses(await allocate(core, named("d"), Wish("dual"))) == ["10.1.0.2", "2001:db8::2"]


async def test_as_many_win_as_there_are_addresses(core: Core) -> None:
    outcomes = await asyncio.gather(*(allocate(core, named(f"o{n}"), Wish("tiny")) for n in range(30)), return_exceptions=True)
    assert len([one for one in outcomes if not isinstance(one, BaseException)]) == 2
    assert all(isinstance(one, Exhausted) for one in outcomes if isinstance(one, BaseException))
    assert len(held(core)) == 2


async def test_released_addresses_rest(core: Core, clock: Clock) -> None:
    first = addresses(await allocate(core, named("a"), Wish("dual", interface="e")))
    await release(core, named("a"))
    assert addresses(await allocate(core, named("b"), Wish("dual"))) != first
    assert not core.cluster.sets.get(named("a").key)
    await allocate(core, named("c"), Wish("tiny"))
    await release(core, named("c"))
    assert addresses(await allocate(core, named("d"), Wish("tiny"))) == ["10.2.0.11"]
    clock.now += 31
    assert addresses(await allocate(core, named("e"), Wish("tiny"))) == ["10.2.0.10"]


async def test_what_rests_in_one_subnet_waits_while_another_has_one(core: Core, clock: Clock) -> None:
    await core.networks.create(network("two", pooled("10.5.0.0/24", ("10.5.0.10", "10.5.0.11")), "10.6.0.0/29", "2001:db8:5::/64"))
    for name in "ab":
        await allocate(core, named(name), Wish("two"))
    for name in "ab":
        await release(core, named(name))
    assert addresses(await allocate(core, named("c"), Wish("two")))[0] == "10.6.0.1"
    group = await core.groups.create(IPGroup("admin", "g", "admin/two", size=2))
    assert [one.address for one in group.addresses[:2]] == ["10.6.0.2", "10.6.0.3"]
    clock.now += 31
    assert addresses(await allocate(core, named("d"), Wish("two")))[0] == "10.5.0.10"


async def test_records_of_rests_are_swept(core: Core, clock: Clock) -> None:
    await allocate(core, named("a"), Wish("dual"))
    await release(core, named("a"))
    keys = [f"addr/{core.cluster.names.at('admin/dual').network.id}/{text}" for text in ("10.1.0.2", "2001:db8::2")]  # type: ignore[union-attr]
    assert len(await core.store.get(keys)) == 2
    await core.sweeper.sweep()
    assert len(await core.store.get(keys)) == 2
    clock.now += 31
    await core.sweeper.sweep()
    assert not await core.store.get(keys)


async def test_wanted_addresses_and_macs(core: Core) -> None:
    wish = Wish("dual", addresses=("10.1.0.77/24",), mac="02:00:00:00:00:AA")
    port_set = await allocate(core, named("a"), wish)
    assert addresses(port_set) == ["10.1.0.77", "2001:db8::2"]
    assert port_set.ports[0].mac == "02:00:00:00:00:aa"
    with pytest.raises(Refused, match=r"wishes\[0\]: 10\.1\.0\.77 of network admin/dual is held by admin/a") as taken:
        await allocate(core, named("b"), Wish("dual", addresses=("10.1.0.77",)))
    assert taken.value.reason == "ADDRESS_TAKEN"
    with pytest.raises(Refused, match="MAC 02:00:00:00:00:aa of network dual is that of admin/a") as mac:
        await allocate(core, named("b"), Wish("dual", mac="02-00-00-00-00-aa"))
    assert mac.value.reason == "MAC_TAKEN"
    await allocate(core, named("b"), Wish("tiny", mac="02:00:00:00:00:aa"))  # another segment
    for text, reason in (
        ("10.1.0.1", "ADDRESS_UNUSABLE"),
        ("10.9.0.1", "ADDRESS_UNUSABLE"),
        ("10.1.0.255", "ADDRESS_UNUSABLE"),
        ("10.1.0.9/16", "ADDRESS_UNUSABLE"),
        ("10.1.0.900", "WISH_INVALID"),
    ):
        with pytest.raises(Invalid) as unusable:
            await allocate(core, named("c"), Wish("dual", addresses=(text,)))
        assert unusable.value.reason == reason, text
    assert len(held(core)) == 3


async def test_a_wanted_address_may_rest(core: Core) -> None:
    await allocate(core, named("a"), Wish("tiny", addresses=("10.2.0.11",)))
    await release(core, named("a"))
    assert addresses(await allocate(core, named("b"), Wish("tiny", addresses=("10.2.0.11",)))) == ["10.2.0.11"]


@pytest.mark.parametrize(
    ("wishes", "reason", "said"),
    [
        ((Wish("dual", interface="e0"), Wish("wire", interface="e0")), "WISH_INVALID", "'e0' is wanted by wishes\\[0\\] too"),
        ((Wish("dual", interface="a" * 16),), "WISH_INVALID", "at most 15"),
        ((Wish("nowhere"),), "NETWORK_NOT_FOUND", "tenant admin has no network 'nowhere'"),
        ((Wish("dule"),), "NETWORK_NOT_FOUND", "did you mean 'dual'"),
        ((Wish("a/b/c"),), "WISH_INVALID", "names no network"),
        (tuple(Wish("wire", interface=f"e{n}") for n in range(33)), "LIMIT_EXCEEDED", "at most 32"),
        (tuple(Wish("dual", interface=f"e{n}") for n in range(25)), "LIMIT_EXCEEDED", "at most 48"),
        ((Wish("dual", default_routes=("here",)),), "WISH_INVALID", "default route"),
        ((Wish("dual", mac="01:00:00:00:00:01"),), "WISH_INVALID", "multicast"),
        ((Wish("dual", addresses=("10.1.0.9", "10.1.0.9")),), "WISH_INVALID", "10.1.0.9 is wanted twice"),
    ],
)
async def test_bad_wishes_name_place_value_and_way_out(core: Core, wishes: tuple[Wish, ...], reason: str, said: str) -> None:
    with pytest.raises(KnitterError, match=said) as error:
        await allocate(core, named("a"), *wishes)
    assert error.value.reason == reason
    assert not held(core)
    assert all(not pool.held for entry in core.cluster.networks.values() for space in entry.spaces for pool in space.pools)


async def test_derived_names_are_unique_and_fit(core: Core) -> None:
    await core.networks.create(network("a-rather-long-name"))
    port_set = await allocate(core, named("a"), *[Wish("a-rather-long-name")] * 3, Wish("wire", interface="eth_a-rather-lo"))
    names = [port.interface for port in port_set.ports]
    assert names == ["eth_a-rather-l2", "eth_a-rather-l3", "eth_a-rather-l4", "eth_a-rather-lo"]


async def test_a_wished_default_route_takes_the_primary_one_away(core: Core) -> None:
    wishes = (Wish("dual", primary=True), Wish("tiny", default_routes=("10.2.0.1",)))
    port_set = await allocate(core, named("a"), *wishes)
    assert port_set.ports[0].routes == (Route("::/0", "2001:db8::1"),)
    assert port_set.ports[1].routes == (Route("0.0.0.0/0", "10.2.0.1"),)


async def test_tenants_see_their_own_public_and_exported_networks(core: Core) -> None:
    await core.networks.create(network("own", "10.5.0.0/24", tenant="t1"))
    await core.networks.create(network("dual", "10.6.0.0/24", tenant="t1"))
    await core.networks.create(network("lent", "10.7.0.0/24", tenant="t2", exported_to=("t1",)))
    port_set = await allocate(core, POD, Wish("own"), Wish("dual"), Wish("lent"), Wish("admin/dual"))
    assert [port.network for port in port_set.ports] == ["t1/own", "t1/dual", "t2/lent", "admin/dual"]
    for name in ("tiny", "admin/tiny", "t2/own"):
        with pytest.raises(NotFound) as error:
            await allocate(core, PodOwner("t1", "x", "u"), Wish(name))
        assert error.value.reason == "NETWORK_NOT_FOUND"
    assert (await allocate(core, named("op"), Wish("t1/own"))).ports[0].network == "t1/own"


async def bind(core: Core, container: str, node: str = "n1") -> bytes | None:
    """The pod's set is used by a sandbox."""
    return await core.sets.bind(Bind(POD, Binding(container, f"/run/netns/{container}", 1), node))


async def test_binding_follows_the_sandboxes_of_one_node(core: Core) -> None:
    with pytest.raises(NotFound, match="pod t1/web-0 has no port set"):
        await bind(core, "c1")
    await allocate(core, POD, Wish("dual"))
    first = await bind(core, "c1")
    assert await bind(core, "c1") == first
    second = port_set_of(await bind(core, "c2") or b"")
    assert second.binding is not None
    assert second.binding.container_id == "c2"
    await release(core, POD, container_id="c1", unbind_only=True)  # the late DEL of the first
    await release(core, POD, container_id="c1")
    assert port_set_of(core.cluster.sets[POD.key]) == second
    with pytest.raises(Unavailable, match="used by sandbox c2 on node n1") as error:
        await bind(core, "c3", "n2")
    assert error.value.reason == "SET_BOUND_ELSEWHERE"
    await release(core, POD, container_id="c2", unbind_only=True)
    assert port_set_of(core.cluster.sets[POD.key]).binding is None
    assert port_set_of(await bind(core, "c3", "n2") or b"").node == "n2"


async def test_a_pods_set_is_lent_until_its_node_gives_it_back(core: Core) -> None:
    await core.nodes.create(Node("n1"))
    port_set = await allocate(core, POD, Wish("dual"), node="n1")
    await bind(core, "c1")
    await release(core, POD)
    lent = port_set_of(core.cluster.sets[POD.key])
    assert lent.state is PortSetState.LENT
    await release(core, POD)
    assert POD.key in core.cluster.sets
    assert len(held(core)) == len(addresses(port_set))
    await release(core, POD, container_id="c1", unbind_only=True)
    assert not core.cluster.sets


async def test_a_pods_set_that_no_node_knows_ends_at_once(core: Core) -> None:
    await allocate(core, POD, Wish("dual"), node="unknown")
    await release(core, POD)
    assert not core.cluster.sets


async def test_a_sandboxes_set_ends_with_it(core: Core) -> None:
    await core.nodes.create(Node("n1"))
    await allocate(core, BOX, node="n1", binding=Binding("c1"))
    await release(core, BOX, container_id="c1")
    await release(core, BOX, container_id="c1")
    assert not core.cluster.sets


async def test_release_compares_the_revision(core: Core) -> None:
    port_set = await allocate(core, named("a"), Wish("dual"))
    with pytest.raises(Stale, match=f"at revision {port_set.revision}, not 1"):
        await release(core, named("a"), revision=1)
    await release(core, named("a"), revision=port_set.revision)
    assert not core.cluster.sets


async def test_a_node_that_is_forgotten_frees_what_it_was_lent(core: Core) -> None:
    await core.nodes.create(Node("n1"))
    other = PodOwner("t1", "web-1", "u2")
    await allocate(core, POD, Wish("dual"), node="n1")
    await allocate(core, other, Wish("dual"), node="n1", binding=Binding("c9"))
    await allocate(core, BOX, node="n1", binding=Binding("c1"))
    await release(core, POD)
    await core.nodes.delete("n1", 0)
    assert set(core.cluster.sets) == {other.key}
    left = port_set_of(core.cluster.sets[other.key])
    assert (left.node, left.binding) == ("", None)


async def test_what_runs_is_adopted_and_what_others_hold_is_refused(core: Core) -> None:
    port_set = await allocate(core, POD, Wish("dual"), node="n1", binding=Binding("c1"))
    elsewhere = await allocate(core, named("late"), Wish("tiny"), node="n1")
    await core.reconciler.free("n1")
    await release(core, POD)
    outcome = await core.reconciler.told(Node("n1"), [port_set], more=False)
    assert outcome.adopted == [POD]
    assert not outcome.unknown_to_node
    assert held(core)[port_set.ports[0].network_id, addresses(port_set)[0]] == POD.key
    again = await core.reconciler.told(Node("n1"), [port_set], more=False)
    assert not again.adopted
    assert not again.refused
    await core.sets.bind(Bind(elsewhere.owner, Binding("c2"), "n1"))
    thief = Allocation(named("thief"), wishes=port_set.wishes)
    stolen = await core.reconciler.told(Node("n1"), [port_set_of(_claim(port_set, thief))], more=False)
    assert stolen.refused == [thief.owner]
    assert {port_set_of(record).owner for record in stolen.unknown_to_node} == {POD, elsewhere.owner}


async def test_a_kept_set_that_runs_on_a_node_that_comes_back_is_not_ended_by_time(clock: Clock) -> None:
    core = Core(settings(stickyTtl=100), MemoryStore(), clock, wall=lambda: int(clock.now * 1e9))
    await core.load()
    await core.lead("writer:1")
    await core.networks.create(network("control", "10.1.0.0/28", public=True))
    await core.nodes.create(Node("n1"))
    pod = PodOwner("t1", "web-0", "u1")
    made = await allocate(core, pod, Wish("control"), node="n1", binding=Binding("c1"), sticky=True)
    await release(core, pod)
    await core.nodes.delete("n1", 0)  # by hand, though it is only cut off
    assert port_set_of(core.cluster.sets[pod.key]).state is PortSetState.KEPT
    for told in (made, replace(made, ports=(replace(made.ports[0], interface="eth7"),))):
        outcome = await core.reconciler.told(Node("n1"), [told], more=False)
        assert outcome.adopted == [pod]
        running = port_set_of(core.cluster.sets[pod.key])
        assert (running.state, running.node, running.binding) == (PortSetState.LENT, "n1", Binding("c1"))
        clock.now += 101
        await core.sweeper.sweep()
        assert addresses(port_set_of(core.cluster.sets[pod.key])) == addresses(made)
        await release(core, pod, container_id="c1", unbind_only=True)
        kept = port_set_of(core.cluster.sets[pod.key])
        assert (kept.state, kept.binding) == (PortSetState.KEPT, None)
    clock.now += 101
    await core.sweeper.sweep()
    assert not core.cluster.sets
    await core.stop()


def _claim(port_set: object, thief: Allocation) -> bytes:
    """The same ports for another owner."""
    from knitter_manager.records import stored

    return stored(replace(port_set, owner=thief.owner))  # type: ignore[type-var]


async def test_types_that_bring_their_mac_get_none(core: Core) -> None:
    wanted = network("lan", "10.8.0.0/24", type=NetworkType.IPVLAN, physical_network="eth9")
    await core.networks.create(wanted)
    assert (await allocate(core, named("a"), Wish("lan"))).ports[0].mac == ""


async def test_a_pods_plan_that_fails_is_stored_with_its_error(core: Core) -> None:
    for _ in range(2):
        with pytest.raises(NotFound, match="no network 'nowhere'"):
            await allocate(core, POD, Wish("dual"), Wish("nowhere"), replace=True, node="n1")
    failed = port_set_of(core.cluster.sets[POD.key])
    assert failed.state is PortSetState.FAILED
    assert failed.error is not None
    assert (failed.error.reason, failed.ports, failed.node) == ("NETWORK_NOT_FOUND", (), "n1")
    assert not held(core)
    with pytest.raises(NotFound, match="no network 'nowhere'"):
        await bind(core, "c1")
    planned = await allocate(core, POD, Wish("dual"), replace=True, node="n1")
    assert planned.state is PortSetState.RESERVED
    assert planned.error is None
    with pytest.raises(NotFound):
        await allocate(core, POD, Wish("nowhere"), replace=True)
    assert port_set_of(core.cluster.sets[POD.key]) == planned  # what a pod has is not taken from it
    with pytest.raises(Refused):
        await allocate(core, named("thief"), Wish("dual", addresses=tuple(addresses(planned))))
    assert named("thief").key not in core.cluster.sets
