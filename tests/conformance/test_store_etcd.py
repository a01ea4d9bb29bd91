"""What the store on etcd promises beside the suite: writers that die, stop or hang, members that fail, clusters it cannot use."""

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness.etcd import Cluster, shared
from harness.store_process import Churn
from harness.stores import Site, everything, open_site, take

from knitter_common.errors import Refused, Unavailable
from knitter_common.settings import Seconds
from knitter_manager.store import Store, StoreSettings, open_store
from knitter_manager.store.etcd import load
from knitter_manager.store.etcd.members import Member
from knitter_manager.store.protocol import AtRevision, Commit, Compacted, Conflict, NotWriter, PrefixEmpty, StoreDown
from knitter_manager.store.sqlite import Retention

LEASE = Seconds(1.0)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site("etcd", tmp_path) as place:
        place.settings = replace(place.settings, lease=LEASE)
        yield place


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "etcd", size=3) as members:
        yield members


@pytest.fixture
async def three(cluster: Cluster) -> AsyncIterator[Site]:
    place = Site(StoreSettings(kind="etcd", endpoints=cluster.endpoints, timeout=Seconds(3), compact=False))
    yield place
    await place.close()


async def persist(store: Store, key: str, patience: float) -> int:
    """Commits until it is done, as a manager that is told UNAVAILABLE would."""
    end = time.monotonic() + patience
    while True:
        try:
            return await store.commit([AtRevision(key, 0)], {key: b"v"})
        except Conflict:  # an earlier try was done after all
            return (await store.get([key]))[key].revision
        except StoreDown:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)


# -- writers that die, stop or hang ----------------------------------------------------------------------------------


async def test_a_killed_writer_is_followed_within_5_seconds_and_nothing_acknowledged_is_lost(site: Site) -> None:
    store = await site.open()
    with Churn(replace(site.settings, lease=Seconds(3)), "t") as churn:
        await asyncio.to_thread(churn.wait_writing)
        waiting = asyncio.ensure_future(store.acquire_writer("me:1"))
        await asyncio.to_thread(churn.read_until, 300)
        assert await store.writer() == "churn:t"
        churn.kill()
        killed = time.monotonic()
        await asyncio.wait_for(waiting, 5)
        assert time.monotonic() - killed < 5
    state = await everything(store)
    told = {f"churn/t/{number}/{part}": revision for number, revision in churn.acknowledged.items() for part in "abc"}
    assert {key: state[key].revision for key in told} == told
    assert len(state) % 3 == 0
    assert len(told) >= 900
    assert await store.commit([], {"a": b""}) > max(told.values())


async def test_a_writer_stopped_for_longer_than_its_lease_writes_no_more(site: Site) -> None:
    store = await site.open()
    with Churn(site.settings, "t") as churn:
        await asyncio.to_thread(churn.wait_writing)
        await asyncio.to_thread(churn.read_until, 50)
        churn.process.send_signal(signal.SIGSTOP)
        await asyncio.wait_for(store.acquire_writer("me:1"), 5)
        taken = await store.commit([], {"taken": b""})
        churn.process.send_signal(signal.SIGCONT)
        await asyncio.wait_for(asyncio.to_thread(churn.finish), 10)
    assert churn.error.startswith(("NotWriter", "StoreDown"))
    assert max(churn.acknowledged.values()) < taken
    state = await everything(store)
    assert max(record.revision for key, record in state.items() if key.startswith("churn/")) < taken


async def test_a_writer_whose_loop_is_blocked_learns_that_it_is_the_writer_no_more(site: Site) -> None:
    one = await site.open()
    lost = await one.acquire_writer("one:1")
    assert await one.acquire_writer("one:1") is lost
    time.sleep(2.0)  # noqa: ASYNC251 - that is the point
    with pytest.raises(NotWriter):
        await one.commit([], {"a": b""})
    await asyncio.wait_for(lost.wait(), 1)
    again = await one.acquire_writer("one:1")
    assert not again.is_set()
    await one.commit([], {"a": b""})


async def test_a_commit_under_way_when_the_lease_ends_is_fenced(site: Site) -> None:
    one, two = await site.open(), await site.open()
    lost = await one.acquire_writer("one:1")
    assert one._lead is not None  # type: ignore[attr-defined]
    fence = one._lead.fence  # type: ignore[attr-defined]
    shared().ctl("del", f"{site.settings.prefix}writer")
    await asyncio.wait_for(two.acquire_writer("two:1"), 5)
    one._lead.fence = fence  # type: ignore[attr-defined]  # as if it had been sent before
    with pytest.raises(NotWriter, match="two:1"):
        await one.commit([AtRevision("a", 0)], {"a": b"1"})
    assert lost.is_set()
    assert await everything(two) == {}


