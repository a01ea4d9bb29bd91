"""What is planned while a commit is under way: it goes together, in as few commits as the store takes, and each is told its end."""

import asyncio
from collections.abc import Mapping, Sequence

from harness.manager import Clock

from knitter_manager.committer import MOST_COMMITS, Change, Committer, Outcome
from knitter_manager.state import Cluster
from knitter_manager.store.memory import MemoryStore
from knitter_manager.store.protocol import MOST_BYTES, Condition, Conflict


class HeldMemory(MemoryStore):
    """`asked` are the commits it was asked for, by the keys they put; each ends when the test lets one go on."""

    most_keys = 4

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[set[str]] = []
        self.go_on = asyncio.Semaphore(0)

    async def commit(self, conditions: Sequence[Condition], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        """As MemoryStore, when it may."""
        self.asked.append(set(puts))
        await self.go_on.acquire()
        return await super().commit(conditions, puts, deletes)


class Desk:
    """A committer on such a store."""

    def __init__(self, store: HeldMemory) -> None:
        self.store = store
        self.committer = Committer(store, Cluster("admin/default"), Clock())
        self.ends: dict[str, Outcome] = {}

    async def submit(self, *keys: str, conditions: Mapping[str, int] | None = None, value: bytes = b"") -> None:
        """One change that puts these keys; what follows from it has happened."""
        change = Change(dict(conditions or {}), dict.fromkeys(keys, value), (), lambda end: self.ends.update({keys[0]: end}))
        self.committer.submit(change)
        await _turns()

    async def end(self, count: int = 1) -> None:
        """So many commits end."""
        for _ in range(count):
            self.store.go_on.release()
        await _turns()


async def _turns() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


async def desk() -> Desk:
    store = HeldMemory()
    await store.acquire_writer("writer:1")
    return Desk(store)


async def test_what_comes_while_a_commit_is_under_way_goes_together_in_the_next_one() -> None:
    made = await desk()
    for key in ("vid/a", "vid/b", "vid/c"):
        await made.submit(key)
    assert made.store.asked == [{"vid/a"}]
    await made.end()
    assert made.store.asked == [{"vid/a"}, {"vid/b", "vid/c"}]
    assert list(made.ends) == ["vid/a"]
    await made.end()
    assert made.ends == {"vid/a": 1, "vid/b": 2, "vid/c": 2}
    assert made.committer.quiet


async def test_what_fills_a_commit_goes_beside_others_up_to_a_bound() -> None:
    made = await desk()
    for number in range(1 + 4 * MOST_COMMITS):
        await made.submit(f"vid/{number}")
    assert [len(keys) for keys in made.store.asked] == [1, *[4] * (MOST_COMMITS - 1)]
    await made.end()
    assert [len(keys) for keys in made.store.asked] == [1, *[4] * MOST_COMMITS]
    await made.end(MOST_COMMITS)
    assert made.ends.keys() == {f"vid/{number}" for number in range(1 + 4 * MOST_COMMITS)}
    assert made.committer.quiet


async def test_a_commit_has_no_more_bytes_than_it_may() -> None:
    made = await desk()
    await made.submit("vid/0")
    for number in range(1, 4):
        await made.submit(f"vid/{number}", value=b"x" * (MOST_BYTES // 2))
    await made.end()
    assert made.store.asked[1:] == [{"vid/1", "vid/2"}]
    await made.end()
    assert made.store.asked[2:] == [{"vid/3"}]
    await made.submit("vid/4", value=b"x" * (MOST_BYTES + 1))
    await made.end(2)
    assert made.ends.keys() == {f"vid/{number}" for number in range(5)}, "one that is larger by itself goes alone"


async def test_two_that_write_the_same_key_are_judged_one_after_the_other() -> None:
    made = await desk()
    await made.submit("vid/0")
    await made.submit("vid/1", "vid/same", conditions={"vid/same": 0})
    await made.submit("vid/2", "vid/same", conditions={"vid/same": 0})
    await made.end(3)
    assert made.store.asked == [{"vid/0"}, {"vid/1", "vid/same"}, {"vid/2", "vid/same"}]
    assert (made.ends["vid/1"], type(made.ends["vid/2"])) == (2, Conflict)


async def test_two_that_disagree_on_what_they_read_are_judged_one_after_the_other() -> None:
    made = await desk()
    await made.submit("vid/0")
    await made.submit("vid/1", conditions={"vid/0": 1})
    await made.submit("vid/2", conditions={"vid/0": 7})
    await made.end(3)
    assert made.store.asked == [{"vid/0"}, {"vid/1"}, {"vid/2"}]
    assert (made.ends["vid/1"], type(made.ends["vid/2"])) == (2, Conflict)


async def test_of_those_that_went_together_one_that_conflicts_fails_alone() -> None:
    made = await desk()
    await made.submit("vid/0")
    await made.submit("vid/1")
    await made.submit("vid/2", conditions={"vid/0": 7})
    await made.submit("vid/3")
    await made.end(2)
    assert made.store.asked[1] == {"vid/1", "vid/2", "vid/3"}
    await made.end(3)
    assert made.store.asked[2:] == [{"vid/1"}, {"vid/2"}, {"vid/3"}]
    assert isinstance(made.ends["vid/2"], Conflict)
    assert {made.ends["vid/1"], made.ends["vid/3"]} == {2, 3}
    assert made.committer.quiet
