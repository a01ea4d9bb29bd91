"""Three managers on three members of etcd, all real processes: whatever is killed, stopped or cut off, one writes at a time, no
address has two owners at any moment, and nothing acknowledged is lost."""

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from harness.etcd import Cluster, why_not
from harness.managers import Churn, Managing, addresses_of, allocate, direct, everything, follow, release, some_owner
from harness.relay import Relay

from knitter.v1 import manager_pb2 as pb
from knitter_agent.manager_client import ManagerClient
from knitter_common import convert
from knitter_common.errors import Unavailable
from knitter_common.managers import Managers
from knitter_common.model import Allocation, Return, Wish

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.timeout(120)]

LEASE = 2.0  # seconds
PASSING = ("NOT_WRITER", "NO_WRITER", "STORE_UNAVAILABLE", "MANAGER_UNAVAILABLE")
FAULTS = ("end", "kill", "stop", "cut", "leader")


class Site(Managing):
    """The members, the managers, and each manager's own line to each member."""

    def __init__(self, folder: Path) -> None:
        self.etcd = Cluster(folder / "etcd", size=3)
        self.lines = [[Relay(endpoint) for endpoint in self.etcd.endpoints] for _ in range(3)]
        store = {"kind": "etcd", "lease": LEASE, "compact": False, "timeout": 2.0}
        super().__init__(folder, [store | {"endpoints": [line.address for line in lines]} for lines in self.lines])

    def cut(self, number: int) -> None:
        """Cuts a manager off from etcd."""
        for line in self.lines[number]:
            line.cut()

    def mend(self, number: int) -> None:
        """Its packets arrive late."""
        for line in self.lines[number]:
            line.mend()

    async def etcd_leads_elsewhere(self) -> None:
        """The leadership moves to the next member, as before a member is maintained."""
        leader = self.etcd.leader()
        heir = (leader + 1) % 3
        await asyncio.to_thread(self.etcd.ctl, "move-leader", self.etcd.id_of(heir), endpoint=self.etcd.endpoints[leader])
        assert self.etcd.leader() == heir

    def close(self) -> None:
        super().close()
        for lines in self.lines:
            for line in lines:
                line.close()
        self.etcd.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("managers"))
    yield made
    made.close()


@pytest.fixture
async def managers(site: Site) -> AsyncIterator[Managers]:
    async with site.client() as client:
        yield client


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


async def test_after_kill_9_another_writes_within_5_seconds(site: Site, managers: Managers) -> None:
    async with Churn(site).running(managers) as churn:
        for _ in range(2):
            old = await site.writer()
            site.managers[old].kill()
            await site.writer(but=old, within=5.0)
            await churn.until_answered()
            await site.start(old)


async def test_a_writer_stopped_for_longer_than_its_lease_is_no_second_owner(site: Site, managers: Managers) -> None:
    async with Churn(site).running(managers) as churn:
        old = await site.writer()
        site.managers[old].signal(signal.SIGSTOP)
        try:
            new = await site.writer(but=old)
            await churn.until_answered()
            await asyncio.sleep(0.5)
        finally:
            site.managers[old].signal(signal.SIGCONT)
        await refused(site, old)
        assert await site.writer() == new
        told = await site.status(old)
        assert told is not None
        assert not told.writing
    assert site.managers[old].running


async def test_a_writer_cut_off_from_etcd_writes_no_more_and_what_it_sent_comes_too_late(site: Site, managers: Managers) -> None:
    async with Churn(site).running(managers) as churn:
        old = await site.writer()
        site.cut(old)
        try:
            new = await site.writer(but=old)
            await churn.until_answered()
            await refused(site, old)
            assert len(await everything(site, old)) > 0  # it still says what it knew
        finally:
            site.mend(old)
        await until_follows(site, old, new)
        assert await site.writer() == new


async def refused(site: Site, number: int) -> None:
    """A manager that does not write says so, and says how to go on."""
    with pytest.raises(Unavailable) as raised:
        await direct(site, number)
    assert raised.value.reason in ("NOT_WRITER", "NO_WRITER")
    assert raised.value.reason == "NO_WRITER" or raised.value.metadata["writer"] in site.addresses


async def until_follows(site: Site, number: int, writer: int) -> None:
    """A manager knows who writes, and all that was written."""
    async with asyncio.timeout(20):
        while True:
            here, there = await site.status(number), await site.status(writer)
            if here and there and here.writer == site.addresses[writer] and here.revision >= there.revision and not here.writing:
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("seed", [1, 2])
async def test_in_any_order_of_faults_nothing_is_lost_or_given_twice(site: Site, managers: Managers, seed: int) -> None:
    order = random.Random(seed)
    async with Churn(site).running(managers) as churn:
        for _ in range(5):
            victim = order.choice((await site.writer(within=20), order.randrange(3)))
            async with fault(site, order.choice(FAULTS), victim):
                await site.writer(but=victim, within=20)
                await churn.until_answered()
                await asyncio.sleep(order.uniform(0, LEASE))
        await churn.until_answered()
    for number in range(3):
        await until_follows(site, number, await site.writer()) if number != await site.writer() else None


