"""A manager that ends, or breaks, leaves nothing running and nobody waiting."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from harness.manager import allocate, named, network, start_core

from knitter_common.errors import Refused, Unavailable
from knitter_common.model import Wish
from knitter_manager.store.memory import MemoryStore
from knitter_manager.store.protocol import Commit, Condition, Record, StoreDown


class SlowMemory(MemoryStore):
    """Answers `get` when it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def get(self, keys: Sequence[str]) -> dict[str, Record]:
        """As MemoryStore."""
        await self.go_on.wait()
        return dict(await super().get(keys))


class StuckMemory(MemoryStore):
    """While `stuck`, commits are answered by its end alone, as those on a disk that hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck = False
        self._left: list[asyncio.Future[int]] = []

    async def commit(self, conditions: Sequence[Condition], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        """As MemoryStore, or never."""
        if not self.stuck:
            return await super().commit(conditions, puts, deletes)
        self._left.append(asyncio.get_running_loop().create_future())
        return await self._left[-1]

    async def close(self) -> None:
        """As MemoryStore."""
        await super().close()
        for future in self._left:
            future.set_exception(StoreDown("the store is closed"))
        self._left.clear()


class BrokenFeed(MemoryStore):
    """Its changes cannot be followed, for a reason that no code expects."""

    async def changes(self, after: int) -> AsyncIterator[Sequence[Commit]]:
        """Breaks."""
        raise OSError(24, "Too many open files")
        yield ()


def _others() -> set["asyncio.Task[object]"]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


@pytest.mark.parametrize("how", ["stop", "abandon"])
async def test_what_is_in_doubt_is_given_up_at_the_end(how: str) -> None:
    store = MemoryStore()
    core = await start_core(store)
    await core.networks.create(network("control", "10.1.0.0/28"))
    doubtful = asyncio.ensure_future(allocate(core, named("a"), Wish("control")))
    await asyncio.sleep(0)
    store.space.down = "cut off"  # after the commit was handed over: nobody knows what became of it
    with pytest.raises(Unavailable):
        await doubtful
    await getattr(core, how)()
    assert _others() == set()


async def test_what_comes_into_doubt_at_the_end_is_given_up_too() -> None:
    store = StuckMemory()
    core = await start_core(store)
    await core.networks.create(network("control", "10.1.0.0/28"))
    store.stuck = True
    under_way = [asyncio.ensure_future(allocate(core, named(name), Wish("control"))) for name in "ab"]
    await asyncio.sleep(0.01)
    await core.abandon()
    for told in await asyncio.gather(*under_way, return_exceptions=True):
        assert isinstance(told, Unavailable)
    await asyncio.sleep(0)
    assert _others() == set()


async def test_who_asks_for_what_is_held_is_told_at_the_end_too() -> None:
    store = SlowMemory()
    core = await start_core(store)
    await core.networks.create(network("control", "10.1.0.0/28"))
    await allocate(core, named("a"), Wish("control", addresses=("10.1.0.5",)))
    store.go_on.clear()
    asking = asyncio.ensure_future(allocate(core, named("b"), Wish("control", addresses=("10.1.0.5",))))
    await asyncio.sleep(0)
    await core.stop()
    with pytest.raises(Refused, match=r"10\.1\.0\.5 of network admin/control is held by another owner"):
        await asking
    assert _others() == set()


async def test_a_manager_whose_feed_breaks_while_it_begins_says_so() -> None:
    async with asyncio.timeout(10):
        with pytest.raises(OSError, match="Too many open files"):
            await start_core(BrokenFeed())
