"""Rests hold through changes of the writer, on every store: what was given back rests in full again under the next writer, none
that rests goes out while another address is free, and nothing that was acknowledged is lost or has two owners."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from harness.manager import Clock, addresses, allocate, held, named, network, pooled, release, start_core
from harness.stores import Site

from knitter_common.errors import KnitterError
from knitter_common.model import Owner, PortSet, Wish
from knitter_manager.core import Core
from knitter_manager.records import port_set_of

REST = 30.0  # seconds, the default
FIRST = tuple(f"10.7.0.{number}" for number in range(10, 16))  # a small pool that is used first
ROUNDS = 40


class Managers:
    """Two managers on one place, one of which writes. The clock is the test's."""

    def __init__(self, site: Site) -> None:
        self.clock = Clock()
        self._site, self._names = site, itertools.count(1)
        self._cores: list[Core] = []

    async def begin(self) -> None:
        """One more."""
        self._cores.append(await start_core(await self._site.open(), self.clock, f"writer:{next(self._names)}"))

    @property
    def writer(self) -> Core:
        """The one that writes, or did last."""
        return self._cores[0]

    async def change(self, gracefully: bool) -> None:
        """The writer ends; returns when the other one writes, and a third one follows it."""
        old = self._cores.pop(0)
        await (old.stop() if gracefully else old.abandon())
        async with asyncio.timeout(20):
            await self.writer.role.writing.wait()
        await self.begin()

    async def end(self) -> None:
        """All of them."""
        for core in reversed(self._cores):
            await core.stop()


@dataclass
class Model:
    """Who holds what, and when each rest began. A rest lasts at least from `earliest` on, and at most from `latest` on: a rest that
    was over when the writer changed may begin again or not, as its record was swept or was not."""

    clock: Clock
    pool: Sequence[str]
    held: dict[str, str] = field(default_factory=dict)
    earliest: dict[str, float] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)

    def released(self, address: str) -> None:
        """Its rest begins."""
        del self.held[address]
        self.earliest[address] = self.latest[address] = self.clock.now

    def changed(self) -> None:
        """Another one writes from now on."""
        for address in self.latest:
            self.latest[address] = self.clock.now
            if self.clock.now - self.earliest[address] < REST:
                self.earliest[address] = self.clock.now

    def granted(self, got: Sequence[tuple[str, str]]) -> None:
        """(owner, address) of a burst of allocations. What rests went out only if all that was free went out too."""
        resting = {address for address, since in self.earliest.items() if self.clock.now - since < REST}
        for owner, address in got:
            assert address not in self.held, f"{address} of {self.held[address]} was given to {owner}"
            self.held[address] = owner
            self.earliest.pop(address, None)
            self.latest.pop(address, None)
        free = [one for one in self.pool if one not in self.held and self.clock.now - self.latest.get(one, -REST) >= REST]
        early = [address for _, address in got if address in resting]
        assert not (early and free), f"{early} went out while they rested, and {free} were free"


class Hammer:
    """Bursts of releases and allocations; the writer may end in the middle of one."""

    def __init__(self, managers: Managers, dice: random.Random, pool: Sequence[str]) -> None:
        self.managers, self.dice = managers, dice
        self.model = Model(managers.clock, pool)
        self._numbers = itertools.count()

    async def allocate(self, count: int, change: bool | None) -> None:
        """A burst; `change`: the writer ends meanwhile, gracefully or not."""
        owners = [named(f"o{next(self._numbers)}") for _ in range(count)]
        answers = await self._burst([lambda owner=owner: self._allocated(owner) for owner in owners], change)  # type: ignore[misc]
        sets = self._sets()
        got = []
        for owner, answer in zip(owners, answers, strict=True):
            known = sets.get(owner.key)
            if isinstance(answer, PortSet):
                assert known is not None, f"{owner.key} was acknowledged and is lost"
                assert addresses(known) == addresses(answer)
            if known is not None:
                got.append((owner.key, *addresses(known)))
        self.model.granted(got)
        if change is not None:
            self.model.changed()

    async def release(self, count: int, change: bool | None) -> None:
        """As `allocate`."""
        going = dict(self.dice.sample(sorted(self.model.held.items()), min(count, len(self.model.held))))
        owners = [named(key.rpartition("/")[2]) for key in going.values()]
        answers = await self._burst([lambda owner=owner: self._released(owner) for owner in owners], change)  # type: ignore[misc]
        sets = self._sets()
        for address, owner, answer in zip(going, owners, answers, strict=True):
            if not isinstance(answer, KnitterError):
                assert owner.key not in sets, f"the end of {owner.key} was acknowledged and is lost"
            if owner.key not in sets:
                self.model.released(address)
        if change is not None:
            self.model.changed()

    async def _allocated(self, owner: Owner) -> PortSet | None:
        return await allocate(self.managers.writer, owner, Wish("small"))

    async def _released(self, owner: Owner) -> None:
        await release(self.managers.writer, owner)

    async def _burst(self, work: Sequence[Callable[[], Awaitable[object]]], change: bool | None) -> list[object]:
        """What each is answered; a KnitterError where nobody knows, or it was refused."""
        tasks = [asyncio.ensure_future(one()) for one in work]
        if change is not None:
            for _ in range(self.dice.randrange(6)):
                await asyncio.sleep(0)
            await self.managers.change(gracefully=change)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, KnitterError):
                raise answer
        return list(answers)

    def _sets(self) -> dict[str, PortSet]:
        """As the one that writes now knows them; nothing of what was there before the burst is lost."""
        core = self.managers.writer
        held(core)  # one owner each
        return {key: port_set_of(record) for key, record in core.cluster.sets.items()}


@pytest.mark.parametrize("spare", [12, 240], ids=["scarce", "plenty"])
async def test_rests_hold_through_changes_of_the_writer(site: Site, spare: int) -> None:
    dice, managers = random.Random(spare), Managers(site)
    second = tuple(f"10.8.0.{number}" for number in range(10, 10 + spare))
    await managers.begin()
    await managers.begin()
    hammer = Hammer(managers, dice, FIRST + second)
    subnets = pooled("10.7.0.0/24", (FIRST[0], FIRST[-1])), pooled("10.8.0.0/24", (second[0], second[-1]))
    await managers.writer.networks.create(network("small", *subnets))
    for _ in range(ROUNDS):
        await hammer.allocate(dice.randrange(1, 10), dice.choice([None, None, None, True, False]))
        managers.clock.now += dice.choice([0.0, 1.0, 9.0, 16.0])
        await hammer.release(dice.randrange(1, 10), dice.choice([None, None, None, None, True, False]))
        managers.clock.now += dice.choice([0.0, 1.0, 9.0, 31.0])
        known = {address: key for (_, address), key in held(managers.writer).items()}
        assert known == hammer.model.held
    await managers.end()
    final = await start_core(await site.open(), managers.clock)  # and from the store alone
    assert {address: key for (_, address), key in held(final).items()} == hammer.model.held
    await final.stop()
