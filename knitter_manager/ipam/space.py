"""The addresses of one subnet: who holds how many, which one goes out next, which ones rest."""

import ipaddress
from collections.abc import Collection, Iterator
from typing import NamedTuple

from knitter_common.model import Subnet
from knitter_manager.ipam.bitmap import Bitmap
from knitter_manager.ipam.pool import Pool, Resting
from knitter_manager.ipam.ranges import minus, pools_of


class Taken(NamedTuple):
    """An address that was just taken. `mark` is the revision of the record that its rest left in the store, 0 for none; `since` is
    when that rest began, None when it was never used."""

    address: int
    mark: int
    since: float | None
    pool: Pool | None


class Usage(NamedTuple):
    """How many addresses; a /64's numbers are exact too."""

    size: int
    held: int
    resting: int

    @property
    def free(self) -> int:
        """Those that can go out now."""
        return self.size - self.held - self.resting


class Space:
    """One subnet. An address is free, held, or resting after it was held; what lies outside the pools can only be held."""

    def __init__(self, subnet: Subnet) -> None:
        network = ipaddress.ip_network(subnet.cidr)
        self.version, self.prefix_length = network.version, network.prefixlen
        self.first, self.last = int(network[0]), int(network[-1])
        self._busy = Bitmap(self.last - self.first + 1)
        self._stray: dict[int, int] = {}  # busy outside of every pool: address → mark of its rest, 0 while it is held
        self.subnet = subnet
        self.pools = tuple(Pool(self.first, self._busy, ranges) for ranges in pools_of(subnet))

    def __contains__(self, address: int) -> bool:
        return self.first <= address <= self.last

    def pool_of(self, address: int) -> Pool | None:
        """The pool that may hand it out."""
        return next((pool for pool in self.pools if pool.holds(address)), None)

    # -- taking and giving back ----------------------------------------------------------------------------------------

    def take(self, pools: Collection[int], now: float, rest: float) -> Taken | None:
        """Any address of these pools (by index), in the order of preference; None when all are held."""
        usable = self.pools if len(pools) == len(self.pools) else [self.pools[index] for index in sorted(pools)]
        for pool in usable:
            address = pool.next_unused()
            if address is not None:
                self._busy.add(address - self.first)
                pool.held += 1
                return Taken(address, 0, None, pool)
            for found, state in pool.rested.items():
                return self._wake(pool, found, state)
            for found, state in pool.resting.items():
                if state.since + rest <= now:
                    return self._wake(pool, found, state)
                break
        oldest = [(state.since, at) for at, pool in enumerate(usable) for state in list(pool.resting.values())[:1]]
        if not oldest:
            return None
        pool = usable[min(oldest)[1]]
        found, state = next(iter(pool.resting.items()))
        return self._wake(pool, found, state)

    def take_wanted(self, address: int) -> Taken | None:
        """This address of a pool, also while it rests: who names it knows it. None when it is held."""
        pool = self.pool_of(address)
        if pool is None:
            return None
        state = pool.rested.get(address) or pool.resting.get(address)
        if state is not None:
            return self._wake(pool, address, state)
        if address - self.first in self._busy:
            return None
        self._busy.add(address - self.first)
        pool.held += 1
        return Taken(address, 0, None, pool)

    def take_exactly(self, address: int) -> Taken | None:
        """This address, also one that no pool holds: it is in use already. None when somebody else holds it."""
        if self.pool_of(address) is not None:
            return self.take_wanted(address)
        if self.is_held(address):
            return None
        mark = self._stray.get(address, 0)
        self._stray[address] = 0
        self._busy.add(address - self.first)
        return Taken(address, mark, 0.0 if mark else None, None)

    def _wake(self, pool: Pool, address: int, state: Resting) -> Taken:
        pool.rested.pop(address, None)
        pool.resting.pop(address, None)
        pool.held += 1
        return Taken(address, state.mark, state.since, pool)

    def undo(self, taken: Taken) -> None:
        """As if it had never been taken: it comes back where it was in the order."""
        pool = self.pool_of(taken.address)
        if not self.is_held(taken.address):
            return
        if pool is None:
            if taken.mark:
                self._stray[taken.address] = taken.mark
            else:
                self._stray.pop(taken.address, None)
                self._busy.discard(taken.address - self.first)
            return
        pool.held -= 1
        if taken.since is None:
            pool.open(taken.address)
            return
        pool.resting[taken.address] = Resting(taken.since, taken.mark)
        if any(state.since > taken.since for state in pool.resting.values()):
            for address, _ in sorted(pool.resting.items(), key=lambda item: item[1].since):
                pool.resting.move_to_end(address)

    # -- what the store says -------------------------------------------------------------------------------------------

    def hold(self, address: int) -> None:
        """Somebody holds it. Idempotent."""
        offset, pool = address - self.first, self.pool_of(address)
        if pool is None:
            self._stray[address] = 0
        elif offset in self._busy:
            if pool.rested.pop(address, None) or pool.resting.pop(address, None):
                pool.held += 1
            return
        else:
            pool.held += 1
        self._busy.add(offset)

    def rest(self, address: int, now: float, mark: int) -> None:
        """Nobody holds it any more; it rests from now on. `mark` is the revision of the record that says so."""
        pool = self.pool_of(address)
        if pool is None:
            self._stray[address] = mark
            self._busy.add(address - self.first)
            return
        if pool.rested.pop(address, None) is None and pool.resting.pop(address, None) is None:
            if address - self.first in self._busy:
                pool.held -= 1
            else:
                self._busy.add(address - self.first)
        pool.resting[address] = Resting(now, mark)

    def unmark(self, address: int) -> None:
        """The record of its rest is gone from the store; or, while it is held, the record of its holder."""
        pool = self.pool_of(address)
        if pool is None:
            if self._stray.pop(address, None) is not None:
                self._busy.discard(address - self.first)
            return
        state = pool.rested.get(address) or pool.resting.get(address)
        if state is not None:
            state.mark = 0
        elif address - self.first in self._busy:
            pool.held -= 1
            pool.open(address)

    def settle(self, now: float, rest: float) -> list[tuple[int, int]]:
        """(address, mark) of each whose rest is over and whose record can go."""
        over = [item for pool in self.pools for item in pool.settle(now, rest)]
        return over + [(address, mark) for address, mark in self._stray.items() if mark]

    def rest_anew(self, now: float) -> None:
        """Another writer begins: every rest whose end the store does not record begins again."""
        for pool in self.pools:
            for address in [address for address, state in pool.rested.items() if state.mark]:
                pool.resting[address] = pool.rested.pop(address)
            for state in pool.resting.values():
                state.since = now

    # -- questions -----------------------------------------------------------------------------------------------------

    def is_held(self, address: int) -> bool:
        """Whether somebody holds it."""
        if address - self.first not in self._busy or self._stray.get(address):
            return False
        pool = self.pool_of(address)
        return pool is None or (address not in pool.rested and address not in pool.resting)

    def held_in(self, low: int, high: int) -> Iterator[int]:
        """The held addresses of a range, in order."""
        low, high = max(low, self.first), min(high, self.last)
        if low <= high:
            for offset in self._busy.members(low - self.first, high - self.first):
                if self.is_held(offset + self.first):
                    yield offset + self.first

    def mark_of(self, address: int) -> int:
        """The revision of the record of its rest; 0 when it does not rest, or the record is gone."""
        pool = self.pool_of(address)
        if pool is None:
            return self._stray.get(address, 0)
        state = pool.rested.get(address) or pool.resting.get(address)
        return state.mark if state is not None else 0

    def marks(self) -> list[int]:
        """The addresses whose rest the store records."""
        states = [item for pool in self.pools for kept in (pool.rested, pool.resting) for item in kept.items()]
        return [address for address, state in states if state.mark] + [address for address, mark in self._stray.items() if mark]

    def usage(self, index: int) -> Usage:
        """Of one pool, at constant cost. Call `settle` first for an exact number of resting ones."""
        pool = self.pools[index]
        return Usage(pool.size, pool.held, len(pool.resting))

    def reshaped(self, subnet: Subnet) -> "Space":
        """The same CIDR and the same holders with other pools, exclusions or gateway."""
        new = Space(subnet)
        for address in self.held_in(self.first, self.last):
            new.hold(address)
        for pool in self.pools:
            for address, state in [*pool.rested.items(), *pool.resting.items()]:
                new.rest(address, state.since, state.mark)
        for address, mark in self._stray.items():
            if mark:
                new.rest(address, 0.0, mark)
        return new

    def lost_by(self, subnet: Subnet) -> Iterator[int]:
        """The held addresses that these pools would not hand out any more."""
        before = [part for pool in self.pools for part in pool.ranges]
        after = [part for ranges in pools_of(subnet) for part in ranges]
        for low, high in minus(before, after):
            yield from self.held_in(low, high)
