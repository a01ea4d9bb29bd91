"""Three managers on three members of etcd, all real processes: whatever is killed, stopped or cut off, one writes at a time, no
address has two owners at any moment, and nothing acknowledged is lost."""

import asyncio
import contextlib
import itertools
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from harness.daemons import Daemon, Daemons
from harness.etcd import Cluster, why_not
from harness.history import History, Holding

from knitter.v1 import manager_pb2 as pb
from knitter_agent.manager_client import ManagerClient
from knitter_common import convert
from knitter_common.errors import KnitterError, Unavailable, from_rpc_error
from knitter_common.managers import Managers
from knitter_common.model import Allocation, NamedOwner, Network, PortSet, Return, Subnet, Wish

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.timeout(120)]

LEASE = 2.0  # seconds
TAKEOVER = 5.0  # seconds in which another manager writes after kill -9
FOUND = 1.0  # seconds in which a client finds it then


class Site:
    """The members, the managers, and clients of all of them."""

    def __init__(self, folder: Path) -> None:
        self.daemons = Daemons(folder)
        self.etcd = Cluster(folder / "etcd", size=3)
        self.managers: list[Daemon] = [self._start(number, "127.0.0.1:0") for number in range(3)]
        self.addresses = [manager.address for manager in self.managers]

    def _start(self, number: int, listen: str) -> Daemon:
        store = {"kind": "etcd", "endpoints": list(self.etcd.endpoints), "lease": LEASE, "compact": False, "timeout": 2.0}
        config = {"listen": listen, "store": store, "heartbeat": 0.3}
        return self.daemons.start("knitter-manager", config, name=f"manager{number}")

    async def start(self, number: int) -> None:
        """The manager again, where it was."""
        self.managers[number] = await asyncio.to_thread(self._start, number, self.addresses[number])

    async def status(self, number: int, within: float = 1.0) -> pb.GetStatusResponse | None:
        """What a manager says of itself; None when it does not answer."""
        async with grpc.aio.insecure_channel(self.addresses[number]) as channel:
            call = channel.unary_unary(
                "/knitter.v1.ManagerService/GetStatus",
                request_serializer=pb.GetStatusRequest.SerializeToString,
                response_deserializer=pb.GetStatusResponse.FromString,
            )
            try:
                return await call(pb.GetStatusRequest(), timeout=within, wait_for_ready=True)
            except grpc.aio.AioRpcError:
                return None

    async def writer(self, within: float = 10.0, but: int = -1) -> int:
        """The number of the manager that writes; not `but`."""
        until = time.monotonic() + within
        while True:
            for number in range(3):
                if number != but and self.managers[number].running:
                    told = await self.status(number, 0.3)
                    if told is not None and told.writing:
                        return number
            assert time.monotonic() < until, "nobody writes"
            await asyncio.sleep(0.02)

    def close(self) -> None:
        self.daemons.close()
        self.etcd.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("managers"))
    yield made
    made.close()


@pytest.fixture
async def managers(site: Site) -> AsyncIterator[Managers]:
    """A client of all three; the network is there."""
    client = Managers(site.addresses)
    wanted = convert.network_to_proto(Network(tenant="admin", name="small", subnets=(Subnet("10.4.0.0/26"),), rest=0.0))
    await client.call(lambda stub: stub.CreateNetwork, pb.CreateNetworkRequest(network=wanted), within=20)
    yield client
    await client.close()


_numbers = itertools.count()


def some_owner() -> NamedOwner:
    return NamedOwner("admin", f"vm{next(_numbers)}")


async def allocate(managers: Managers, owner: NamedOwner, within: float = 10.0) -> PortSet:
    wanted = convert.allocation_to_proto(Allocation(owner=owner, wishes=(Wish(network="small"),)))
    answer = await managers.call(lambda stub: stub.Allocate, pb.AllocateRequest(allocation=wanted), within=within)
    return convert.port_set_from_proto(answer.port_set)


async def release(managers: Managers, owner: NamedOwner, within: float = 10.0) -> None:
    message = convert.give_back_to_proto(Return(owner))
    await managers.call(lambda stub: stub.Release, pb.ReleaseRequest(release=message), within=within)


def addresses_of(port_set: PortSet) -> tuple[str, ...]:
    return tuple(one.cidr for port in port_set.ports for one in port.addresses)


