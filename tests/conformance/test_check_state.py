"""CheckState and RepairState on every store: what is whole is found whole, also under load; each thing that is broken is named;
what can be repaired is, and only as it was seen."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from harness.manager import Clock, allocate, named, network, pooled, release, start_core
from harness.stores import KINDS, open_site

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.errors import Internal, KnitterError, Unavailable, from_status
from knitter_common.model import (
    Allocation,
    Binding,
    IPClaim,
    IPGroup,
    NetworkType,
    Node,
    PodOwner,
    Return,
    SandboxOwner,
    Subnet,
    Wish,
)
from knitter_manager import keys
from knitter_manager.core import Core
from knitter_manager.records import port_set_of
from knitter_manager.recovery import waiting_record
from knitter_manager.standing import APPLYING, RESTORING, encoded
from knitter_manager.store.protocol import Record

WEB = PodOwner("t1", "web-0", "u1")
DB = PodOwner("t1", "db-0", "u1")
SANDBOX = SandboxOwner("n1", "c1", "knitter", "eth0")


@pytest.fixture(params=KINDS)
async def core(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Core]:
    """A writer over a state with some of everything."""
    async with open_site(request.param, tmp_path) as site:
        made = await start_core(await site.open())
        try:
            await fill(made)
            yield made
        finally:
            await made.stop()


async def fill(core: Core) -> None:
    """Networks of several kinds; sets that are bound, reserved, kept, with a group, with a claim; addresses that rest."""
    shape = pooled("10.1.0.0/24", ("10.1.0.10", "10.1.0.99"), ("10.1.0.120", "10.1.0.129"), gateway="10.1.0.1")
    await core.networks.create(network("control", shape, "2001:db8:1::/64", tenant="t1"))
    await core.networks.create(network("other", "10.1.0.0/24", tenant="t1"))
    await core.networks.create(network("wire", tenant="t1"))
    await core.networks.create(network("tagged", "10.3.0.0/24", tenant="t1", type=NetworkType.VXLAN))
    await core.networks.create(network("child", "10.2.0.0/24", type=NetworkType.IPVLAN, physical_network="eth9", public=True))
    await core.groups.create(IPGroup("t1", "few", "control", ips=("10.1.0.20", "10.1.0.200")))
    await core.claims.create(IPClaim("t1", "vm", "control", wanted_addresses=("10.1.0.77",)))
    await core.claims.create(IPClaim("t1", "idle", "other"))
    await allocate(core, SANDBOX, Wish("control"), tenant="t1", node="n1", binding=Binding("c1", "/run/netns/c1"))
    await allocate(core, WEB, Wish("control", ip_group="few"), Wish("wire"), Wish("child", mac="02:00:00:00:00:09"), node="n1")
    await allocate(core, DB, Wish("control"), Wish("tagged"), sticky=True)
    await release(core, DB)
    await allocate(core, named("vm", "t1"), Wish("control", ip_claim="vm"), Wish("other"))
    await allocate(core, named("gone", "t1"), Wish("control"))
    await release(core, named("gone", "t1"))


async def check(core: Core, nodes: bool = False) -> tuple[list[pb.Finding], pb.CheckSummary]:
    """What is found, in order."""
    findings: list[pb.Finding] = []
    async for response in core.checker.check(nodes, settle=0.0):
        findings += response.findings
        summary = response.summary
    return sorted(findings, key=lambda one: (one.kind, one.key)), summary


async def written(core: Core, puts: Mapping[str, bytes] | None = None, deletes: Iterable[str] = ()) -> int:
    """As if a defect had written it; this manager follows."""
    revision = await core.store.commit([], puts or {}, list(deletes))
    await core.feed.until(revision)
    return revision


def id_of(core: Core, name: str, tenant: str = "t1") -> str:
    """A network's."""
    entry = core.cluster.names.at(f"{tenant}/{name}")
    assert entry is not None
    return entry.network.id


async def stored(core: Core, key: str) -> Record:
    """What the store has."""
    return (await core.store.get([key]))[key]


