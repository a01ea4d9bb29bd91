"""Snapshots, epochs, recovery: on a manager's core, on every store."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from harness.etcd import Cluster
from harness.manager import addresses, allocate, held, network, release, settings, start_core, whole
from harness.rules import refusal
from harness.stores import Site, open_site

from knitter.v1 import manager_pb2 as pb
from knitter.v1.manager_pb2_grpc import ManagerServiceStub
from knitter_common import convert, failpoints
from knitter_common.errors import Invalid, KnitterError, Refused, Unavailable
from knitter_common.failpoints import Panic
from knitter_common.model import Binding, Node, Owner, PodOwner, PortSet, SandboxOwner, Wish
from knitter_common.settings import Seconds
from knitter_common.snapshot import Header, Writer
from knitter_manager.core import Core
from knitter_manager.daemon import ManagerDaemon
from knitter_manager.restore import Restored, of_state
from knitter_manager.store import StoreSettings
from knitter_manager.store.memory import MemoryStore
from knitter_manager.store.protocol import StoreDown

T = TypeVar("T")

WISH = Wish(network="small")
NODES = ("n1", "n2")


@contextlib.asynccontextmanager
async def core_at(site: Site, name: str = "m:1") -> AsyncIterator[Core]:
    """Another manager's core on the same place."""
    core = await start_core(await site.open(), name=name)
    try:
        yield core
        await whole(core)
    finally:
        await core.stop()


async def furnish(core: Core) -> None:
    """A small network and two nodes."""
    await core.networks.create(network("small", "10.5.0.0/29", rest=0.0))
    for node in NODES:
        await core.nodes.register(Node(node))


def sandbox(number: int, node: str = "n1") -> SandboxOwner:
    return SandboxOwner(node, f"c{number}", "knitter", "eth0")


async def attach(core: Core, owner: Owner, node: str = "n1") -> PortSet:
    """A set that runs."""
    return await allocate(core, owner, WISH, node=node, binding=Binding(f"c-{owner.key[-8:]}", f"/run/netns/{owner.key[-4:]}"))


async def until_written(call: Callable[[], Awaitable[T]]) -> T:
    """The answer of a call, as soon as the store takes it."""
    while True:
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(0.05)


async def saved(core: Core) -> bytes:
    """A snapshot file."""
    loaded, writer = await core.store.load(), Writer()
    parts = [writer.begin(Header(core.standing.store_id, core.standing.epoch, loaded.revision, 0))]
    parts += [writer.records(of_state(batch)) async for batch in loaded.batches]
    return b"".join([*parts, writer.end()])


async def restored(core: Core, file: bytes, only_if_empty: bool = False, complete: bool = False) -> Restored:
    """The state replaced by that of the file."""

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(file), 1000):
            yield file[at : at + 1000]

    return await core.restore.restore(pieces(), only_if_empty, complete)


async def tell(core: Core, node: str, *running: PortSet) -> dict[str, str]:
    """The node tells its journal; what became of each set."""
    outcome = await core.reconciler.told(Node(node), running, more=False)
    verdicts = {owner.key: "adopted" for owner in outcome.adopted}
    verdicts |= {owner.key: "refused" for owner in outcome.refused}
    return verdicts | {owner.key: "undecided" for owner in outcome.undecided}


async def test_a_restore_brings_the_state_back_in_a_new_epoch(site: Site) -> None:
    async with core_at(site) as core:
        await furnish(core)
        kept = await attach(core, sandbox(1))
        file, before = await saved(core), core.cluster.epoch
        lost = await attach(core, sandbox(2))
        await core.networks.create(network("later", "10.6.0.0/24"))
        done = await restored(core, file)
        assert done.epoch == core.cluster.epoch != before
        assert done.waiting_for == NODES
        assert set(core.cluster.sets) == {kept.owner.key}
        assert core.networks.get("admin", "small").name == "small"
        with pytest.raises(KnitterError):
            core.networks.get("admin", "later")
        with pytest.raises(Unavailable) as raised:
            await attach(core, sandbox(3))
        assert raised.value.reason == "RECOVERING"
        assert await tell(core, "n1", kept, lost) == {lost.owner.key: "adopted"}
        assert await tell(core, "n2") == {}
        fresh = await attach(core, sandbox(3))
        assert len({*addresses(kept), *addresses(lost), *addresses(fresh)}) == 3
        held(core)
    async with core_at(site, "m:2") as core:
        assert core.cluster.epoch == done.epoch
        assert len(core.cluster.sets) == 3
        held(core)


