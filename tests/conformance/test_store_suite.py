"""What every store promises, on all of them."""

import asyncio
from typing import Any

import pytest
from harness.stores import Site, everything, take

from knitter_manager.store import Store
from knitter_manager.store.memory import MemorySpace, MemoryStore
from knitter_manager.store.protocol import (
    EVERYTHING,
    AtRevision,
    Commit,
    Compacted,
    Conflict,
    NotWriter,
    PrefixEmpty,
    Span,
    StoreDown,
    all_but,
    below,
)


@pytest.fixture
async def store(site: Site) -> Store:
    return await site.open_writer()


def outcome(result: Any) -> str:
    return "ok" if isinstance(result, int) else type(result).__name__


# -- commits ---------------------------------------------------------------------------------------------------------


async def test_a_new_store_is_empty(store: Store) -> None:
    assert await everything(store) == {}
    assert await store.get(["a"]) == {}
    assert await store.get([]) == {}


async def test_a_commit_is_read_back_with_its_revision(store: Store) -> None:
    revision = await store.commit([], {"a": b"1", "b": b""})
    assert revision > 0
    found = await store.get(["b", "a", "c"])
    assert {key: (record.key, record.value, record.revision) for key, record in found.items()} == {
        "a": ("a", b"1", revision),
        "b": ("b", b"", revision),
    }


async def test_revisions_only_grow_and_records_tell_their_last_commit(store: Store) -> None:
    first = await store.commit([], {"a": b"1", "b": b"1"})
    second = await store.commit([], {"a": b"2"})
    third = await store.commit([], {"a": b"2"})
    assert first < second < third
    records = await store.get(["a", "b"])
    assert (records["a"].revision, records["b"].revision) == (third, first)


async def test_any_bytes_and_any_text_are_kept(store: Store) -> None:
    puts = {"blob": bytes(range(256)), "zeros": b"\0" * 100_000, "grüße/東京/🙂": b"x", "with\nline and space ": b"y", "%_*": b"z"}
    await store.commit([], puts)
    assert {key: record.value for key, record in (await everything(store)).items()} == puts
    assert {key: record.value for key, record in (await store.get(list(puts))).items()} == puts


async def test_a_condition_on_absence_holds_once(store: Store) -> None:
    revision = await store.commit([AtRevision("a", 0)], {"a": b"1"})
    with pytest.raises(Conflict) as caught:
        await store.commit([AtRevision("a", 0)], {"a": b"2", "b": b"2"})
    assert caught.value.key == "a"
    assert caught.value.current == (await store.get(["a"]))["a"]
    assert caught.value.current is not None
    assert (caught.value.current.value, caught.value.current.revision) == (b"1", revision)
    assert await store.get(["b"]) == {}


async def test_a_condition_on_a_revision_tells_the_current_record(store: Store) -> None:
    first = await store.commit([], {"a": b"1"})
    second = await store.commit([AtRevision("a", first)], {"a": b"2"})
    with pytest.raises(Conflict) as caught:
        await store.commit([AtRevision("a", first)], {"a": b"3"})
    assert caught.value.current is not None
    assert (caught.value.current.value, caught.value.current.revision) == (b"2", second)
    assert caught.value.revision >= second
    with pytest.raises(Conflict) as caught:
        await store.commit([AtRevision("gone", first)], {"a": b"3"})
    assert (caught.value.key, caught.value.current) == ("gone", None)
    assert second <= caught.value.revision < await store.commit([], {"b": b"1"})


async def test_a_conflict_tells_the_revision_of_the_state_it_was_judged_in(store: Store) -> None:
    for _ in range(20):
        late = [store.commit([AtRevision("a", 0)], {"a": b"%d" % number, f"b{number}": b""}) for number in range(5)]
        results = await asyncio.gather(*late, store.commit([], {"c": b"1"}), return_exceptions=True)
        done = [result for result in results if isinstance(result, int)]
        assert len(done) == 2
        for result in results:
            if isinstance(result, Conflict):
                assert result.current is not None
                assert result.current.revision <= result.revision <= max(done)
        await store.commit([], {}, ["a"])


async def test_the_first_condition_that_fails_is_told(store: Store) -> None:
    revision = await store.commit([], {"a": b"1", "b": b"1"})
    with pytest.raises(Conflict) as caught:
        await store.commit([AtRevision("a", revision), AtRevision("b", 0), AtRevision("c", 7)], {"x": b""})
    assert caught.value.key == "b"