async def set_of(core: Core, owner_key: str) -> types.PortSet:
    """A set as it is stored."""
    return types.PortSet.FromString((await stored(core, keys.port_set(owner_key))).value)


async def test_what_is_whole_is_found_whole(core: Core) -> None:
    findings, summary = await check(core)
    assert findings == []
    told = (summary.networks, summary.port_sets, summary.ip_claims, summary.counters)
    assert told == (5, 4, 2, True)
    assert summary.revision == core.cluster.revision
    assert summary.addresses == 2 + 3 + 3 + 1 + (2 + 1)  # sandbox, web, db, vm's other, the claims
    await core.networks.update(network("control", pooled("10.1.0.0/24", ("10.1.0.10", "10.1.0.99"), gateway="10.1.0.1"),
                                       "2001:db8:1::/64", tenant="t1"))  # fmt: skip
    assert isinstance(core.clock, Clock)
    core.clock.now += 31
    await core.sweeper.sweep()
    assert (await check(core))[0] == []


async def test_what_is_under_way_is_no_finding(core: Core) -> None:
    ended = asyncio.Event()

    async def churn(number: int) -> None:
        while not ended.is_set():
            await allocate(core, named(f"x{number}", "t1"), Wish("control"), Wish("wire"))
            await core.claims.create(IPClaim("t1", f"c{number}", "other"))
            await release(core, named(f"x{number}", "t1"))
            await core.claims.delete("t1", f"c{number}", 0, "")

    work = [asyncio.ensure_future(churn(number)) for number in range(8)]
    try:
        for _ in range(5):
            assert (await check(core))[0] == []
    finally:
        ended.set()
        await asyncio.gather(*work)
    assert (await check(core))[0] == []


# -- what is broken ----------------------------------------------------------------------------------------------------------

Break = Callable[[Core], Awaitable[None]]


async def lose_a_set(core: Core) -> None:
    """Its addresses and MACs stay."""
    await written(core, deletes=[keys.port_set(WEB.key)])


async def lose_a_claim(core: Core) -> None:
    """Nobody uses it."""
    await written(core, deletes=[keys.claim("t1", "idle")])


async def lose_an_address(core: Core) -> None:
    """Its record; the set stays."""
    port = (await set_of(core, SANDBOX.key)).ports[0]
    await written(core, deletes=[keys.address(port.network_id, port.addresses[0].cidr.partition("/")[0])])


async def rest_an_address(core: Core) -> None:
    """Its record says that it rests; the set stays."""
    port = (await set_of(core, SANDBOX.key)).ports[0]
    await written(core, {keys.address(port.network_id, port.addresses[1].cidr.partition("/")[0]): b""})


async def lose_a_mac(core: Core) -> None:
    """Its record; the set stays."""
    port = (await set_of(core, WEB.key)).ports[1]
    await written(core, deletes=[keys.mac(port.network_id, port.mac)])


async def another_holder(core: Core) -> None:
    """Of an address that a set has."""
    port = (await set_of(core, SANDBOX.key)).ports[0]
    await written(core, {keys.address(port.network_id, port.addresses[0].cidr.partition("/")[0]): b"named/t1/nobody"})


async def a_holder_that_is_none(core: Core) -> None:
    """Its record is garbage."""
    await written(core, {keys.address(id_of(core, "control"), "10.1.0.30"): b"pod/x"})


async def two_owners(core: Core) -> None:
    """A set was written twice under two names."""
    copy = await set_of(core, SANDBOX.key)
    copy.owner.sandbox.container_id = "c2"
    await written(core, {keys.port_set(SandboxOwner("n1", "c2", "knitter", "eth0").key): copy.SerializeToString()})


async def a_subnet_cut(core: Core) -> None:
    """Its network lost a subnet in which a set, a claim and a rest are."""
    key = keys.network(id_of(core, "other"))
    shape = types.Network.FromString((await stored(core, key)).value)
    await allocate(core, named("brief"), Wish("t1/other"))
    await release(core, named("brief"))
    shape.subnets[0].cidr = "10.9.0.0/24"
    await written(core, {key: shape.SerializeToString()})


