"""What the embedded store promises beside the suite: killed writers, refusing disks, files it cannot use."""

import asyncio
import itertools
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from harness.scarce import run_without_inotify
from harness.store_process import Churn
from harness.stores import Site, everything, open_site, take

from knitter_common import failpoints
from knitter_common.errors import Refused
from knitter_common.settings import Seconds
from knitter_manager.store import StoreSettings, open_store
from knitter_manager.store.protocol import AtRevision, Compacted, Conflict, NotWriter, StoreDown
from knitter_manager.store.sqlite import Retention


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site("sqlite", tmp_path) as place:
        yield place


@pytest.fixture
def armed() -> Iterator[Callable[[str], None]]:
    yield failpoints.arm
    failpoints.arm("")


async def test_every_acknowledged_commit_survives_kill_9(site: Site) -> None:
    told: dict[str, int] = {}
    for turn in range(5):
        with Churn(site.settings, f"t{turn}") as churn:
            await asyncio.to_thread(churn.wait_writing)
            await asyncio.to_thread(churn.read_until, 60 + 37 * turn)
            churn.kill()
            for number, revision in churn.acknowledged.items():
                told |= {f"churn/t{turn}/{number}/{part}": revision for part in "abc"}
        store = await site.open_writer("after")
        state = await everything(store)
        assert {key: state[key].revision for key in told} == told
        families = {key.rpartition("/")[0] for key in state}
        assert len(state) == 3 * len(families), "a commit was written in part"
        await store.close()
    assert len(told) > 900


@pytest.mark.parametrize("step", ["store.before-commit", "store.after-commit"])
async def test_a_writer_killed_at_a_step_leaves_all_or_nothing(site: Site, step: str) -> None:
    with Churn(site.settings, "t", f"{step}=kill") as churn:
        await asyncio.to_thread(churn.finish)
    assert churn.acknowledged == {}
    state = await everything(await site.open_writer())
    assert len(state) % 3 == 0
    assert bool(state) == (step == "store.after-commit")


async def test_a_killed_writers_place_is_free_at_once(site: Site) -> None:
    store = await site.open()
    with Churn(site.settings, "t") as churn:
        await asyncio.to_thread(churn.wait_writing)
        assert await store.writer() == "churn:t"
        waiting = asyncio.ensure_future(store.acquire_writer("me:1"))
        await asyncio.to_thread(churn.read_until, 10)
        with pytest.raises(NotWriter, match="churn:t"):
            await store.commit([], {"a": b""})
        churn.kill()
        await asyncio.wait_for(waiting, 2)
    assert await store.writer() == "me:1"
    assert await store.commit([], {"a": b""}) > max(churn.acknowledged.values())


async def test_another_process_is_followed_live(site: Site) -> None:
    store = await site.open()
    with Churn(site.settings, "t") as churn:
        await asyncio.to_thread(churn.wait_writing)
        await asyncio.to_thread(churn.read_until, 50)
        until = max(churn.acknowledged.values()) + 20
        told = await asyncio.wait_for(take(store, 0, until), 10)
        churn.kill()
    assert [commit.revision for commit in told] == list(range(1, told[-1].revision + 1))
    assert all(len(commit.puts) == 3 for commit in told)


async def test_a_full_disk_is_told_and_the_store_goes_on_when_there_is_room(small_disk: Path) -> None:
    async with open_site("sqlite", small_disk) as site:
        store = await site.open_writer()
        first = await store.commit([], {"kept": b"1"})
        ballast = small_disk / "ballast"
        left = os.statvfs(small_disk)
        ballast.write_bytes(b"x" * (left.f_bavail * left.f_frsize - 65536))
        big = [store.commit([], {f"big/{number}": b"x" * 40_000}) for number in range(40)]
        results = await asyncio.gather(*big, return_exceptions=True)
        downs = [result for result in results if isinstance(result, StoreDown)]
        assert downs
        assert str(site.settings.path) in str(downs[0])
        assert (await store.get(["kept"]))["kept"].revision == first
        ballast.unlink()
        last = await store.commit([AtRevision("kept", first)], {"kept": b"2"})
        state = await everything(store)
        assert {f"big/{number}" for number, result in enumerate(results) if isinstance(result, int)} <= set(state)
        assert {state[key].revision for key in state} <= set(range(1, last + 1))
        assert [commit.revision for commit in await take(store, 0, last)] == list(range(1, last + 1))


async def test_a_failed_group_is_down_and_the_next_one_works(site: Site, armed: Callable[[str], None]) -> None:
    store = await site.open_writer()
    first = await store.commit([], {"a": b"1"})
    armed("store.before-commit=1*error")
    results = await asyncio.gather(*(store.commit([], {f"k{number}": b""}) for number in range(5)), return_exceptions=True)
    assert all(isinstance(result, StoreDown) for result in results)
    assert set(await everything(store)) == {"a"}
    assert await store.commit([AtRevision("a", first)], {"a": b"2"}) == first + 1