class Churn:
    """Clients that allocate and release for ever, and what they were told."""

    def __init__(self, site: Site, width: int = 8) -> None:
        self.history, self._site, self._width = History(), site, width
        self._ending, self._answered = asyncio.Event(), asyncio.Event()
        self.answers: list[float] = []  # when a write was answered
        self._doubtful: set[str] = set()

    async def _client(self) -> None:
        managers = Managers(self._site.addresses)
        try:
            while not self._ending.is_set():
                owner = some_owner()
                try:
                    got = await allocate(managers, owner)
                except KnitterError as error:
                    self.history.failed(f"{owner.name}: {error.message}")
                    self._doubtful.add(owner.key)
                    continue
                self.answers.append(time.monotonic())
                self._answered.set()
                holding = self.history.added(owner.key, addresses_of(got))
                await asyncio.sleep(random.uniform(0, 0.02))
                if random.random() < 0.02 and len(self.history.living()) < 30:
                    continue  # kept to the end
                await self._give_back(managers, owner, holding)
        finally:
            await managers.close()

    async def _give_back(self, managers: Managers, owner: NamedOwner, holding: Holding) -> None:
        holding.until = time.monotonic()
        try:
            await release(managers, owner)
        except KnitterError as error:
            self.history.failed(f"{owner.name}: {error.message}")
            self._doubtful.add(owner.key)

    @contextlib.asynccontextmanager
    async def running(self, managers: Managers) -> AsyncIterator["Churn"]:
        """Runs the clients; afterwards judges what they were told against what the store holds, and empties it."""
        clients = [asyncio.create_task(self._client()) for _ in range(self._width)]
        try:
            await asyncio.sleep(0.5)
            yield self
            await asyncio.sleep(0.5)
        finally:
            self._ending.set()
            await asyncio.gather(*clients)
        assert self.history.violations() == []
        held = await everything(self._site, await self._site.writer())
        for holding in self.history.living():
            assert addresses_of(held[holding.container]) == holding.addresses
        unasked = held.keys() - {holding.container for holding in self.history.living()} - self._doubtful
        assert unasked == set()
        for owner_set in held.values():
            assert isinstance(owner_set.owner, NamedOwner)
            await release(managers, owner_set.owner)

    def answered_after(self, moment: float) -> float:
        """Seconds from a moment to the first write that was answered after it."""
        return next((at - moment for at in self.answers if at > moment), float("inf"))

    async def until_answered_after(self, moment: float, within: float = 10.0) -> float:
        """The same, waited for."""
        async with asyncio.timeout(within):
            while self.answered_after(moment) == float("inf"):
                self._answered.clear()
                await self._answered.wait()
        return self.answered_after(moment)


async def everything(site: Site, number: int) -> dict[str, PortSet]:
    """All sets as one manager lists them."""
    managers = Managers([site.addresses[number]])
    try:
        found, token = {}, ""
        while True:
            answer = await managers.call(lambda stub: stub.ListPortSets, pb.ListPortSetsRequest(page_token=token))
            for message in answer.port_sets:
                port_set = convert.port_set_from_proto(message)
                found[port_set.owner.key] = port_set
            token = answer.next_page_token
            if not token:
                return found
    finally:
        await managers.close()


async def follow(site: Site, number: int, until: int, epoch: str = "", after: int = 0) -> tuple[set[str], str, int, bool]:
    """The feed of one manager up to a revision: the owners then, where it got to, and whether it began anew."""
    owners: set[str] = set()
    reset = False
    managers = Managers([site.addresses[number]])
    try:
        async with asyncio.timeout(15):
            async for message in managers.stub().Changes(pb.ChangesRequest(epoch=epoch, after_revision=after)):
                match message.WhichOneof("event"):
                    case "reset":
                        owners, reset, epoch = set(), True, message.reset.epoch
                    case "changes":
                        for change in message.changes.changes:
                            after = max(after, change.revision)
                            if change.WhichOneof("object") == "port_set":
                                owners.add(convert.owner_from_proto(change.port_set.owner).key)
                            elif change.deleted.HasField("owner"):
                                owners.discard(convert.owner_from_proto(change.deleted.owner).key)
                    case "synced":
                        epoch, after = message.synced.epoch, message.synced.revision
                    case "heartbeat":
                        after = max(after, message.heartbeat.revision)
                if after >= until and message.WhichOneof("event") != "reset":
                    return owners, epoch, after, reset
        raise AssertionError("the feed ended")
    finally:
        await managers.close()


async def test_every_manager_answers_reads_and_the_feed_and_names_the_writer(site: Site, managers: Managers) -> None:
    owner = some_owner()
    got = await allocate(managers, owner)
    writer = await site.writer()
    for number in range(3):
        owners, epoch, _, _ = await follow(site, number, got.revision)
        assert owner.key in owners
        assert addresses_of((await everything(site, number))[owner.key]) == addresses_of(got)
        told = await site.status(number)
        assert told is not None
        assert (told.writer, told.writing, told.epoch) == (site.addresses[writer], number == writer, epoch)
        if number != writer:
            with pytest.raises(Unavailable) as raised:
                await direct(site, number)
            assert (raised.value.reason, raised.value.metadata["writer"]) == ("NOT_WRITER", site.addresses[writer])
    await release(managers, owner)


async def direct(site: Site, number: int, within: float = 5.0) -> None:
    """One Allocate to one manager, once. Raises KnitterError."""
    managers = Managers([site.addresses[number]])
    wanted = convert.allocation_to_proto(Allocation(owner=some_owner(), wishes=(Wish(network="small"),)))
    try:
        await managers.stub().Allocate(pb.AllocateRequest(allocation=wanted), timeout=within)
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure) from failure
    finally:
        await managers.close()