async def test_what_a_read_has_not_found_after_an_unanswered_commit_never_comes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await site.open()
    lost = await store.acquire_writer("one:1")
    members = store._members  # type: ignore[attr-defined]
    late: list[Callable[[], Awaitable[Any]]] = []

    async def on_its_way(call: Callable[[Member, float], Awaitable[Any]]) -> Any:
        member = await members.ready(1.0)
        late.append(lambda: call(member, 5.0))
        raise StoreDown("no answer")

    monkeypatch.setattr(members, "write", on_its_way)
    with pytest.raises(StoreDown):
        await store.commit([AtRevision("a", 0)], {"a": b"late"})
    monkeypatch.undo()
    running = [asyncio.ensure_future(store.commit([], {f"b{number}": b""})) for number in range(50)]
    assert await store.get(["a"]) == {}
    assert not (await late[0]()).succeeded
    await asyncio.gather(*running)
    await store.commit([AtRevision("a", 0)], {"a": b"new"})
    assert (await everything(store)).keys() == {"a", *(f"b{number}" for number in range(50))}
    assert not lost.is_set()
    assert await store.writer() == "one:1"
    await asyncio.sleep(2 * LEASE)  # the key still hangs on its lease
    assert not lost.is_set()
    shared().ctl("lease", "revoke", f"{store._lead._lease:x}")  # type: ignore[attr-defined]
    assert await store.writer() == ""


async def test_a_lease_that_is_revoked_from_outside_is_noticed(site: Site) -> None:
    store = await site.open()
    lost = await store.acquire_writer("one:1")
    lease = store._lead._lease  # type: ignore[attr-defined]
    shared().ctl("lease", "revoke", f"{lease:x}")
    await asyncio.wait_for(lost.wait(), 2)
    assert await store.writer() == ""


async def test_the_writer_stays_for_many_leases(site: Site) -> None:
    store = await site.open()
    lost = await store.acquire_writer("one:1")
    for number in range(6):
        await asyncio.sleep(0.5)
        await store.commit([], {"a": b"%d" % number})
    assert not lost.is_set()


# -- members that fail -----------------------------------------------------------------------------------------------


async def test_a_killed_leader_costs_seconds_and_nothing_else(cluster: Cluster, three: Site) -> None:
    store, other = await three.open_writer("one:1", lease=Seconds(10)), await three.open()  # no election outlasts it here
    begin = (await store.load()).revision
    leader = cluster.leader()
    done: list[int] = []

    async def follow() -> list[Commit]:
        told: list[Commit] = []
        async for batch in other.changes(begin):
            told += batch
            if "last" in told[-1].puts:
                return told
        raise AssertionError

    following = asyncio.ensure_future(follow())
    for number in range(60):
        if number == 20:
            cluster.kill(leader)
        done.append(await persist(store, f"k{number}", 10))
    await persist(store, "last", 10)
    told = await asyncio.wait_for(following, 10)
    assert [key for commit in told for key in commit.puts] == [*(f"k{number}" for number in range(60)), "last"]
    assert [commit.revision for commit in told[:-1]] == done
    assert set(await everything(store)) == {*(f"k{number}" for number in range(60)), "last"}
    await cluster.start_soon(leader)


async def test_a_member_that_dies_between_two_renewals_costs_the_writer_nothing(cluster: Cluster, three: Site) -> None:
    store = await three.open(lease=Seconds(3))
    lost = await store.acquire_writer("one:1")
    lead = store._lead  # type: ignore[attr-defined]
    renewed = lead._until
    while lead._until == renewed:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    cluster.kill(store._members._present)  # type: ignore[attr-defined]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(lost.wait(), 4)
    assert lead.holds
    await persist(store, "a", 5)
    assert await store.writer() == "one:1"


async def test_without_a_quorum_everything_says_so_in_time_and_comes_back(cluster: Cluster, three: Site) -> None:
    store = await three.open_writer("one:1")
    first = await persist(store, "before", 5)
    following = asyncio.ensure_future(anext(aiter(store.changes(first))))
    cluster.kill(0)
    cluster.kill(1)
    calls = [store.commit([], {"a": b""}), store.get(["before"]), store.load(), store.writer(), store.compact(first)]
    began = time.monotonic()
    results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 8)
    assert [type(result) for result in results] == [StoreDown] * len(calls)
    assert time.monotonic() - began < 6
    with pytest.raises(StoreDown):
        await asyncio.wait_for(following, 12)
    await store.close()  # its lease may have outlived all this, and then it would still be the writer
    await cluster.start_soon(0, 1)
    await asyncio.wait_for(again(three, "two:1"), 10)
    state = await everything(await three.open())
    assert state["before"].revision == first
    assert "after" in state