async def test_recovery_goes_on_with_another_writer(site: Site) -> None:
    async with core_at(site) as core:
        await furnish(core)
        await restored(core, await saved(core))
        await tell(core, "n1")
    async with core_at(site, "m:2") as core:
        assert core.recovery.waiting_for == ("n2",)
        with pytest.raises(Unavailable, match="n2"):
            await attach(core, sandbox(1))
        assert await core.reconciler.end_recovery() == ("n2",)
        await attach(core, sandbox(1))


async def test_a_forgotten_node_is_not_waited_for(site: Site) -> None:
    async with core_at(site) as core:
        await furnish(core)
        await restored(core, await saved(core))
        await tell(core, "n1")
        await core.nodes.delete("n2", 0)
        assert not core.recovery.recovering


async def planned_and_running(core: Core) -> tuple[PortSet, PortSet]:
    """Brought back in time: a pod's plan on n1, and a sandbox that runs on n2 with the same address."""
    await furnish(core)
    pod = PodOwner("t1", "web", "u1")
    planned = await allocate(core, pod, replace(WISH, network="admin/small"), tenant="admin", node="n1")
    file = await saved(core)
    await release(core, pod)
    await release(core, pod, unbind_only=True)
    running = None
    while running is None or addresses(running) != addresses(planned):
        running = await attach(core, sandbox(len(core.cluster.sets), "n2"), "n2")
    await restored(core, file)
    return planned, running


async def test_what_runs_wins_over_what_is_planned(site: Site) -> None:
    async with core_at(site) as core:
        planned, running = await planned_and_running(core)
        assert await tell(core, "n2", running) == {running.owner.key: "undecided"}  # the pod may run on n1
        assert held(core)[planned.ports[0].network_id, addresses(planned)[0]] == planned.owner.key
        await tell(core, "n1")
        assert not core.recovery.recovering
        assert held(core)[planned.ports[0].network_id, addresses(planned)[0]] == running.owner.key
        assert planned.owner.key not in core.cluster.sets


async def test_what_was_undecided_at_one_writer_is_not_refused_by_the_next(site: Site) -> None:
    async with core_at(site) as core:
        planned, running = await planned_and_running(core)
        assert await tell(core, "n2", running) == {running.owner.key: "undecided"}
    async with core_at(site, "m:2") as core:
        await tell(core, "n1")
        with pytest.raises(Unavailable, match="n2"):
            await attach(core, sandbox(9))
        assert await tell(core, "n2", running) == {running.owner.key: "adopted"}
        assert not core.recovery.recovering
        assert held(core)[planned.ports[0].network_id, addresses(planned)[0]] == running.owner.key
        await attach(core, sandbox(9))


async def test_two_that_run_are_told_apart_by_the_store(site: Site) -> None:
    async with core_at(site) as core:
        await furnish(core)
        first = await attach(core, sandbox(1))
        await restored(core, await saved(core))
        second = replace(first, owner=sandbox(2, "n2"), node="n2")
        await tell(core, "n1", first)
        assert await tell(core, "n2", second) == {second.owner.key: "refused"}


async def test_what_runs_on_an_unknown_network_is_left_alone(site: Site) -> None:
    async with core_at(site) as core:
        await furnish(core)
        file = await saved(core)
        await core.networks.create(network("later", "10.6.0.0/24"))
        running = await allocate(core, sandbox(1), Wish(network="later"), node="n1", binding=Binding("c1", "/run/netns/1"))
        await restored(core, file)
        assert await tell(core, "n1", running) == {running.owner.key: "undecided"}
        await tell(core, "n2")
        assert await tell(core, "n1", running) == {running.owner.key: "undecided"}