@pytest.mark.parametrize("another", [False, True])
async def test_nothing_is_written_to_a_file_that_is_not_at_its_place_any_more(site: Site, another: bool) -> None:
    store = await site.open_writer()
    first = await store.commit([], {"a": b"1"})
    path = Path(site.settings.path)
    aside = path.with_name("aside.db")
    path.rename(aside)
    if another:
        path.write_bytes(aside.read_bytes())
    for _ in range(2):
        with pytest.raises(StoreDown, match=r"store\.db: .*; put the file back, or start this manager anew"):
            await store.commit([], {"b": b"2"})
    aside.rename(path)
    assert await store.commit([AtRevision("a", first)], {"a": b"3"}) == first + 1
    assert set(await everything(store)) == {"a"}


async def test_a_commit_during_which_the_file_goes_away_is_not_acknowledged(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await site.open_writer()
    first = await store.commit([], {"a": b"1"})
    path = Path(site.settings.path)
    aside = path.with_name("aside.db")
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "at", lambda step: path.rename(aside) if step == "store.before-commit" else None)
        with pytest.raises(StoreDown, match="it is not there any more"):
            await store.commit([], {"b": b"2"})
    aside.rename(path)
    assert await store.commit([], {"c": b"3"}) == first + 2, "the file has both"
    assert set(await everything(store)) == {"a", "b", "c"}
    assert [commit.revision for commit in await take(store, 0, first + 2)] == [first, first + 1, first + 2]


async def test_followers_are_told_of_a_commit_whose_answer_was_lost(site: Site, armed: Callable[[str], None]) -> None:
    store = await site.open_writer()
    first = await store.commit([], {"a": b"1"})
    follower = asyncio.ensure_future(anext(aiter(store.changes(first))))
    await asyncio.sleep(0.01)
    armed("store.after-commit=1*error")
    with pytest.raises(StoreDown):
        await store.commit([], {"lost": b""})
    assert [dict(commit.puts) for commit in await asyncio.wait_for(follower, 2)] == [{"lost": b""}]
    second = await store.commit([], {"b": b""})
    assert second == first + 2
    assert [commit.revision for commit in await take(store, first, second)] == [first + 1, first + 2]


@pytest.mark.parametrize("step", ["store.before-commit", "store.after-commit"])
async def test_a_defect_is_down_once_and_leaves_nobody_waiting(site: Site, armed: Callable[[str], None], step: str) -> None:
    store = await site.open_writer()
    armed(f"{step}=2*panic")
    for number in range(2):
        with pytest.raises(StoreDown, match="a defect"):
            await asyncio.wait_for(store.commit([AtRevision("a", 0)], {"a": b"%d" % number}), 2)
        if step == "store.after-commit":
            break
    there = await everything(store)
    assert set(there) == ({"a"} if step == "store.after-commit" else set())
    armed("")
    assert await store.commit([], {"b": b""}) == len(there) + 1
    await asyncio.wait_for(store.close(), 2)


async def test_reads_do_not_wait_for_a_commit(site: Site, armed: Callable[[str], None]) -> None:
    store = await site.open_writer()
    await store.commit([], {"a": b"1"})
    armed("store.before-commit=delay(1000)")
    began = time.monotonic()
    slow = asyncio.ensure_future(store.commit([], {"a": b"2"}))
    await asyncio.sleep(0.05)
    assert (await store.get(["a"]))["a"].value == b"1"
    assert len(await everything(store)) == 1
    assert not slow.done()
    assert time.monotonic() - began < 0.9
    await slow


async def test_what_is_no_commit_fails_alone(site: Site) -> None:
    store = await site.open_writer()
    bad = [{"surrogate \ud800": b""}, {"text": "not bytes"}, {"none": None}, {7: b""}]
    commits = [store.commit([AtRevision(f"k{n}", 0)], {f"k{n}": b""}) for n in range(5)]
    commits += [store.commit([], puts) for puts in bad]  # type: ignore[arg-type]
    results = await asyncio.gather(*commits, return_exceptions=True)
    assert [type(result) for result in results[5:]] == [ValueError] * len(bad)
    assert all(isinstance(result, int) for result in results[:5])
    assert set(await everything(store)) == {f"k{n}" for n in range(5)}


async def test_a_replaced_lock_file_makes_no_second_writer(site: Site) -> None:
    one, two = await site.open_writer("one:1"), await site.open()
    first = await one.commit([], {"a": b"1"})
    lost = await one.acquire_writer("one:1")
    Path(f"{site.settings.path}.writer").unlink()
    await two.acquire_writer("two:1")
    second = await two.commit([], {"a": b"2"})
    for _ in range(2):
        with pytest.raises(NotWriter):
            await one.commit([AtRevision("a", first)], {"a": b"3"})
    assert lost.is_set()
    assert [commit.revision for commit in await take(one, first, second)] == [second]
    await two.close()
    await asyncio.wait_for(one.acquire_writer("one:1"), 2)
    with pytest.raises(Conflict):
        await one.commit([AtRevision("a", first)], {"a": b"3"})