async def test_a_condition_may_name_keys_that_are_not_written(store: Store) -> None:
    shape = await store.commit([], {"network/1": b"shape"})
    await store.commit([AtRevision("network/1", shape)], {"addr/1": b""})
    await store.commit([AtRevision("network/1", shape)], {"network/1": b"other"})
    with pytest.raises(Conflict):
        await store.commit([AtRevision("network/1", shape)], {"addr/2": b""})


async def test_an_empty_prefix(store: Store) -> None:
    await store.commit([PrefixEmpty("addr/1/"), PrefixEmpty("")], {"addr/10": b"", "addr/1": b"", "addr/1.": b""})
    revision = await store.commit([PrefixEmpty("addr/1/")], {"addr/1/a": b"v", "addr/1/b": b"w"})
    with pytest.raises(Conflict) as caught:
        await store.commit([PrefixEmpty("addr/1/")], {"x": b""})
    assert caught.value.key == "addr/1/a"
    assert caught.value.current is not None
    assert (caught.value.current.value, caught.value.current.revision) == (b"v", revision)
    await store.commit([], {}, ["addr/1/a", "addr/1/b"])
    await store.commit([PrefixEmpty("addr/1/"), PrefixEmpty("\U0010ffff"), PrefixEmpty("é")], {"x": b""})


async def test_deletes_and_recreation(store: Store) -> None:
    revision = await store.commit([], {"a": b"1", "b": b"1"})
    await store.commit([AtRevision("a", revision)], {"c": b"1"}, ["a"])
    assert set(await everything(store)) == {"b", "c"}
    with pytest.raises(Conflict) as caught:
        await store.commit([AtRevision("a", revision)], {"a": b"2"})
    assert caught.value.current is None
    again = await store.commit([AtRevision("a", 0)], {"a": b"2"})
    assert (await store.get(["a"]))["a"].revision == again > revision


async def test_what_changes_nothing_makes_no_revision(store: Store) -> None:
    begin = (await store.load()).revision
    first = await store.commit([], {"a": b"1"})
    assert await store.commit([AtRevision("a", first)], {}) >= first
    assert await store.commit([], {}, ["absent", "absent"]) >= first
    with pytest.raises(Conflict):
        await store.commit([AtRevision("a", 0)], {})
    second = await store.commit([], {"b": b"1"}, ["absent"])
    assert await take(store, begin, second) == [Commit(first, {"a": b"1"}), Commit(second, {"b": b"1"})]


async def test_a_key_cannot_be_put_and_deleted(store: Store) -> None:
    with pytest.raises(ValueError, match="put and deleted"):
        await store.commit([], {"a": b"1"}, ["a"])
    assert await everything(store) == {}


async def test_a_whole_port_set_fits_one_commit(store: Store) -> None:
    keys = [f"addr/1/10.0.0.{number}" for number in range(48)] + [f"mac/1/02:{number:02x}" for number in range(32)] + ["portset/p"]
    shapes = await store.commit([], {f"network/{number}": b"" for number in range(32)})
    conditions = [AtRevision(key, 0) for key in keys] + [AtRevision(f"network/{number}", shapes) for number in range(32)]
    revision = await store.commit(conditions, dict.fromkeys(keys, b"p"))
    assert {record.revision for record in (await store.get(keys)).values()} == {revision}
    await store.commit([AtRevision(key, revision) for key in keys], {}, keys)
    assert await store.get(keys) == {}


async def test_each_commit_of_many_is_judged_alone(store: Store) -> None:
    await store.commit([], {"taken": b""})
    commits = [store.commit([AtRevision(f"k{n % 50}", 0)], {f"k{n % 50}": b"%d" % n, f"by/{n}": b""}) for n in range(150)]
    commits += [store.commit([AtRevision("taken", 0)], {"never": b""}), store.commit([PrefixEmpty("tak")], {"never": b""})]
    results = await asyncio.gather(*commits, return_exceptions=True)
    assert [outcome(result) for result in results].count("ok") == 50
    assert [outcome(result) for result in results].count("Conflict") == 102
    state = await everything(store)
    assert "never" not in state
    won = {n: result for n, result in enumerate(results) if isinstance(result, int)}
    assert len(set(won.values())) == 50
    assert {key for key in state if key.startswith("by/")} == {f"by/{n}" for n in won}
    for number, revision in won.items():
        assert (state[f"k{number % 50}"].value, state[f"k{number % 50}"].revision) == (b"%d" % number, revision)
    for number, result in enumerate(results[:150]):
        if isinstance(result, Conflict):
            assert result.current == state[f"k{number % 50}"]


