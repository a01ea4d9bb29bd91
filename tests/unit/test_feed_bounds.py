"""What is kept of the newest commits is bounded by what it costs, however large single commits are."""

import pytest
from harness.manager import allocate, core_on, named, network
from harness.stores import open_site

from knitter_common.model import Wish
from knitter_manager import feed
from knitter_manager.store.feed import Tail
from knitter_manager.store.protocol import Commit


def commit(revision: int, records: int) -> Commit:
    return Commit(revision, {f"k/{revision}/{number}": b"v" for number in range(records - records // 3)}, ("d",) * (records // 3))


@pytest.mark.parametrize("sizes", [[1] * 500, [9] * 100, [150] * 5, [0] * 300, [90, 0, 0, 3] * 40])
def test_a_tail_holds_the_newest_and_weighs_less_than_twice_its_limit(sizes: list[int]) -> None:
    tail, told = Tail(10, limit=100), []
    for revision, size in enumerate(sizes, 11):
        told.append(commit(revision, size))
        tail.extend(told[-1:])
        held = tail.since(tail.after, 1000)
        assert held == told[-len(held or ()) :]
        assert tail.after + len(held) == tail.head == revision
        assert len(held) == 1 or sum(one.weight for one in held) < 200
    assert len(sizes) < 100 or tail.since(10, 1) is None
    assert tail.since(tail.head, 1) == []


def test_a_tail_that_forgets_or_begins_anew_has_room_again() -> None:
    tail = Tail(0, limit=100)
    tail.extend([commit(revision, 9) for revision in range(1, 16)])
    tail.forget(10)
    tail.extend([commit(revision, 9) for revision in range(16, 24)])
    assert tail.after == 10
    tail.restart(50)
    tail.extend([commit(revision, 9) for revision in range(51, 70)])
    assert tail.after == 50
    tail.extend([commit(80, 1)])  # a gap
    tail.extend([commit(revision, 9) for revision in range(81, 99)])
    assert (tail.after, tail.head) == (79, 98)


async def test_the_feeds_ring_holds_what_is_told_outside_and_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "RING", 40)
    async with open_site("sqlite", tmp_path) as site, core_on(await site.open()) as core:
        await core.networks.create(network("net", "10.0.0.0/16"))
        start = core.cluster.revision
        for number in range(60):
            await allocate(core, named(f"a{number}"), Wish(network="net"))
            held = core.feed.behind(start if number < 5 else core.cluster.revision - 5)
            assert held
            assert all(list(one.puts) == [f"portset/named/admin/a{number - len(held) + at + 1}"] for at, one in enumerate(held))
        assert core.feed.behind(core.cluster.revision - 15) is not None
        assert core.feed.behind(core.cluster.revision - 25) is None