async def test_sigterm_hands_over_at_once(site: Site, managers: Managers) -> None:
    async with Churn(site).running(managers) as churn:
        old, begin = await site.writer(), time.monotonic()
        ended = asyncio.create_task(asyncio.to_thread(site.managers[old].terminate))
        await site.writer(but=old)
        assert time.monotonic() - begin < LEASE, "another one waited for the lease"
        assert await churn.until_answered_after(time.monotonic()) < FOUND
        assert await ended == 0
        await site.start(old)


async def test_after_kill_9_another_writes_within_5_seconds(site: Site, managers: Managers) -> None:
    async with Churn(site).running(managers) as churn:
        for _ in range(2):
            old, begin = await site.writer(), time.monotonic()
            site.managers[old].kill()
            await site.writer(but=old)
            now = time.monotonic()
            assert now - begin < TAKEOVER
            assert await churn.until_answered_after(now) < FOUND
            await site.start(old)


async def test_a_writer_stopped_for_longer_than_its_lease_is_no_second_owner(site: Site, managers: Managers) -> None:
    async with Churn(site).running(managers) as churn:
        old = await site.writer()
        site.managers[old].signal(signal.SIGSTOP)
        try:
            new = await site.writer(but=old)
            assert await churn.until_answered_after(time.monotonic()) < FOUND
            await asyncio.sleep(0.5)
        finally:
            site.managers[old].signal(signal.SIGCONT)
        with pytest.raises(Unavailable) as raised:
            await direct(site, old)
        assert raised.value.reason in ("NOT_WRITER", "NO_WRITER")
        assert await site.writer() == new
        told = await site.status(old)
        assert told is not None
        assert not told.writing
    assert site.managers[old].running


async def test_an_agent_s_stream_leaves_a_stopped_writer_for_the_one_that_writes(site: Site, managers: Managers) -> None:
    async def nothing(_: Managers) -> None:
        return

    client = ManagerClient(Managers(site.addresses), nothing)
    client.start()
    try:
        owners = [some_owner() for _ in range(2)]
        wish = (Wish(network="small"),)
        await client.allocate(Allocation(owner=owners[0], wishes=wish), 10)
        old = await site.writer()
        site.managers[old].signal(signal.SIGSTOP)
        try:
            waiting = asyncio.create_task(client.allocate(Allocation(owner=owners[1], wishes=wish), 15))
            await site.writer(but=old)
            begin = time.monotonic()
            await waiting
            assert time.monotonic() - begin < FOUND
        finally:
            site.managers[old].signal(signal.SIGCONT)
        for owner in owners:
            await client.release(Return(owner))
    finally:
        await client.close()


async def test_a_change_of_etcd_s_leader_is_borne(site: Site, managers: Managers) -> None:
    async with Churn(site).running(managers) as churn:
        leader = site.etcd.leader()
        site.etcd.kill(leader)
        assert await churn.until_answered_after(time.monotonic() + 0.1) < TAKEOVER
        await asyncio.to_thread(site.etcd.start, leader)


async def test_a_feed_that_resumes_behind_a_compaction_begins_anew_and_misses_nothing(site: Site, managers: Managers) -> None:
    kept, gone = some_owner(), some_owner()
    first = await allocate(managers, gone)
    _, epoch, position, _ = await follow(site, 0, first.revision)
    await release(managers, gone)
    last = await allocate(managers, kept)
    follower = (await site.writer() + 1) % 3
    await asyncio.to_thread(site.managers[follower].kill)
    site.etcd.ctl("compact", str(last.revision))
    await site.start(follower)  # its ring is empty, and the log does not reach back
    owners, _, _, reset = await follow(site, follower, last.revision, epoch, position)
    assert reset
    assert kept.key in owners
    assert gone.key not in owners
    await release(managers, kept)


async def test_without_a_quorum_writes_say_so_and_reads_go_on(site: Site, managers: Managers) -> None:
    owner = some_owner()
    got = await allocate(managers, owner)
    for number in range(3):
        await follow(site, number, got.revision)
    for member in (0, 1):
        site.etcd.kill(member)
    begin = time.monotonic()
    with pytest.raises(Unavailable) as raised:
        await allocate(managers, some_owner(), within=4.0)
    assert raised.value.reason in ("STORE_UNAVAILABLE", "NO_WRITER", "NOT_WRITER", "MANAGER_UNAVAILABLE")
    assert time.monotonic() - begin < 5.0
    for number in range(3):
        assert owner.key in await everything(site, number)
    await asyncio.gather(*(asyncio.to_thread(site.etcd.start, member) for member in (0, 1)))
    begin = time.monotonic()
    await allocate(managers, some_owner(), within=20)
    assert time.monotonic() - begin < 10.0
    await release(managers, owner)