async def a_network_lost(core: Core) -> None:
    """Its record; all that refers to it stays."""
    await written(core, deletes=[keys.network(id_of(core, "tagged"))])


async def a_rest_on_no_network(core: Core) -> None:
    """As a manager leaves it that is killed while it deletes a network."""
    await written(core, {keys.address("0123456789ab", "10.9.0.9"): b"", keys.address("0123456789ab", "2001:db8::9"): b""})


async def a_use_that_is_none(core: Core) -> None:
    """A claim is used by a set that is not there."""
    await release(core, named("vm", "t1"))
    key = keys.claim("t1", "vm")
    claim = types.IPClaim.FromString((await stored(core, key)).value)
    claim.used_by.named.tenant, claim.used_by.named.name = "t1", "nobody"
    await written(core, {key: claim.SerializeToString()})


async def a_use_that_the_claim_denies(core: Core) -> None:
    """A set uses a claim that says nobody does."""
    key = keys.claim("t1", "vm")
    claim = types.IPClaim.FromString((await stored(core, key)).value)
    claim.ClearField("used_by")
    await written(core, {key: claim.SerializeToString()})


async def a_group_twice(core: Core) -> None:
    """Two groups have one address, and one of them has one of nowhere."""
    key = keys.group(id_of(core, "control"), "t1", "few")
    copy = types.IPGroup.FromString((await stored(core, key)).value)
    copy.name, copy.addresses[1].address = "copy", "10.9.0.9"
    await written(core, {keys.group(id_of(core, "control"), "t1", "copy"): copy.SerializeToString()})


async def a_name_of_nothing(core: Core) -> None:
    """A name and a VNI of networks that are not there, and a network that has lost its name."""
    puts = {keys.network_name("t1", "ghost"): b"0123456789ab", keys.vid("vxlan", 9999): b"0123456789ab"}
    await written(core, puts, [keys.network_name("t1", "wire")])


O, M, F, D = pb.FINDING_KIND_ORPHAN, pb.FINDING_KIND_MISSING, pb.FINDING_KIND_FOREIGN, pb.FINDING_KIND_DOUBLE  # noqa: E741
OUTSIDE, GONE, CLAIM = pb.FINDING_KIND_OUTSIDE, pb.FINDING_KIND_NETWORK_GONE, pb.FINDING_KIND_CLAIM
GROUP, NETWORK = pb.FINDING_KIND_GROUP, pb.FINDING_KIND_NETWORK

# What is broken, the kinds of what is found with how many of it can be repaired, words of the messages.
BROKEN: list[tuple[Break, dict[int, tuple[int, int]], tuple[str, ...]]] = [
    (lose_a_set, {O: (5, 5)}, ("10.1.0.20 is held for pod t1/web-0, which has no port set",)),
    (lose_a_claim, {O: (2, 2)}, ("for claim t1/idle, which is not there",)),
    (lose_an_address, {M: (1, 1)}, ("sandbox c1 on n1 has 10.1.0.10, which no record holds",)),
    (rest_an_address, {M: (1, 1)}, ("sandbox c1 on n1 has 2001:db8:1::", "which rests")),
    (lose_a_mac, {M: (1, 1)}, ("pod t1/web-0 has ", "which no record holds")),
    (another_holder, {F: (1, 1)}, ("has 10.1.0.10, whose record names t1/nobody, which has no port set",)),
    (a_holder_that_is_none, {O: (1, 1)}, ("10.1.0.30 is held for pod x, which has no port set",)),
    (two_owners, {D: (3, 0)}, ("10.1.0.10 is that of sandbox c1 on n1 and of sandbox c2 on n1; its record names sandbox c1",)),
    (a_subnet_cut, {OUTSIDE: (3, 1)}, ("claim t1/idle has 10.1.0.", "t1/vm has 10.1.0.", "rests, and is in no subnet")),
    (a_network_lost, {GONE: (1, 0), NETWORK: (2, 2), O: (1, 1)}, ("pod t1/db-0 has interface eth_tagged on network t1/tagged",)),
    (a_rest_on_no_network, {GONE: (2, 2)}, ("10.9.0.9 rests on network 0123456789ab, which is not there",)),
    (a_use_that_is_none, {CLAIM: (1, 1)}, ("claim t1/vm says that t1/nobody uses it, which does not",)),
    (a_use_that_the_claim_denies, {CLAIM: (1, 0)}, ("t1/vm uses claim t1/vm, whose record says that nobody does",)),
    (a_group_twice, {GROUP: (1, 0), OUTSIDE: (1, 0)}, ("has 10.1.0.20, which IP group t1/copy has too",)),
    (a_name_of_nothing, {NETWORK: (3, 2)}, ("the name t1/ghost means network 0123456789ab", "t1/wire", "vxlan/00009999")),
]