async def test_commits_at_once_that_build_on_each_other(store: Store) -> None:
    async def count(times: int) -> None:
        for _ in range(times):
            while True:
                record = (await store.get(["counter"])).get("counter")
                value = int(record.value) if record else 0
                try:
                    await store.commit([AtRevision("counter", record.revision if record else 0)], {"counter": b"%d" % (value + 1)})
                except Conflict:
                    continue
                break

    await asyncio.gather(*(count(5) for _ in range(8)))
    assert (await store.get(["counter"]))["counter"].value == b"40"


async def test_a_cancelled_caller_harms_nobody(store: Store) -> None:
    tasks = [asyncio.ensure_future(store.commit([], {f"k{n}": b""})) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, int) for result in results[1::2])
    assert {f"k{n}" for n in range(1, 20, 2)} <= set(await everything(store))


# -- loads -----------------------------------------------------------------------------------------------------------


async def test_a_load_comes_in_batches_in_key_order(store: Store) -> None:
    for begin in range(0, 2400, 60):
        await store.commit([], {f"k/{number:05d}": b"%d" % number for number in range(begin, begin + 60)})
    state = await everything(store)
    assert {key: record.value for key, record in state.items()} == {f"k/{number:05d}": b"%d" % number for number in range(2400)}


async def test_a_load_is_of_one_moment_while_commits_run(store: Store) -> None:
    await store.commit([], {"left": b"0", "right": b"0", **{f"pad/{number}": b"" for number in range(50)}})
    stop = asyncio.Event()

    async def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await store.commit([], {"left": b"%d" % number, "right": b"%d" % number})

    task = asyncio.ensure_future(churn())
    for _ in range(10):
        snapshot = await store.load()
        records = {record.key: record async for batch in snapshot.batches for record in batch}
        assert records["left"].value == records["right"].value
        assert len(records) == 52
        assert records["left"].revision <= snapshot.revision
        after = await anext(aiter(store.changes(snapshot.revision)))
        assert int(after[0].puts["left"]) == int(records["left"].value) + 1
    stop.set()
    await task


async def test_a_load_of_spans_has_their_records_alone(store: Store) -> None:
    names = ["a", "addr/x", "mac", "mac/", "mac/x/1", "mac/x/2", "mac0", "meta/epoch", "portset/a", "portset/z", "staged/mac/x"]
    await store.commit([], dict.fromkeys(names, b"1"))

    async def loaded(*spans: Span) -> list[str]:
        snapshot = await store.load(spans)
        assert snapshot.epoch.endswith(".1")
        return [record.key async for batch in snapshot.batches for record in batch]

    assert await loaded(*EVERYTHING) == names
    assert await loaded(*all_but("staged/", "mac/")) == [name for name in names if not name.startswith(("mac/", "staged/"))]
    assert await loaded(below("mac/"), below("portset/")) == ["mac/", "mac/x/1", "mac/x/2", "portset/a", "portset/z"]
    assert await loaded(below("nothing/"), below("staged/"), below("zzz/")) == ["staged/mac/x"]


async def test_the_epoch_stays_and_counts_restores(site: Site) -> None:
    store = await site.open_writer()
    epoch = (await store.load()).epoch
    identity, _, counter = epoch.rpartition(".")
    assert identity
    assert counter == "0"
    await store.commit([], {"meta/epoch": b"7"})
    await store.close()
    assert (await (await site.open()).load()).epoch == f"{identity}.7"


# -- changes ---------------------------------------------------------------------------------------------------------


async def test_changes_tell_every_commit_after_a_revision(store: Store) -> None:
    begin = (await store.load()).revision
    first = await store.commit([], {"a": b"1", "b": b"1"})
    second = await store.commit([], {"c": b"1"}, ["a", "absent"])
    third = await store.commit([], {"a": b"2"})
    told = [
        Commit(first, {"a": b"1", "b": b"1"}),
        Commit(second, {"c": b"1"}, ("a",)),
        Commit(third, {"a": b"2"}),
    ]
    assert await take(store, begin, third) == told
    assert await take(store, first, third) == told[1:]
    assert await take(store, second, third) == told[2:]


