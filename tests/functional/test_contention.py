"""Many clients on several streams, to three real managers over one store, fight for what is nearly used up: exactly as many win as
can, those who lose hold nothing, and nobody else's set moves."""

import asyncio
import itertools
import random
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from harness.etcd import shared
from harness.managers import Managing

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_agent.manager_client import ManagerClient
from knitter_common import convert
from knitter_common.errors import Exhausted, KnitterError, NotFound
from knitter_common.managers import Backoff, Managers
from knitter_common.model import Allocation, NamedOwner, Owner, PodOwner, PortSet, Return, Wish

pytestmark = pytest.mark.timeout(120)

STREAMS = 6
MANY = 48  # clients of one fight

T = TypeVar("T")


@pytest.fixture(scope="module", params=["sqlite", "etcd"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managing]:
    folder: Path = tmp_path_factory.mktemp("contention")
    store: dict[str, Any] = {"kind": "sqlite", "path": str(folder / "store.db")}
    if request.param == "etcd":
        prefix = f"/test/{secrets.token_hex(6)}/"
        store = {"kind": "etcd", "endpoints": list(shared().endpoints), "prefix": prefix, "compact": False, "lease": 2}
    made = Managing(folder, store)
    yield made
    made.close()


_arenas = itertools.count(1)


class Arena:
    """A tenant of its own and its clients: STREAMS streams, and as many that call."""

    def __init__(self, site: Managing) -> None:
        self.number = next(_arenas)
        self.tenant = f"t{self.number}"
        self.site = site
        self.streams = [ManagerClient(Managers(site.addresses), _no_journal, Backoff(most=0.5)) for _ in range(STREAMS)]
        self.callers = [Managers(site.addresses) for _ in range(STREAMS)]
        self._before: dict[str, types.PortSet] = {}

    # -- making ------------------------------------------------------------------------------------------------------------

    def cidr(self, third: int = 0, length: int = 24) -> str:
        """A subnet of this arena's own."""
        return f"10.{self.number}.{third}.0/{length}"

    async def call(self, method: str, request: Any, caller: int = 0) -> Any:
        """One call, to whichever manager writes."""
        return await self.callers[caller % STREAMS].call(lambda stub: getattr(stub, method), request, within=60)

    async def network(self, name: str, *cidrs: str, caller: int = 0, **fields: Any) -> types.Network:
        """One with these subnets; nothing rests on it."""
        subnets = [types.Subnet(cidr=cidr) for cidr in cidrs]
        wanted = convert.network_to_proto(convert.network_from_proto(types.Network(tenant=self.tenant, name=name, subnets=subnets)))
        wanted.MergeFrom(types.Network(**fields))
        wanted.rest.FromSeconds(0)
        made: types.Network = (await self.call("CreateNetwork", pb.CreateNetworkRequest(network=wanted), caller)).network
        return made

    def vm(self, name: object) -> NamedOwner:
        """An owner."""
        return NamedOwner(self.tenant, str(name))

    async def allocate(self, owner: Owner, *wishes: Wish, stream: int = 0, **fields: Any) -> PortSet:
        """Over one of the streams."""
        wanted = Allocation(owner=owner, wishes=wishes, **fields)
        granted = await self.streams[stream % STREAMS].allocate(wanted, 60)
        return convert.port_set_from_proto(types.PortSet.FromString(granted.encoded))

    async def release(self, owner: Owner, stream: int = 0, **fields: Any) -> None:
        """Over one of the streams."""
        await self.streams[stream % STREAMS].release(Return(owner, **fields))

    async def bystanders(self, network: str, count: int) -> None:
        """Sets that must not move."""
        made = await asyncio.gather(
            *(self.allocate(self.vm(f"by{number}"), Wish(network=network), stream=number) for number in range(count))
        )
        for one in made:
            self._before[one.owner.key] = await self.set_of(one.owner)

    # -- looking -----------------------------------------------------------------------------------------------------------

    async def set_of(self, owner: Owner) -> types.PortSet:
        """As the writer has it."""
        found: types.PortSet = (await self.call("GetPortSet", pb.GetPortSetRequest(owner=convert.owner_to_proto(owner)))).port_set
        return found

    async def used(self, network: str) -> int:
        """Addresses held on a network, all pools together."""
        told = await self.call("ListNetworkUsage", pb.ListNetworkUsageRequest(network=f"{self.tenant}/{network}"))
        return sum(pool.used for pool in told.networks[0].pools)

    async def unmoved(self, *winners: PortSet) -> None:
        """Every manager lists exactly the bystanders, as they were, and the winners; nothing has two owners."""
        wanted = self._before | {one.owner.key: convert.port_set_to_proto(one) for one in winners}
        newest = max((one.revision for one in wanted.values()), default=0)
        for address in self.site.addresses:
            listed = await _listed(address, self.tenant, newest)
            assert listed.keys() == wanted.keys()
            for key, before in self._before.items():
                assert listed[key] == before
            held = [(port.network_id, one.cidr) for each in listed.values() for port in each.ports for one in port.addresses]
            assert len(held) == len(set(held))
            macs = [(port.network_id, port.mac) for each in listed.values() for port in each.ports]
            assert len(macs) == len(set(macs))

    async def close(self) -> None:
        """Ends the clients and what they hold."""
        for message in (await self.call("ListPortSets", pb.ListPortSetsRequest(tenant=self.tenant, page_size=1000))).port_sets:
            await self.release(convert.owner_from_proto(message.owner))
        await asyncio.gather(*(stream.close() for stream in self.streams), *(caller.close() for caller in self.callers))


async def _no_journal(_: Managers) -> None:
    return


async def _listed(address: str, tenant: str, newest: int) -> dict[str, types.PortSet]:
    """A tenant's sets as one manager has them once it has come so far."""
    managers = Managers([address])
    try:
        async with asyncio.timeout(20):
            while True:
                told = await managers.call(lambda stub: stub.GetStatus, pb.GetStatusRequest())
                if told.revision >= newest:
                    break
                await asyncio.sleep(0.02)
        answer = await managers.call(lambda stub: stub.ListPortSets, pb.ListPortSetsRequest(tenant=tenant, page_size=1000))
        return {convert.owner_from_proto(one.owner).key: one for one in answer.port_sets}
    finally:
        await managers.close()


async def fight(works: Sequence[Awaitable[T]]) -> tuple[list[T], Counter[str]]:
    """All at once: the results of those who won, and why the others lost."""
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    won: list[T] = []
    lost: Counter[str] = Counter()
    for outcome in outcomes:
        if isinstance(outcome, KnitterError):
            lost[outcome.reason] += 1
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            won.append(outcome)
    return won, lost


@pytest.fixture
async def arena(site: Managing) -> AsyncIterator[Arena]:
    made = Arena(site)
    for stream in made.streams:
        stream.start()
    yield made
    await made.close()


# -- pools -------------------------------------------------------------------------------------------------------------------


async def test_of_a_nearly_full_pool_as_many_win_as_are_free(arena: Arena) -> None:
    await arena.network("small", arena.cidr(length=27))  # 30 addresses
    await arena.bystanders("small", 23)
    won, lost = await fight([arena.allocate(arena.vm(number), Wish(network="small"), stream=number) for number in range(MANY)])
    assert (len(won), lost) == (7, {"POOL_EXHAUSTED": MANY - 7})
    assert await arena.used("small") == 30
    await arena.unmoved(*won)


async def test_who_lacks_one_of_several_interfaces_or_families_takes_nothing(arena: Arena) -> None:
    wide, narrow = arena.cidr(0, 24), arena.cidr(1, 28)
    await arena.network("wide", wide)
    await arena.network("both", narrow, f"2001:db8:{arena.number:x}::/125")
    await arena.bystanders("both", 2)
    v6 = await arena.used("both") - 2
    assert v6 == 2
    wishes = (Wish(network="wide", interface="eth0"), Wish(network="both", interface="eth1"))
    won, lost = await fight([arena.allocate(arena.vm(number), *wishes, stream=number) for number in range(MANY)])
    free = 7 - 2  # of a /125 the subnet-router anycast address is never given
    assert (len(won), lost) == (free, {"POOL_EXHAUSTED": MANY - free})
    assert (await arena.used("wide"), await arena.used("both")) == (free, 2 * (2 + free))
    await arena.unmoved(*won)


async def test_one_wanted_address_has_one_owner(arena: Arena) -> None:
    await arena.network("net", arena.cidr())
    await arena.bystanders("net", 5)
    address = f"10.{arena.number}.0.77"
    wish = Wish(network="net", addresses=(address,))
    won, lost = await fight([arena.allocate(arena.vm(number), wish, stream=number) for number in range(MANY)])
    assert (len(won), lost) == (1, {"ADDRESS_TAKEN": MANY - 1})
    assert won[0].ports[0].addresses[0].cidr == f"{address}/24"
    await arena.unmoved(*won)


async def test_one_wanted_mac_has_one_owner(arena: Arena) -> None:
    await arena.network("net", arena.cidr())
    await arena.bystanders("net", 5)
    wish = Wish(network="net", mac="02:00:00:00:00:77")
    won, lost = await fight([arena.allocate(arena.vm(number), wish, stream=number) for number in range(MANY)])
    assert (len(won), lost) == (1, {"MAC_TAKEN": MANY - 1})
    assert await arena.used("net") == 6
    await arena.unmoved(*won)


# -- quotas ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quota", "free"), [({"ports": 14, "addresses": 100}, 3), ({"ports": 100, "addresses": 26}, 4)])
async def test_a_quota_of_ports_or_addresses_is_filled_and_never_passed(arena: Arena, quota: dict[str, int], free: int) -> None:
    limits = types.Quota(networks=10, **quota)
    await arena.call("CreateTenant", pb.CreateTenantRequest(tenant=types.Tenant(name=arena.tenant, quota=limits)))
    await arena.network("net", arena.cidr(), f"2001:db8:{arena.number:x}::/64")
    await arena.network("plain", arena.cidr(1))
    await arena.bystanders("net", 8)  # 8 ports, 16 addresses
    wishes = (Wish(network="net", interface="eth0"), Wish(network="plain", interface="eth1"))  # 2 ports, 3 addresses
    count = min((quota["ports"] - 8) // 2, (quota["addresses"] - 16) // 3)
    assert count <= free
    won, lost = await fight([arena.allocate(arena.vm(number), *wishes, stream=number) for number in range(MANY)])
    assert (len(won), lost) == (count, {"QUOTA_EXCEEDED": MANY - count})
    used = (await arena.call("GetTenant", pb.GetTenantRequest(name=arena.tenant))).tenant.used
    assert (used.ports, used.addresses) == (8 + 2 * count, 16 + 3 * count)
    await arena.unmoved(*won)


async def test_a_quota_of_networks_is_filled_and_never_passed(arena: Arena) -> None:
    limits = types.Quota(networks=7)
    await arena.call("CreateTenant", pb.CreateTenantRequest(tenant=types.Tenant(name=arena.tenant, quota=limits)))
    await arena.network("first", arena.cidr())
    won, lost = await fight([arena.network(f"n{number}", arena.cidr(number + 1), caller=number) for number in range(MANY)])
    assert (len(won), lost) == (6, {"QUOTA_EXCEEDED": MANY - 6})
    listed = (await arena.call("ListNetworks", pb.ListNetworksRequest(tenant=arena.tenant))).networks
    assert {one.name for one in listed if one.tenant == arena.tenant} == {"first", *(one.name for one in won)}


# -- groups and claims -------------------------------------------------------------------------------------------------------


async def test_of_a_group_as_many_win_as_it_has_addresses(arena: Arena) -> None:
    await arena.network("net", arena.cidr())
    group = types.IPGroup(tenant=arena.tenant, name="g", network="net", size=9)
    await arena.call("CreateIPGroup", pb.CreateIPGroupRequest(ip_group=group))
    await arena.bystanders("net", 5)
    inside = await asyncio.gather(*(arena.allocate(arena.vm(f"in{n}"), Wish(network="net", ip_group="g")) for n in range(4)))
    won, lost = await fight(
        [arena.allocate(arena.vm(number), Wish(network="net", ip_group="g"), stream=number) for number in range(MANY)]
    )
    assert (len(won), lost) == (5, {"GROUP_EXHAUSTED": MANY - 5})
    asked = pb.GetIPGroupRequest(tenant=arena.tenant, network="net", name="g")
    told = (await arena.call("GetIPGroup", asked)).ip_group
    users = {convert.owner_from_proto(one.used_by).key for one in told.addresses if one.HasField("used_by")}
    assert users == {one.owner.key for one in (*inside, *won)}
    await arena.unmoved(*inside, *won)


async def test_groups_that_want_the_last_addresses_are_made_whole_or_not(arena: Arena) -> None:
    await arena.network("net", arena.cidr(length=27))  # 30 addresses
    await arena.bystanders("net", 9)

    async def make(number: int) -> types.IPGroup:
        wanted = types.IPGroup(tenant=arena.tenant, name=f"g{number}", network="net", size=5)
        made: types.IPGroup = (await arena.call("CreateIPGroup", pb.CreateIPGroupRequest(ip_group=wanted), number)).ip_group
        return made

    won, lost = await fight([make(number) for number in range(12)])
    assert (len(won), lost) == (4, {"POOL_EXHAUSTED": 8})
    assert len({one.address for each in won for one in each.addresses}) == 20
    last = await arena.allocate(arena.vm("last"), Wish(network="net"))
    assert not {one.address for each in won for one in each.addresses} & {last.ports[0].addresses[0].cidr.partition("/")[0]}
    await arena.unmoved(last)


async def test_a_claim_has_one_user(arena: Arena) -> None:
    await arena.network("net", arena.cidr())
    await arena.bystanders("net", 3)
    claim = types.IPClaim(tenant=arena.tenant, name="c", network="net")
    await arena.call("CreateIPClaim", pb.CreateIPClaimRequest(ip_claim=claim))
    wish = Wish(network="net", ip_claim="c")
    won, lost = await fight([arena.allocate(arena.vm(number), wish, stream=number) for number in range(MANY)])
    assert (len(won), sum(lost.values()), len(lost)) == (1, MANY - 1, 1)
    asked = pb.GetIPClaimRequest(tenant=arena.tenant, name="c")
    assert convert.owner_from_proto((await arena.call("GetIPClaim", asked)).ip_claim.used_by) == won[0].owner
    await arena.unmoved(*won)


# -- the same at once --------------------------------------------------------------------------------------------------------


async def test_identical_creates_make_one_and_all_are_told_of_it(arena: Arena) -> None:
    won, lost = await fight([arena.network("net", arena.cidr(), caller=number) for number in range(MANY)])
    assert (len(won), lost) == (MANY, {})
    assert len({(one.id, one.revision) for one in won}) == 1
    for method, request in (
        ("CreateIPGroup", pb.CreateIPGroupRequest(ip_group=types.IPGroup(tenant=arena.tenant, name="g", network="net", size=3))),
        ("CreateIPClaim", pb.CreateIPClaimRequest(ip_claim=types.IPClaim(tenant=arena.tenant, name="c", network="net"))),
        ("CreateTenant", pb.CreateTenantRequest(tenant=types.Tenant(name=f"{arena.tenant}-x", description="one"))),
    ):
        answers, lost = await fight([arena.call(method, request, number) for number in range(MANY)])
        assert (len({one.SerializeToString(deterministic=True) for one in answers}), lost) == (1, {})
    assert await arena.used("net") == 1


async def test_of_different_shapes_under_one_name_one_is_made(arena: Arena) -> None:
    shapes = [arena.network("net", arena.cidr(number), caller=number) for number in range(MANY)]
    won, lost = await fight(shapes)
    assert (len(won), lost) == (1, {"OBJECT_EXISTS": MANY - 1})
    assert await arena.used("net") == 0


async def test_the_same_allocation_on_every_stream_is_one_set(arena: Arena) -> None:
    await arena.network("net", arena.cidr())
    await arena.bystanders("net", 3)
    won, lost = await fight([arena.allocate(arena.vm("x"), Wish(network="net"), stream=number) for number in range(MANY)])
    assert (len(won), lost) == (MANY, {})
    assert len({(one.ports[0].mac, one.ports[0].addresses, one.revision) for one in won}) == 1
    await arena.unmoved(won[0])


async def test_of_different_wishes_of_one_owner_one_is_granted(arena: Arena) -> None:
    await arena.network("net", arena.cidr())
    await arena.bystanders("net", 3)
    wishes = [Wish(network="net", interface=f"eth{number % 6}") for number in range(MANY)]
    won, lost = await fight([arena.allocate(arena.vm("x"), wish, stream=number) for number, wish in enumerate(wishes)])
    assert len({one.ports[0].interface for one in won}) == 1
    assert (len(won), lost) == (MANY // 6, {"OWNER_HAS_OTHER_WISHES": MANY - MANY // 6})
    assert await arena.used("net") == 4
    await arena.unmoved(won[0])


async def test_mixed_allocations_and_releases_of_few_owners_leave_what_the_last_ones_said(arena: Arena) -> None:
    await arena.network("net", arena.cidr(length=28))  # 14 addresses
    await arena.bystanders("net", 6)
    owners: list[Owner] = [arena.vm(f"x{number}") for number in range(4)]
    owners += [PodOwner(arena.tenant, f"pod{number}", f"u{number}") for number in range(4)]
    order = random.Random(arena.number)

    async def client(number: int) -> None:
        for _ in range(25):
            owner = order.choice(owners)
            if order.random() < 0.5:
                got = await arena.allocate(owner, Wish(network="net"), stream=number, node="n1")
                assert got.owner == owner
            else:
                await arena.release(owner, stream=number)

    _, lost = await fight([client(number) for number in range(12)])
    assert lost == {}
    await asyncio.gather(*(arena.release(owner) for owner in owners))
    await asyncio.gather(*(arena.release(owner, unbind_only=True) for owner in owners if isinstance(owner, PodOwner)))
    for owner in owners:
        with pytest.raises(NotFound):
            await arena.set_of(owner)
    assert await arena.used("net") == 6
    await arena.unmoved()


async def test_addresses_that_come_and_go_are_never_two_owners(arena: Arena) -> None:
    await arena.network("net", arena.cidr(length=28))  # 14 addresses for 24 clients
    await arena.bystanders("net", 4)
    held: dict[str, str] = {}

    async def client(number: int) -> int:
        won = 0
        for turn in range(15):
            owner = arena.vm(f"c{number}-{turn}")
            try:
                got = await arena.allocate(owner, Wish(network="net"), stream=number)
            except Exhausted:
                continue
            won += 1
            address = got.ports[0].addresses[0].cidr
            assert held.setdefault(address, owner.key) == owner.key
            await asyncio.sleep(0)
            del held[address]
            await arena.release(owner, stream=number)
        return won

    won, lost = await fight([client(number) for number in range(24)])
    assert lost == {}
    assert sum(won) >= 10
    assert await arena.used("net") == 4
    await arena.unmoved()


# -- while the writer changes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_as_many_win_while_the_writer_changes(arena: Arena, end: signal.Signals) -> None:
    await arena.network("small", arena.cidr(length=26))  # 62 addresses
    limits = types.Quota(networks=10, ports=55, addresses=55)
    await arena.call("CreateTenant", pb.CreateTenantRequest(tenant=types.Tenant(name=arena.tenant, quota=limits)))
    await arena.bystanders("small", 20)
    old = await arena.site.writer()
    begun = asyncio.Event()

    async def ask(number: int) -> PortSet:
        if number % 2:
            await begun.wait()
        got = await arena.allocate(arena.vm(number), Wish(network="small"), stream=number)
        begun.set()
        return got

    async def depose() -> None:
        await begun.wait()
        arena.site.managers[old].signal(end)
        await asyncio.to_thread(arena.site.managers[old].wait)

    fighting = asyncio.gather(fight([ask(number) for number in range(MANY)]), depose())
    try:
        (won, lost), _ = await fighting
    finally:
        await arena.site.start(old)
    assert (len(won), lost) == (35, {"QUOTA_EXCEEDED": MANY - 35})
    assert await arena.used("small") == 55
    await arena.unmoved(*won)