@pytest.mark.parametrize(("breaks", "kinds", "words"), BROKEN, ids=[one[0].__name__ for one in BROKEN])
async def test_what_is_broken_is_named_and_repaired_where_it_can_be(
    core: Core, breaks: Break, kinds: dict[int, tuple[int, int]], words: tuple[str, ...]
) -> None:
    await breaks(core)
    findings, _ = await check(core)
    found = {
        kind: (sum(one.kind == kind for one in findings), sum(one.kind == kind and one.repairable for one in findings))
        for kind in {one.kind for one in findings}
    }
    text = "\n".join(one.message for one in findings)
    assert found == kinds, text
    for word in words:
        assert word in text
    again, _ = await check(core)
    assert again == findings
    repairable = [one for one in findings if one.repairable]
    for repair in await core.repairer.repair(repairable, force=True):
        assert repair.done, from_status(repair.error).message
    left, _ = await check(core)
    assert left == [one for one in findings if not one.repairable]
    for repair in await core.repairer.repair(repairable, force=True):  # a second time there is nothing to do
        assert from_status(repair.error).reason in ("REVISION_STALE", "OBJECT_IN_USE", "OBJECT_NOT_FOUND")


async def test_a_memory_that_is_not_the_stores_is_named(core: Core) -> None:
    record = core.cluster.sets.pop(WEB.key)
    space, number = core.cluster.networks[id_of(core, "control")].space_of("10.1.0.50") or (None, 0)
    assert space is not None
    space.hold(number)
    findings, summary = await check(core)
    assert summary.counters
    assert {one.kind for one in findings} == {pb.FINDING_KIND_MEMORY}
    text = "\n".join(one.message for one in findings)
    assert "pod t1/web-0: this manager knows another set than the store has" in text
    assert "network t1/control: this manager counts 4 used addresses of pool 0 of 10.1.0.0/24, the store has 3" in text
    assert "the store: this manager counts 3 sets, the store has 4" in text
    core.cluster.sets[WEB.key] = record
    space.unmark(number)
    assert (await check(core))[0] == []


async def test_only_what_was_seen_is_repaired_and_never_what_is_whole(core: Core) -> None:
    port = (await set_of(core, SANDBOX.key)).ports[0]
    key = keys.address(port.network_id, port.addresses[0].cidr.partition("/")[0])
    whole = await stored(core, key)
    asked = [
        pb.Finding(key=key, revision=whole.revision),
        pb.Finding(key=key, revision=whole.revision - 1),
        pb.Finding(key=key, revision=whole.revision, rightful=keys.port_set(WEB.key)),
        pb.Finding(key=keys.port_set(WEB.key), revision=1),
        pb.Finding(key="addr/x/y", revision=0),
        pb.Finding(),
    ]
    reasons = [from_status(repair.error).reason for repair in await core.repairer.repair(asked, force=True)]
    assert reasons == ["OBJECT_IN_USE", "REVISION_STALE", "OBJECT_IN_USE", "FIELD_INVALID", "OBJECT_NOT_FOUND", "FIELD_INVALID"]
    assert await stored(core, key) == whole
    assert (await check(core))[0] == []