@contextlib.asynccontextmanager
async def fault(site: Site, kind: str, number: int) -> AsyncIterator[None]:
    """Something is wrong with a manager, or with the member of that number; afterwards nothing is."""
    match kind:
        case "stop":
            site.managers[number].signal(signal.SIGSTOP)
        case "cut":
            site.cut(number)
        case "kill":
            await asyncio.to_thread(site.managers[number].kill)
        case "end":
            await asyncio.to_thread(site.managers[number].terminate)
        case "leader":
            await asyncio.to_thread(site.etcd.kill, number)
            await asyncio.to_thread(site.managers[number].kill)
    try:
        yield
    finally:
        match kind:
            case "stop":
                site.managers[number].signal(signal.SIGCONT)
            case "cut":
                site.mend(number)
            case "kill" | "end":
                await site.start(number)
            case "leader":
                await site.etcd.start_soon(number)
                await site.start(number)


async def test_an_agent_s_stream_leaves_a_stopped_writer_for_the_one_that_writes(site: Site, managers: Managers) -> None:
    client = ManagerClient(Managers(site.addresses), nothing)
    client.start()
    try:
        owners = [some_owner() for _ in range(2)]
        wish = (Wish(network="small"),)
        await client.allocate(Allocation(owner=owners[0], wishes=wish), 10)
        old = await site.writer()
        site.managers[old].signal(signal.SIGSTOP)
        try:
            await client.allocate(Allocation(owner=owners[1], wishes=wish), 15)
        finally:
            site.managers[old].signal(signal.SIGCONT)
        for owner in owners:
            await client.release(Return(owner))
    finally:
        await client.close()


async def nothing(_: Managers) -> None:
    """A node without a journal."""


async def test_etcd_s_leader_moves_and_nobody_notices(site: Site, managers: Managers) -> None:
    async with Churn(site).running(managers) as churn:
        for _ in range(3):
            await site.etcd_leads_elsewhere()
            await churn.until_answered()
    assert len(churn.history.holdings) > 20


async def test_the_death_of_etcd_s_leader_is_borne(site: Site, managers: Managers) -> None:
    async with Churn(site).running(managers) as churn:
        leader = site.etcd.leader()
        site.etcd.kill(leader)
        await churn.until_answered()
        await site.etcd.start_soon(leader)


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


async def test_revisions_that_strangers_made_keep_nobody_from_being_in_step(site: Site, managers: Managers) -> None:
    seen, missed = some_owner(), some_owner()
    first = await allocate(managers, seen)
    _, epoch, position, _ = await follow(site, 0, first.revision)
    await allocate(managers, missed)
    writer = await site.writer()
    restarted, other = (writer + 1) % 3, (writer + 2) % 3
    for number in range(5):
        site.etcd.ctl("put", f"/stranger/{number}", "x")
    await asyncio.to_thread(site.managers[restarted].terminate)
    await site.start(restarted)
    until, told = await until_synced(site, restarted, epoch, position)
    assert told == {missed.key}
    for number in (other, restarted, writer):
        again, told = await until_synced(site, number, epoch, until)
        assert (again, told) == (until, set())
    for owner in (seen, missed):
        await release(managers, owner)


async def until_synced(site: Site, number: int, epoch: str, after: int) -> tuple[int, set[str]]:
    """Resumes the feed of one manager: where it is in step, and the owners that it told of on the way. It must not begin anew."""
    told = set()
    managers = Managers([site.addresses[number]])
    try:
        async with asyncio.timeout(15):
            async for message in managers.stub().Changes(pb.ChangesRequest(epoch=epoch, after_revision=after)):
                match message.WhichOneof("event"):
                    case "changes":
                        for change in message.changes.changes:
                            one = change.port_set.owner if change.WhichOneof("object") == "port_set" else change.deleted.owner
                            told.add(convert.owner_from_proto(one).key)
                    case "synced":
                        return message.synced.revision, told
                    case "reset":
                        raise AssertionError("the feed began anew")
        raise AssertionError("the feed ended")
    finally:
        await managers.close()


async def test_without_a_quorum_writes_say_so_and_reads_go_on(site: Site, managers: Managers) -> None:
    owner = some_owner()
    got = await allocate(managers, owner)
    for number in range(3):
        await follow(site, number, got.revision)
    for member in (0, 1):
        site.etcd.kill(member)
    asked = some_owner()
    with pytest.raises(Unavailable) as raised:
        await allocate(managers, asked, within=4.0)
    assert raised.value.reason in PASSING
    for number in range(3):
        assert owner.key in await everything(site, number)
    await site.etcd.start_soon(0, 1)
    await allocate(managers, asked, within=30)
    await release(managers, asked)
    await release(managers, owner)