async def again(site: Site, name: str) -> None:
    while True:
        try:
            store = await site.open()
            await store.acquire_writer(name)
            await store.commit([], {"after": b""})
            return
        except (StoreDown, Unavailable):
            await asyncio.sleep(0.1)


async def test_a_silent_member_is_left_for_another_one(cluster: Cluster, three: Site) -> None:
    store = await three.open_writer("one:1")
    first = await persist(store, "before", 5)
    following = asyncio.ensure_future(take(store, first, first + 1))
    await asyncio.sleep(0.2)
    silent = store._members._present  # type: ignore[attr-defined]
    cluster.pause(silent)
    assert (await asyncio.wait_for(store.get(["before"]), 4))["before"].revision == first
    await persist(store, "after", 10)
    told = await asyncio.wait_for(following, 20)  # until the pings tell that the member is silent
    assert list(told[0].puts) == ["after"]
    cluster.resume(silent)


# -- clusters it cannot use, requests it refuses ---------------------------------------------------------------------


async def test_nobody_at_the_endpoints_is_told_with_their_names() -> None:
    settings = StoreSettings(kind="etcd", endpoints=("127.0.0.1:1", "localhost:2"), timeout=Seconds(0.5))
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1, localhost:2.*correct `endpoints`") as caught:
        await open_store(settings)
    assert caught.value.reason == "STORE_UNAVAILABLE"
    assert time.monotonic() - began < 3


async def test_a_newer_schema_is_refused(site: Site) -> None:
    shared().ctl("put", f"{site.settings.prefix}store", "9 abc")
    with pytest.raises(Refused, match="schema 9 of a newer release"):
        await site.open()


async def test_a_commit_larger_than_etcd_takes_is_no_commit(site: Site) -> None:
    store = await site.open_writer()
    with pytest.raises(ValueError, match="4097 writes under 0 conditions"):
        await store.commit([], {f"k{number}": b"" for number in range(4097)})
    with pytest.raises(ValueError, match="too many operations"):
        await store.commit([AtRevision(f"k{number}", 0) for number in range(128)], {"k": b""})
    with pytest.raises(ValueError, match="too large"):
        await store.commit([], {"k": b"x" * 2_000_000})
    with pytest.raises(ValueError, match="not a commit"):
        await store.commit([], {"k \ud800": b""})
    await store.commit([PrefixEmpty("k")], {f"k{number}": b"" for number in range(128)})