async def test_what_is_freed_rests_and_goes_out_again(core: Core) -> None:
    shape = Subnet("10.7.0.0/30")
    await core.networks.create(network("tiny", shape))
    first = await allocate(core, named("a"), Wish("tiny"))
    await allocate(core, named("b"), Wish("tiny"))
    await written(core, deletes=[keys.port_set(named("a").key)])
    findings, _ = await check(core)
    for repair in await core.repairer.repair(findings, force=False):
        refused = from_status(repair.error)
        assert refused.reason == "NODES_NOT_ASKED"
        assert "n1 (not connected)" in refused.message
    await core.repairer.repair(findings, force=True)
    assert (await check(core))[0] == []
    again = await allocate(core, named("c"), Wish("tiny"))
    assert again.ports[0].addresses == first.ports[0].addresses
    assert (await check(core))[0] == []


async def test_a_subnet_that_is_taken_away_leaves_no_record_of_a_rest(core: Core) -> None:
    await core.networks.create(network("moving", "10.8.0.0/24", "10.9.0.0/24"))
    taken = [await allocate(core, named(f"m{number}"), Wish("moving", addresses=(f"10.8.0.{number}",))) for number in range(10, 14)]
    for one in taken:
        await release(core, one.owner)
    await core.networks.update(network("moving", "10.9.0.0/24"))
    assert (await check(core))[0] == []
    await core.networks.update(network("moving", "10.8.0.0/24", "10.9.0.0/24"))
    again = await allocate(core, named("again"), Wish("moving", addresses=("10.8.0.11",)))
    assert again.ports[0].addresses[0].cidr == "10.8.0.11/24"
    assert (await check(core))[0] == []


async def test_a_state_between_two_is_not_compared(core: Core) -> None:
    await written(core, {RESTORING: encoded({"phase": APPLYING})})
    with pytest.raises(Unavailable) as refused:
        await check(core)
    assert refused.value.reason == "RESTORING"
    await core.store.commit([], {}, [RESTORING])


async def test_very_many_differences_are_all_named(core: Core) -> None:
    numbers = range(0x1000, 0x1000 + 12_000)
    orphans = {keys.address(id_of(core, "control"), f"2001:db8:1::{number:x}"): b"named/t1/x" for number in numbers}
    for begin in range(0, len(orphans), 1000):
        await written(core, dict(list(orphans.items())[begin : begin + 1000]))
    findings, _ = await check(core)
    assert {one.key for one in findings} == set(orphans)
    assert len(findings) == len(orphans)


@pytest.mark.parametrize("recovering", [False, True])
async def test_a_set_that_runs_takes_no_mac_from_another_one(core: Core, recovering: bool) -> None:
    """It is refused; unless, in a new epoch, the other one is only planned: then that one gives way."""
    await core.nodes.register(Node("n1"))
    mine = await allocate(core, named("a"), Wish("t1/wire", mac="02:00:00:00:00:0a"))
    binding = Binding("c7", "/run/netns/c7")
    told = replace(mine, owner=SandboxOwner("n1", "c7", "knitter", "eth0"), node="n1", binding=binding, revision=0)
    if recovering:
        await core.recovery.write(waiting_record(["n1"]))
    outcome = await core.reconciler.told(Node("n1"), [told], False)
    assert (outcome.refused, outcome.adopted) == (([], [told.owner]) if recovering else ([told.owner], []))
    assert (await check(core))[0] == []
    assert (mine.owner.key in core.cluster.sets) is not recovering


async def test_a_network_that_changes_under_load_forgets_no_address(core: Core) -> None:
    """What is planned when its shape changes is planned again, and not held for ever."""
    ended, answered = asyncio.Event(), asyncio.Event()

    async def churn(number: int) -> None:
        while not ended.is_set():
            await allocate(core, named(f"x{number}"), Wish("t1/other"))
            answered.set()
            await release(core, named(f"x{number}"))

    work = [asyncio.ensure_future(churn(number)) for number in range(8)]
    try:
        for end in range(100, 130):
            await answered.wait()
            answered.clear()
            await core.networks.update(network("other", pooled("10.1.0.0/24", ("10.1.0.1", f"10.1.0.{end}")), tenant="t1"))
    finally:
        ended.set()
        await asyncio.gather(*work)
    assert [one.message for one in (await check(core))[0]] == []