SPOILS = {
    "cut": lambda file: file[:-10],
    "changed": lambda file: file[:200] + b"x" + file[201:],
    "longer": lambda file: file + b"x",
    "empty": lambda _: b"",
    "foreign": lambda _: foreign(),
    "newer": lambda file: file.replace(b'"format": 1', b'"format": 2'),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
async def test_a_bad_file_changes_nothing(site: Site, spoil: object) -> None:
    async with core_at(site) as core:
        await furnish(core)
        await attach(core, sandbox(1))
        before, epoch = await saved(core), core.cluster.epoch
        with pytest.raises(Invalid) as raised:
            await restored(core, spoil(before))  # type: ignore[operator]
        assert raised.value.reason == "SNAPSHOT_INVALID"
        assert core.cluster.epoch == epoch
        await attach(core, sandbox(2))


async def test_a_file_for_which_the_manager_has_no_room_is_no_bad_file(
    site: Site, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with core_at(site) as core:
        await furnish(core)
        for number in range(3):
            await attach(core, sandbox(number))
        file, before = await saved(core), core.cluster.epoch
        room = os.statvfs(small_disk)
        (small_disk / "ballast").write_bytes(b"x" * (room.f_bavail * room.f_frsize))
        monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
        with pytest.raises(Unavailable, match="No space left") as raised:
            await restored(core, file)
        assert raised.value.reason == "STORE_UNAVAILABLE"
        assert core.cluster.epoch == before
        (small_disk / "ballast").unlink()
        await restored(core, file)


def foreign() -> bytes:
    """A whole file with a record that no release knows."""
    writer = Writer()
    return writer.begin(Header("x", "x.0", 1, 0)) + writer.records([("wonder/1", b"?")]) + writer.end()


async def test_only_into_an_empty_store(site: Site) -> None:
    async with core_at(site) as core:
        await furnish(core)
        with pytest.raises(Refused, match="1 networks"):
            await restored(core, await saved(core), only_if_empty=True)


async def test_a_snapshot_moves_to_another_store(site: Site, tmp_path: Path) -> None:
    async with core_at(site) as core:
        await furnish(core)
        one = await attach(core, sandbox(1))
        file, epoch = await saved(core), core.cluster.epoch
    async with open_site("sqlite", tmp_path / "other") as other, core_at(other) as core:
        done = await restored(core, file, only_if_empty=True, complete=True)
        assert done.waiting_for == ()
        assert done.epoch.split(".")[0] == epoch.split(".")[0]
        assert int(done.epoch.split(".")[1]) == int(epoch.split(".")[1]) + 1
        again = await saved(core)
        assert again[-200:].split(b'"content"')[1].split(b",")[0] == file[-200:].split(b'"content"')[1].split(b",")[0]
        assert addresses(await attach(core, sandbox(1))) == addresses(one)
        await attach(core, sandbox(2))
        held(core)
    async with core_at(other, "m:9") as core:
        assert core.cluster.epoch == done.epoch


@pytest.mark.parametrize("phase", ["staging", "applying", "cleaning"])
async def test_a_restore_cut_short_is_ended_by_the_next_writer(site: Site, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    core = await start_core(await site.open(), name="m:1")
    follower = await start_core(await site.open(), name="m:2")
    await furnish(core)
    kept = await attach(core, sandbox(1))
    file, epoch = await saved(core), core.cluster.epoch
    lost = await attach(core, sandbox(2))
    await follower.feed.until(lost.revision)
    reached, dead = asyncio.Event(), asyncio.Event()

    async def stuck(*_: object) -> int:
        reached.set()
        await dead.wait()
        raise StoreDown("dead")

    match phase:
        case "staging":
            mark = core.restore._mark
            monkeypatch.setattr(core.restore, "_mark", lambda phase, plan: mark(phase, plan) if phase == "staging" else stuck())
        case "applying":
            commit = core.store.commit
            monkeypatch.setattr(core.store, "commit", lambda c, puts, d=(): stuck() if "meta/epoch" in puts else commit(c, puts, d))
        case "cleaning":
            monkeypatch.setattr(core.restore, "_clean", stuck)
    task = asyncio.create_task(restored(core, file))
    await reached.wait()
    with pytest.raises(Unavailable):
        await release(core, sandbox(1))
    if phase == "applying":
        assert set(follower.cluster.sets) == {kept.owner.key, lost.owner.key}
    monkeypatch.undo()
    await core.abandon()
    dead.set()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(follower.role.writing.wait(), 10)
    if phase == "staging":
        assert follower.cluster.epoch == epoch
        assert set(follower.cluster.sets) == {kept.owner.key, lost.owner.key}
    else:
        assert follower.cluster.epoch != epoch
        assert set(follower.cluster.sets) == {kept.owner.key}
        assert follower.recovery.waiting_for == NODES
        await follower.reconciler.end_recovery()
    assert not [key async for batch in (await follower.store.load()).batches for key, _, _ in batch if key.startswith("staged/")]
    await attach(follower, sandbox(3))
    held(follower)
    await follower.stop()


async def test_a_manager_that_starts_between_two_states_tells_neither(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with core_at(site) as core:
        await furnish(core)
        kept = await attach(core, sandbox(1))
        file = await saved(core)
        await core.networks.create(network("later", "10.6.0.0/24"))
        reached, go_on = asyncio.Event(), asyncio.Event()
        commit = core.store.commit

        async def slowly(conditions: Any, puts: Any, deletes: Any = ()) -> int:
            if "meta/epoch" in puts:
                reached.set()
                await go_on.wait()
            return await commit(conditions, puts, deletes)

        monkeypatch.setattr(core.store, "commit", slowly)
        restoring = asyncio.create_task(restored(core, file, complete=True))
        await reached.wait()
        daemon = ManagerDaemon(settings(listen=f"unix:{tmp_path}/run/m.sock"), await site.open())
        starting = asyncio.create_task(daemon.start())
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/run/m.sock") as channel:
            stub: Any = ManagerServiceStub(channel)
            told = await stub.GetStatus(pb.GetStatusRequest(), wait_for_ready=True)
            assert (told.restoring, told.port_sets, told.writing) == (True, 0, False)
            for call in (
                stub.ListNetworks(pb.ListNetworksRequest()),
                stub.ListPortSets(pb.ListPortSetsRequest()),
                stub.GetNode(pb.GetNodeRequest(name="n1")),
                stub.Changes(pb.ChangesRequest()).read(),
            ):
                with refusal("RESTORING"):
                    await call
            assert not starting.done()
            go_on.set()
            done = await restoring
            await asyncio.wait_for(starting, 20)
            told = await stub.GetStatus(pb.GetStatusRequest())
            assert (told.restoring, told.epoch, told.port_sets) == (False, done.epoch, 1)
            assert [one.name for one in (await stub.ListNetworks(pb.ListNetworksRequest())).networks] == ["small"]
            listed = (await stub.ListPortSets(pb.ListPortSetsRequest())).port_sets
            assert [convert.port_set_from_proto(one) for one in listed] == [replace(kept, revision=listed[0].revision)]
        await daemon.stop()


async def test_a_revision_of_the_future_proves_a_roll_back(site: Site) -> None:
    async with core_at(site) as core:
        await furnish(core)
        epoch = core.cluster.epoch
        await core.recovery.shown(epoch, core.cluster.revision)
        await core.recovery.shown("other.7", core.cluster.revision + 1000)
        await core.recovery.shown("", 0)
        assert core.cluster.epoch == epoch
        await core.recovery.shown(epoch, core.cluster.revision + 1000)
        assert core.cluster.epoch != epoch
        assert core.recovery.waiting_for == NODES
        raised = core.cluster.epoch
        await core.recovery.shown(epoch, core.cluster.revision + 1000)  # another node's word of the same
        assert core.cluster.epoch == raised
        lineage, _, counter = raised.rpartition(".")
        await core.recovery.shown(f"{lineage}.{int(counter) + 5}", 1)
        assert core.cluster.epoch == f"{lineage}.{int(counter) + 6}"


async def test_a_cluster_put_back_in_time_under_running_managers_is_noticed_by_themselves(tmp_path: Path) -> None:
    with Cluster(tmp_path / "etcd") as members:
        site = Site(StoreSettings(kind="etcd", endpoints=members.endpoints, lease=Seconds(2), timeout=Seconds(2), compact=False))
        core, follower = await start_core(await site.open(), name="m:1"), await start_core(await site.open(), name="m:2")
        try:
            await furnish(core)
            kept, epoch = await attach(core, sandbox(1)), core.cluster.epoch
            members.kill(0)
            members.save(0, tmp_path / "backup")
            await members.start_soon(0)
            await asyncio.wait_for(core.role.writing.wait(), 10)
            late = await until_written(lambda: core.nodes.register(Node("n3")))
            assert late.name == "n3"
            lost = await until_written(lambda: attach(core, sandbox(2)))
            for one in (core, follower):
                await one.feed.until(lost.revision)
            members.kill(0)
            members.put_back(0, tmp_path / "backup")
            await members.start_soon(0)
            async with asyncio.timeout(20):
                while not (
                    core.cluster.epoch == follower.cluster.epoch != epoch
                    and (core.role.writing.is_set() or follower.role.writing.is_set())
                ):
                    await core.feed.news(0.1)
            writer = core if core.role.writing.is_set() else follower
            for one in (core, follower):
                assert one.recovery.waiting_for == ("n1", "n2", "n3")
                assert set(one.cluster.sets) == {kept.owner.key}
            for node, running in (("n1", (kept, lost)), ("n2", ()), ("n3", ())):
                await tell(writer, node, *running)
            fresh = await attach(writer, sandbox(3))
            assert len({*addresses(kept), *addresses(lost), *addresses(fresh)}) == 3
            held(writer)
        finally:
            await core.stop()
            await follower.stop()
            await site.close()


async def test_a_new_epoch_is_loaded_anew_by_every_manager(site: Site) -> None:
    async with core_at(site) as core:
        await furnish(core)
        kept = await attach(core, sandbox(1))
        follower = await start_core(await site.open(), name="m:2")
        try:
            del follower.cluster.sets[kept.owner.key]  # what the store does not say, as after a roll-back
            await core.recovery.shown(core.cluster.epoch, core.cluster.revision + 1000)
            async with asyncio.timeout(10):
                while follower.cluster.epoch != core.cluster.epoch:
                    await follower.feed.news(0.1)
            assert kept.owner.key in follower.cluster.sets
        finally:
            await follower.stop()


@pytest.mark.parametrize("known", ["told", "done"])
@pytest.mark.parametrize("how", ["commit", "begin", "tell"])
async def test_a_manager_that_knows_more_than_the_store_proves_a_roll_back(site: Site, how: str, known: str) -> None:
    async with core_at(site) as core:
        await furnish(core)
        kept, epoch = await attach(core, sandbox(1)), core.cluster.epoch
        real = core.cluster.revision
        if known == "told":  # a store put back in time under it
            core.cluster.revision += 1000
        else:  # before the feed has told it of its own commits
            core.cluster.did(core.cluster.revision + 1000, {}, (), 0.0)
        ghost = sandbox(2).key
        core.cluster.sets[ghost] = core.cluster.sets[kept.owner.key]
        match how:
            case "commit":
                with pytest.raises(Unavailable, match="gone back in time"):
                    await core.networks.create(network("later", "10.6.0.0/24"))
            case "begin":
                core.role.lost()
            case "tell":
                await core.recovery.in_step()
        async with asyncio.timeout(10):
            while core.cluster.epoch == epoch or not core.role.writing.is_set():
                await core.feed.news(0.1)
        assert core.recovery.waiting_for == NODES
        assert ghost not in core.cluster.sets
        assert kept.owner.key in core.cluster.sets
        assert core.cluster.revision < real + 1000


async def test_nodes_that_idle_at_any_manager_are_told_of_a_new_epoch(site: Site) -> None:
    async with core_at(site) as core:
        await furnish(core)
        idle = asyncio.create_task(core.role.parting())
        await restored(core, await saved(core))
        assert (await asyncio.wait_for(idle, 10)).reason == "RECOVERING"
        follower = await start_core(await site.open(), name="m:2")
        try:
            idle = asyncio.create_task(follower.role.parting())
            await core.recovery.shown(core.cluster.epoch, core.cluster.revision + 1000)
            assert (await asyncio.wait_for(idle, 10)).metadata["writer"] == "m:1"
            assert follower.cluster.epoch == core.cluster.epoch
            idle = asyncio.create_task(follower.role.parting())
            await restored(core, await saved(core))
            assert (await asyncio.wait_for(idle, 10)).metadata["writer"] == "m:1"
        finally:
            await follower.stop()


async def test_nodes_that_idle_at_a_manager_that_writes_no_more_are_sent_away(site: Site) -> None:
    async with core_at(site) as core:
        idle = asyncio.create_task(core.role.parting())
        await asyncio.sleep(0)
        core.role.lost()
        assert (await asyncio.wait_for(idle, 10)).reason in ("NO_WRITER", "NOT_WRITER")


async def test_an_answer_that_the_feed_has_not_told_yet_proves_nothing(site: Site) -> None:
    async with core_at(site) as core:
        await furnish(core)
        epoch = core.cluster.epoch
        for number in range(1, 4):
            one = await attach(core, sandbox(number))
            await core.recovery.shown(epoch, one.revision)
        assert core.cluster.epoch == epoch


async def test_a_store_that_fails_while_a_manager_starts_is_told_or_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    down = [StoreDown("etcd elects")] * 2

    async def failing(*_: object) -> Any:
        raise down.pop()

    store = MemoryStore()
    daemon = ManagerDaemon(settings(), store)
    monkeypatch.setattr(store, "load", failing)
    with pytest.raises(Unavailable, match="etcd elects") as raised:
        await daemon.start()
    assert raised.value.reason == "STORE_UNAVAILABLE"
    await daemon.stop()
    store = MemoryStore()
    daemon = ManagerDaemon(settings(), store)
    monkeypatch.setattr(store, "writer", lambda: failing() if down else MemoryStore.writer(store))
    monkeypatch.setattr(store, "acquire_writer", lambda name: failing() if down else MemoryStore.acquire_writer(store, name))
    assert await daemon.start()
    assert down == []
    await daemon.stop()


async def test_a_fresh_store_has_nothing_to_recover(site: Site) -> None:
    async with core_at(site) as core:
        await core.recovery.shown(core.cluster.epoch, 10_000)
        assert not core.recovery.recovering


async def test_a_frozen_store_is_not_written(site: Site) -> None:
    async with core_at(site) as core:
        await furnish(core)
        one = await attach(core, sandbox(1))
        revision = await core.restore.set_frozen(True)
        with pytest.raises(Unavailable) as raised:
            await attach(core, sandbox(2))
        assert raised.value.reason == "STORE_FROZEN"
        with pytest.raises(Unavailable):
            await release(core, one.owner)
        assert (await core.store.load()).revision == revision
    async with core_at(site, "m:2") as core:
        with pytest.raises(Unavailable):
            await attach(core, sandbox(2))
        await core.restore.set_frozen(False)
        await attach(core, sandbox(2))


@pytest.fixture
def armed() -> Iterator[Callable[[str], None]]:
    yield failpoints.arm
    failpoints.arm("")


@pytest.mark.parametrize("kind", ["error", "panic", "delay(50)"])
@pytest.mark.parametrize("step", ["restore.staged", "restore.applied"])
async def test_trouble_in_a_restore_ends_before_it_or_after_it(
    site: Site, armed: Callable[[str], None], step: str, kind: str
) -> None:
    async with core_at(site) as core:
        await furnish(core)
        await attach(core, sandbox(1))
        file = await saved(core)
        await attach(core, sandbox(2))
        armed(f"{step}=1*{kind}")
        if kind.startswith("delay"):
            await restored(core, file)
        else:
            with pytest.raises((KnitterError, Panic)):
                await restored(core, file)
        async with asyncio.timeout(10):
            await core.role.writing.wait()
        before = step == "restore.staged" and not kind.startswith("delay")
        assert len(core.cluster.sets) == (2 if before else 1)
        assert not core.standing.restoring
        held(core)
        await restored(core, file, complete=True)
        assert len(core.cluster.sets) == 1
        await attach(core, sandbox(2))