@pytest.mark.parametrize(("conditions", "writes"), [(0, 129), (0, 4096), (63, 4096), (113, 240), (127, 128)])
async def test_many_writes_are_one_commit(site: Site, conditions: int, writes: int) -> None:
    store = await site.open_writer()
    absent = [AtRevision(f"c{number}", 0) for number in range(conditions)]
    puts = {f"k{number}": b"1" for number in range(writes)}
    revision = await store.commit(absent, puts)
    assert {record.revision for record in (await everything(store)).values()} == {revision}
    gone = list(puts)[: writes // 2]
    last = await store.commit(absent, {f"n{number}": b"" for number in range(writes - len(gone))}, gone)
    assert [commit.revision for commit in await take(store, revision - 1, last)] == [revision, last]
    assert len(await everything(store)) == 2 * (writes - len(gone))


async def test_a_load_of_many_pages_is_complete_and_in_order(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_FIRST", 7)
    monkeypatch.setattr(load, "_PAGE_BYTES", 1)
    store = await site.open_writer()
    for begin in range(0, 2500, 100):
        await store.commit([], {f"k{number:05d}": b"%d" % number for number in range(begin, begin + 100)})
    snapshot = await store.load()
    await store.commit([], {"k00000": b"newer", "later": b""})
    sizes, records = [], {}
    async for batch in snapshot.batches:
        sizes.append(len(batch))
        records |= {record.key: record.value for record in batch}
    assert sizes == [7, 1000, 1000, 493]
    assert list(records.items()) == [(f"k{number:05d}", b"%d" % number) for number in range(2500)]


async def test_a_load_whose_revision_is_compacted_says_load_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_FIRST", 2)
    store = await site.open_writer()
    for _ in range(3):
        last = await store.commit([], {f"k{number}": b"" for number in range(6)})
    snapshot = await store.load()
    await store.commit([], {"k": b""})
    await store.compact(last + 1)
    with pytest.raises(StoreDown, match="load again"):
        _ = [batch async for batch in snapshot.batches]


async def test_the_writer_compacts_what_is_old(site: Site) -> None:
    store = await site.open_writer(compact=True, retention=Retention(age=Seconds(1)))
    begin = (await store.load()).revision
    for number in range(40):
        await store.commit([], {"a": b"%d" % number})
        await asyncio.sleep(0.1)
    with pytest.raises(Compacted) as caught:
        await anext(aiter(store.changes(begin)))
    assert caught.value.oldest > begin
    assert (await everything(store))["a"].value == b"39"


def _make_certificates(folder: Path) -> None:
    folder.mkdir()

    def openssl(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=ca",
            "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=etcd", "-keyout", "key.pem",
            "-out", "request.pem")  # fmt: skip
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "extensions", "-out", "cert.pem")  # fmt: skip


async def test_a_full_database_is_told_read_on_and_left_behind(tmp_path: Path) -> None:
    with Cluster(tmp_path / "etcd", quota=8 * 1024 * 1024) as cluster:
        site = Site(StoreSettings(kind="etcd", endpoints=cluster.endpoints, compact=False))
        try:
            store = await site.open_writer()
            lost = await store.acquire_writer("one:1")
            done: list[int] = []

            async def fill() -> None:
                while True:
                    done.append(await store.commit([], {"large": b"x" * 500_000, f"k{len(done)}": b""}))

            with pytest.raises(StoreDown, match="space exceeded"):
                await fill()
            for _ in range(3):
                with pytest.raises(StoreDown, match="space exceeded"):
                    await store.commit([], {"more": b"x" * 500_000})
            assert (await store.get([f"k{len(done) - 1}", f"k{len(done)}"])).keys() == {f"k{len(done) - 1}"}
            assert len(await everything(store)) == len(done) + 1
            cluster.ctl("compact", str(done[-1]))
            cluster.ctl("defrag")
            cluster.ctl("alarm", "disarm")
            await store.commit([AtRevision("large", done[-1])], {"large": b"small"})
            assert not lost.is_set()
        finally:
            await site.close()


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls_to_every_member_and_to_the_next_one_when_one_dies(tmp_path: Path, mutual: bool) -> None:
    certificates = tmp_path / "tls"
    _make_certificates(certificates)
    ca, cert, key = (str(certificates / f"{name}.pem") for name in ("ca", "cert", "key"))
    pair = {"cert": cert, "key": key} if mutual else {}
    with Cluster(tmp_path / "etcd", size=3, tls=certificates, mutual=mutual) as cluster:
        site = Site(StoreSettings(kind="etcd", endpoints=cluster.endpoints, ca=ca, timeout=Seconds(3), compact=False, **pair))
        try:
            store, other = await site.open_writer(lease=Seconds(10)), await site.open()
            first = await store.commit([AtRevision("a", 0)], {"a": b"1"})
            following = asyncio.ensure_future(take(other, first, first + 1))
            cluster.kill(store._members._present)  # type: ignore[attr-defined]
            second = await persist(store, "b", 10)
            assert [commit.revision for commit in await asyncio.wait_for(following, 15)] == [second]
            assert set(await everything(other)) == {"a", "b"}
        finally:
            await site.close()


async def test_tls_that_does_not_fit_is_told(tmp_path: Path) -> None:
    certificates = tmp_path / "tls"
    _make_certificates(certificates)
    _make_certificates(tmp_path / "foreign")
    ca, cert, key = (str(certificates / f"{name}.pem") for name in ("ca", "cert", "key"))
    foreign = {name: str(tmp_path / "foreign" / f"{name}.pem") for name in ("ca", "cert", "key")}
    with Cluster(tmp_path / "etcd", tls=certificates) as cluster:
        settings = StoreSettings(kind="etcd", endpoints=cluster.endpoints, ca=ca, cert=cert, key=key, timeout=Seconds(1))
        for changed in (
            {"cert": "", "key": ""},
            {"ca": "", "cert": "", "key": ""},
            {"ca": foreign["ca"]},
            {"cert": foreign["cert"], "key": foreign["key"]},
        ):
            with pytest.raises(Unavailable, match="TLS files"):
                await open_store(replace(settings, **changed))
        with pytest.raises(Refused, match=r"nowhere\.pem cannot be read"):
            await open_store(replace(settings, ca="/nowhere.pem"))
        await (await open_store(settings)).close()