async def test_everything_at_once_still_fits_together(core: Core) -> None:
    """Sets, groups, claims, journals and shapes of networks, changed side by side: refused or done, and nothing half."""
    await core.networks.create(network("busy", "10.20.0.0/26", "2001:db8:20::/122", rest=0.0))
    await core.networks.create(network("plain", rest=0.0))
    for name in ("n1", "n2"):
        await core.nodes.register(Node(name))
    chance = random.Random(7)

    async def allocate_one() -> None:
        number = chance.randrange(12)
        owner = PodOwner("admin", f"p{number % 6}", f"u{number}") if number % 2 else SandboxOwner("n1", f"c{number}", "k", "eth0")
        address, mac = f"10.20.0.{chance.randrange(2, 60)}", f"02:00:00:00:00:0{chance.randrange(4)}"
        sets: list[tuple[Wish, ...]] = [
            (Wish("busy"), Wish("plain")),
            (Wish("busy", ip_group="g"),),
            (Wish("busy", ip_claim="vm"), Wish("busy", interface="e1")),
            (Wish("busy", addresses=(address,)), Wish("plain", mac=mac)),
        ]
        wishes = chance.choice(sets)
        binding = chance.choice([None, Binding(f"s{number}", f"/run/netns/s{number}")])
        node = "n1" if isinstance(owner, SandboxOwner) else chance.choice(["", "n1", "n2"])
        wanted = Allocation(owner, "admin", node, wishes, binding, sticky=bool(number % 3), replace=chance.random() < 0.5)
        await core.sets.allocate(wanted)

    async def release_one() -> None:
        if core.cluster.sets:
            owner = keys.owner_of(chance.choice(list(core.cluster.sets)))
            await core.sets.release(Return(owner, unbind_only=chance.random() < 0.3))

    async def end_one() -> None:
        if core.cluster.sets:
            owner = keys.owner_of(chance.choice(list(core.cluster.sets)))
            await core.sets.end_by_hand(owner, 0, force=chance.random() < 0.5)

    async def group_one() -> None:
        ips = tuple(f"10.20.0.{number}" for number in sorted(chance.sample(range(2, 60), 4)))
        wanted = IPGroup("admin", "g", "busy", ips=ips) if chance.random() < 0.5 else IPGroup("admin", "g", "busy", size=4)
        await chance.choice([core.groups.create, core.groups.update])(wanted)

    async def claim_one() -> None:
        address = f"10.20.0.{chance.randrange(2, 60)}"
        wanted = IPClaim("admin", "vm", "busy", wanted_addresses=chance.choice([(), (address,)]))
        if chance.random() < 0.3:
            await core.claims.delete("admin", "vm", 0, "")
        else:
            await chance.choice([core.claims.create, core.claims.update])(wanted)

    async def shape_one() -> None:
        first = chance.choice(
            [Subnet("10.20.0.0/26"), pooled("10.20.0.0/26", ("10.20.0.1", f"10.20.0.{chance.randrange(30, 62)}"))]
        )
        await core.networks.update(network("busy", first, "2001:db8:20::/122", rest=0.0))

    async def tell_one() -> None:
        node = chance.choice(["n1", "n2"])
        mine = [port_set_of(core.cluster.sets[key]) for key in core.cluster.node(node).owners]
        strange = [replace(one, owner=SandboxOwner(node, "strange", "k", "eth0"), revision=0) for one in mine[:1]]
        await core.reconciler.told(Node(node), [one for one in mine if one.binding] + strange, False)

    async def worker() -> None:
        for _ in range(60):
            work = chance.choices(
                [allocate_one, release_one, end_one, group_one, claim_one, shape_one, tell_one], [10, 6, 2, 1, 2, 1, 1]
            )[0]
            try:
                await work()
            except KnitterError as error:
                if isinstance(error, Internal):
                    raise

    await asyncio.gather(*(worker() for _ in range(8)))
    findings, summary = await check(core)
    assert [one.message for one in findings] == []
    assert summary.counters  # nothing that was planned is forgotten
    before = len(core.cluster.sets)
    await core.sweeper.sweep()
    assert (await check(core))[0] == []
    assert before