async def test_the_log_is_bounded_by_age_and_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knitter_manager.store.sqlite.writer._SWEEP", 0.0)
    path = tmp_path / "store.db"

    async def kept(name: str, retention: Retention) -> int:
        settings = StoreSettings(path=str(path.with_name(name)), retention=retention)
        store = await open_store(settings)
        await store.acquire_writer("me")
        for number in range(50):
            await store.commit([], {"a": b"%d" % number})
        await store.close()
        store = await open_store(settings)  # the first one has the newest in memory
        with pytest.raises(Compacted) as caught:
            await anext(aiter(store.changes(0)))
        oldest = caught.value.oldest
        assert [commit.revision for commit in await take(store, oldest, 50)] == list(range(oldest + 1, 51))
        await store.close()
        return 50 - oldest

    clock = itertools.count(10_000)
    monkeypatch.setattr("time.time", lambda: float(next(clock)))  # a second at each look
    assert await kept("least", Retention(age=Seconds(0), least=10, most=1000)) in (10, 11)
    assert await kept("most", Retention(age=Seconds(3600), least=0, most=20)) in (20, 21)
    assert 10 <= await kept("age", Retention(age=Seconds(20), least=0, most=1000)) <= 22


def _other_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a)")
    connection.close()


def _newer(path: Path) -> None:
    asyncio.run(_make(path))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 9")
    connection.close()


async def _make(path: Path) -> None:
    await (await open_store(StoreSettings(path=str(path)))).close()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_bytes(b"not a database" * 1000), "not a database.*restore a snapshot"),
        (_other_program, "another program.*set another path"),
        (_newer, "schema 9 of a newer release; this one knows up to 1; run the newer release"),
        (lambda path: path.mkdir(), "cannot be opened.*directory"),
    ],
    ids=["garbage", "foreign", "newer", "directory"],
)
def test_a_file_it_cannot_use_is_refused_and_not_touched(tmp_path: Path, spoil: Callable[[Path], None], why: str) -> None:
    path = tmp_path / "store.db"
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(Refused, match=f"(?s){path}.*{why}") as caught:
        asyncio.run(_make(path))
    assert caught.value.reason == "STORE_UNUSABLE"
    assert (path.read_bytes() if path.is_file() else b"") == before


async def test_a_file_that_breaks_later_is_told(site: Site) -> None:
    store = await site.open_writer()
    await store.commit([], {f"k{number}": b"x" * 500 for number in range(200)})
    await store.close()
    path = Path(site.settings.path)
    data = bytearray(path.read_bytes())
    data[4096 * 2 :] = b"\xff" * (len(data) - 4096 * 2)
    path.write_bytes(data)
    broken = await open_store(site.settings)
    with pytest.raises(StoreDown, match=r"store\.db.*malformed"):
        await everything(broken)
    await broken.close()


async def test_many_open_a_fresh_file_at_once_and_it_is_private(tmp_path: Path) -> None:
    async with open_site("sqlite", tmp_path / "deep" / "folder") as site:
        stores = await asyncio.gather(*(site.open() for _ in range(8)))
        assert len({(await store.load()).epoch for store in stores}) == 1
        await stores[0].acquire_writer("me")
        await stores[0].commit([], {"a": b""})
        files = list((tmp_path / "deep" / "folder").iterdir())
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        assert (tmp_path / "deep" / "folder").stat().st_mode & 0o777 == 0o700


async def test_opening_and_closing_leaks_nothing(site: Site) -> None:
    def held() -> tuple[int, list[str]]:
        threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("store-")]
        return len(list(Path("/proc/self/fd").iterdir())), threads

    before: tuple[int, list[str]] = (0, [])
    for turn in range(12):
        if turn == 2:
            before = held()
        store = await site.open_writer()
        await store.commit([], {"a": b"%d" % turn})
        await anext(aiter(store.changes(turn)))
        await store.load()  # never read
        await store.get(["a"])
        await store.close()
    assert held() == before
    assert before[1] == []


_A_WRITER = """
import asyncio, sys
from harness.manager import allocate, named, network, start_core
from knitter_common.model import Wish
from knitter_manager.store.sqlite import SqliteStore

async def main():
    core = await start_core(await SqliteStore.open(Path(sys.argv[1])))
    await core.networks.create(network("control", "10.1.0.0/28"))
    print(len((await allocate(core, named("a"), Wish("control"))).ports))
    await core.stop()

asyncio.run(main())
"""


async def test_a_writer_needs_no_inotify(tmp_path: Path) -> None:
    said = await asyncio.to_thread(run_without_inotify, _A_WRITER, str(tmp_path / "store.db"))
    assert said.splitlines()[-1] == "1"
    assert "fs.inotify.max_user_instances" in said, "who follows says what to do"