async def test_changes_are_told_live_to_all_who_follow(site: Site, store: Store) -> None:
    start = await store.commit([], {"a": b"0"})
    other = await site.open()
    followers = [asyncio.ensure_future(anext(aiter(one.changes(start)))) for one in (store, store, other)]
    await asyncio.sleep(0.05)
    assert not any(follower.done() for follower in followers)
    revision = await store.commit([], {"a": b"1"})
    for batch in await asyncio.wait_for(asyncio.gather(*followers), 5):
        assert list(batch) == [Commit(revision, {"a": b"1"})]


async def test_every_change_of_many_arrives_once(site: Site, store: Store) -> None:
    other = await site.open()
    start = await store.commit([], {"start": b""})
    following = [asyncio.ensure_future(_count(one, start, 300)) for one in (store, other)]
    revisions = await asyncio.gather(*(store.commit([], {f"k{number}": b""}) for number in range(300)))
    for told in await asyncio.wait_for(asyncio.gather(*following), 10):
        assert [commit.revision for commit in told] == sorted(revisions)


async def _count(store: Store, after: int, count: int) -> list[Commit]:
    told: list[Commit] = []
    changes = store.changes(after)
    async for batch in changes:
        told += batch
        if len(told) >= count:
            break
    await changes.aclose()  # type: ignore[attr-defined]
    return told


async def test_a_cancelled_follower_ends(store: Store) -> None:
    start = await store.commit([], {"a": b""})
    task = asyncio.ensure_future(_count(store, start, 1))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.commit([], {"a": b"1"})


async def test_compacted_changes_are_told_as_such(site: Site, store: Store) -> None:
    revisions = [await store.commit([], {"a": b"%d" % number}) for number in range(6)]
    await store.compact(revisions[2])
    for one in (store, await site.open()):
        for after in (0, revisions[1]):
            with pytest.raises(Compacted) as caught:
                await anext(aiter(one.changes(after)))
            assert caught.value.oldest == revisions[2]
        assert [commit.revision for commit in await take(one, revisions[2], revisions[5])] == revisions[3:]
    await store.compact(revisions[2])
    assert (await store.get(["a"]))["a"].value == b"5"
    assert set(await everything(store)) == {"a"}


async def test_compacting_everything_keeps_the_head(site: Site, store: Store) -> None:
    await store.commit([], {"a": b"1"})
    last = await store.commit([], {"b": b"1"})
    await store.compact(last)
    await store.close()
    again = await site.open_writer("other:1")
    snapshot = await again.load()
    assert snapshot.revision >= last
    follower = asyncio.ensure_future(anext(aiter(again.changes(last))))
    newer = await again.commit([], {"x": b""})
    assert newer > last
    assert [commit.revision for commit in await asyncio.wait_for(follower, 5)] == [newer]


# -- the writer ------------------------------------------------------------------------------------------------------


async def test_one_writes_and_the_others_are_told_who(site: Site) -> None:
    one, two = await site.open_writer("one:1"), await site.open()
    lost = await one.acquire_writer("one:1")
    assert await two.writer() == await one.writer() == "one:1"
    with pytest.raises(NotWriter) as caught:
        await two.commit([], {"a": b""})
    assert caught.value.writer == "one:1"
    await one.commit([], {"a": b"1"})
    assert (await two.get(["a"]))["a"].value == b"1"
    assert not lost.is_set()
    await one.close()
    assert lost.is_set()


async def test_nobody_writes(site: Site) -> None:
    store = await site.open()
    assert await store.writer() == ""
    with pytest.raises(NotWriter) as caught:
        await store.commit([], {"a": b""})
    assert caught.value.writer == ""
    assert await everything(store) == {}


async def test_a_writer_that_closes_hands_over_at_once(site: Site) -> None:
    one, two = await site.open_writer("one:1"), await site.open()
    revision = await one.commit([], {"a": b"1"})
    waiting = asyncio.ensure_future(two.acquire_writer("two:1"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await one.close()
    await asyncio.wait_for(waiting, 2)
    assert await two.writer() == "two:1"
    assert await two.commit([AtRevision("a", revision)], {"a": b"2"}) > revision
    told = await take(two, revision, revision + 1)
    assert told[0].puts == {"a": b"2"}


async def test_only_one_of_those_who_wait_gets_it(site: Site) -> None:
    stores = [await site.open() for _ in range(3)]
    await stores[0].acquire_writer("0")
    waiting = {asyncio.ensure_future(store.acquire_writer(str(number))): store for number, store in enumerate(stores[1:], 1)}
    await asyncio.sleep(0.05)
    await stores[0].close()
    done, left = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    await asyncio.sleep(0.05)
    assert not next(iter(left)).done()
    await waiting[done.pop()].close()
    await asyncio.wait_for(left.pop(), 5)


async def test_a_cancelled_wait_for_the_writers_place_does_not_take_it(site: Site) -> None:
    one, two, three = await site.open_writer("one:1"), await site.open(), await site.open()
    waiting = asyncio.ensure_future(two.acquire_writer("two:1"))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await one.close()
    await asyncio.wait_for(three.acquire_writer("three:1"), 5)
    assert await three.writer() == "three:1"


async def test_only_the_writer_compacts(site: Site) -> None:
    one, two = await site.open_writer(), await site.open()
    revision = await one.commit([], {"a": b""})
    with pytest.raises(NotWriter):
        await two.compact(revision)


async def test_a_new_writer_continues_the_revisions_under_load(site: Site) -> None:
    one, two = await site.open_writer("one:1"), await site.open()
    follower = asyncio.ensure_future(_count(two, (await one.load()).revision, 100))
    first = await asyncio.gather(*(one.commit([], {f"a{number}": b""}) for number in range(50)))
    await one.close()
    await two.acquire_writer("two:1")
    second = await asyncio.gather(*(two.commit([], {f"b{number}": b""}) for number in range(50)))
    assert max(first) < min(second)
    told = await asyncio.wait_for(follower, 5)
    assert [commit.revision for commit in told] == sorted(first) + sorted(second)


# -- ends ------------------------------------------------------------------------------------------------------------


async def test_reopening_keeps_everything(site: Site) -> None:
    store = await site.open_writer()
    begin = (await store.load()).revision
    first = await store.commit([], {"a": b"1", "b": b"1"})
    second = await store.commit([AtRevision("a", first)], {"a": b"2"}, ["b"])
    before = await everything(store)
    epoch = (await store.load()).epoch
    await store.close()
    again = await site.open_writer("again:1")
    assert await everything(again) == before
    assert (await again.load()).epoch == epoch
    assert await take(again, begin, second) == [Commit(first, {"a": b"1", "b": b"1"}), Commit(second, {"a": b"2"}, ("b",))]
    assert await again.commit([AtRevision("a", second)], {"a": b"3"}) > second


async def test_close_answers_everyone_and_ends_everything(site: Site) -> None:
    store, other = await site.open_writer("one:1"), await site.open()
    start = await store.commit([], {"start": b""})
    follower = asyncio.ensure_future(anext(aiter(store.changes(start + 1000))))
    waiting = asyncio.ensure_future(other.acquire_writer("two:1"))
    commits = [asyncio.ensure_future(store.commit([], {f"k{number}": b""})) for number in range(200)]
    await asyncio.sleep(0)
    await other.close()
    with pytest.raises(StoreDown):
        await asyncio.wait_for(waiting, 5)
    await store.close()
    results = await asyncio.wait_for(asyncio.gather(*commits, return_exceptions=True), 5)
    assert {outcome(result) for result in results} <= {"ok", "StoreDown"}
    with pytest.raises(StoreDown):
        await asyncio.wait_for(follower, 5)
    again = await site.open()
    state = await everything(again)
    assert {f"k{number}" for number, result in enumerate(results) if isinstance(result, int)} <= set(state)


async def test_a_closed_store_refuses_everything(site: Site) -> None:
    store = await site.open_writer()
    await store.close()
    await store.close()
    calls = [store.acquire_writer("x"), store.writer(), store.load(), store.get(["a"]), store.commit([], {"a": b""}),
             store.compact(1), anext(aiter(store.changes(0)))]  # fmt: skip
    for call in calls:
        with pytest.raises(StoreDown, match="closed"):
            await call


async def test_memory_tells_who_is_deposed_and_what_is_down() -> None:
    space = MemorySpace()
    one, two = MemoryStore(space), MemoryStore(space)
    lost = await one.acquire_writer("one:1")
    pending = asyncio.ensure_future(one.commit([], {"a": b""}))
    waiting = asyncio.ensure_future(two.acquire_writer("two:1"))
    await asyncio.sleep(0)
    space.depose()
    assert lost.is_set()
    with pytest.raises(NotWriter):
        await pending
    await asyncio.wait_for(waiting, 1)
    space.down = "unplugged"
    for call in (two.commit([], {"a": b""}), two.get(["a"]), two.load()):
        with pytest.raises(StoreDown, match="unplugged"):
            await call
    space.down = ""
    await two.commit([], {"a": b""})
