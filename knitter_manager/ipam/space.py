"""The addresses of one subnet: who holds how many, which one goes out next, which ones rest, which ones are set aside for
groups."""

import ipaddress
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from knitter_common.model import Subnet
from knitter_manager.ipam.bitmap import Bitmap
from knitter_manager.ipam.pool import Pool, Taken
from knitter_manager.ipam.ranges import Range, handed_out, minus, pools_of

__all__ = ["Space", "Taken", "Usage", "take_any"]


class Usage(NamedTuple):
    """How many addresses of a pool; a /64's numbers are exact too."""

    size: int
    held: int
    reserved: int
    resting: int

    @property
    def free(self) -> int:
        """Those that can go out to anybody now."""
        return self.size - self.held - self.reserved - self.resting


def take_any(choices: "Sequence[tuple[Space, Collection[int]]]", now: float, rest: float) -> "tuple[Space, Taken] | None":
    """Any address of these subnets' pools (by index), in the order of preference: one that rests only when none of them has
    another. None when all are held or set aside."""
    for space, pools in choices:
        taken = space.take_ready(pools, now, rest)
        if taken is not None:
            return space, taken
    resting = [
        (*oldest, at, index)
        for at, (space, pools) in enumerate(choices)
        for index in pools
        if (oldest := space.pools[index].oldest()) is not None
    ]
    if not resting:
        return None
    _, address, at, index = min(resting)
    space = choices[at][0]
    taken = space._take_this(space.pools[index], address)
    return (space, taken) if taken is not None else None


class Space:
    """One subnet. An address is free, held, or resting after it was held. Each belongs to one pool: that of the group it is
    set aside for, the one whose range it is in, or `outside`, which hands nothing out."""

    def __init__(self, subnet: Subnet) -> None:
        network = ipaddress.ip_network(subnet.cidr)
        self.version, self.prefix_length = network.version, network.prefixlen
        self.first, self.last = int(network[0]), int(network[-1])
        self.subnet = subnet
        self._busy = Bitmap(self.last - self.first + 1)
        self.pools = tuple(Pool(self.first, self._busy, ranges) for ranges in pools_of(subnet))
        self.all_pools = tuple(range(len(self.pools)))
        self.selective = any(pool.usable_by is not None for pool in subnet.pools)  # not every pool is for everybody
        self._outside = Pool(self.first, self._busy, ())
        self._planned: set[int] = set()  # taken by plans, and not told by the store to be held
        self._became: Space | None = None
        self._aside: dict[int, Pool] = {}
        self._groups: dict[Pool, None] = {}  # those that have some, in the order of their making

    def __contains__(self, address: int) -> bool:
        return self.first <= address <= self.last

    def pool_of(self, address: int) -> Pool:
        """The pool that the address belongs to."""
        if self._aside:
            aside = self._aside.get(address)
            if aside is not None:
                return aside
        for pool in self.pools:
            if address in pool:
                return pool
        return self._outside

    # -- taking and giving back ------------------------------------------------------------------------------------------

    def take(self, pools: Collection[int], now: float, rest: float) -> Taken | None:
        """Any address of these pools (by index), in the order of preference; None when all are held or set aside."""
        found = take_any(((self, pools),), now, rest)
        return found[1] if found is not None else None

    def take_ready(self, pools: Collection[int], now: float, rest: float) -> Taken | None:
        """One that does not rest."""
        for pool in self.pools if len(pools) == len(self.pools) else [self.pools[index] for index in sorted(pools)]:
            taken = pool.take(now, rest)
            if taken is not None:
                self._planned.add(taken.address)
                return taken
        return None

    def _take_this(self, pool: Pool, address: int) -> Taken | None:
        taken = pool.take_this(address)
        if taken is not None:
            self._planned.add(address)
        return taken

    def take_wanted(self, address: int) -> Taken | None:
        """This address of a pool, also while it rests: who names it knows it. None when it is held, or not to be handed out."""
        if address in self._aside:
            return None
        pool = self.pool_of(address)
        return None if pool is self._outside else self._take_this(pool, address)

    def take_exactly(self, address: int) -> Taken | None:
        """This address, whatever pool it belongs to: it is in use already. None when somebody else holds it."""
        return self._take_this(self.pool_of(address), address)

    def undo(self, taken: Taken) -> None:
        """As if it had never been taken: it comes back where it was in the order. What the store has told to be held meanwhile, for
        this owner or another one, stays held. After `reshaped` it is undone in the new shape."""
        if self._became is not None:
            self._became.undo(taken)
        elif taken.address in self._planned:
            self._planned.discard(taken.address)
            self.pool_of(taken.address).undo(taken)

    # -- what the store says ---------------------------------------------------------------------------------------------

    def hold(self, address: int) -> None:
        """Somebody holds it. Idempotent."""
        self._planned.discard(address)
        self.pool_of(address).hold(address)

    def hold_all(self, addresses: Sequence[int]) -> None:
        """As `hold` for each. They are sorted, and none of them was used, held or set aside before."""
        self._busy.add_all([address - self.first for address in addresses])
        inside = 0
        for pool in self.pools:
            for low, high in pool.ranges:
                count = bisect_right(addresses, high) - bisect_left(addresses, low)
                pool.held += count
                inside += count
        self._outside.held += len(addresses) - inside

    def rest(self, address: int, now: float, mark: int) -> None:
        """Nobody holds it any more; it rests from now on. `mark` is the revision of the record that says so."""
        self.pool_of(address).rest(address, now, mark)

    def unmark(self, address: int) -> None:
        """The record of its rest is gone from the store; or, while it is held, the record of its holder."""
        self.pool_of(address).unmark(address)

    def settle(self, now: float, rest: float) -> list[tuple[int, int]]:
        """(address, mark) of each whose rest is over and whose record can go."""
        return [item for pool in self._all() for item in pool.settle(now, rest)]

    def rest_anew(self, now: float) -> None:
        """Another writer begins: every rest whose end the store does not record begins again."""
        for pool in self._all():
            pool.rest_anew(now)

    def _all(self) -> Iterable[Pool]:
        return (*self.pools, self._outside, *self._groups)

    # -- groups ----------------------------------------------------------------------------------------------------------

    def group(self, addresses: Iterable[int]) -> Pool:
        """Sets these addresses aside: a pool of their own, in this order. None of them may be in another group.

        One that is held stays with its holder, as one of the group's.
        """
        numbers = tuple(addresses)
        group = Pool(self.first, Bitmap(self.last - self.first + 1), [(number, number) for number in numbers])
        self._groups[group] = None
        for number in numbers:
            owner = self.pool_of(number)
            held, state = owner.is_held(number), owner.give(number)
            self._busy.add(number - self.first)
            owner.held -= held
            owner.reserved += 1
            self._aside[number] = group
            if held:
                group.hold(number)
            elif state is not None:
                group.receive(number, state)
        return group

    def ungroup(self, group: Pool) -> None:
        """The group's addresses go back to the pools they came from, resting ones and held ones as they are."""
        self._groups.pop(group, None)
        for number in [number for number, pool in self._aside.items() if pool is group]:
            held, state = group.is_held(number), group.give(number)
            del self._aside[number]
            owner = self.pool_of(number)
            owner.reserved -= 1
            if held:
                owner.held += 1
            else:
                owner.receive(number, state)

    def group_of(self, address: int) -> Pool | None:
        """The group's pool that an address is set aside for."""
        return self._aside.get(address)

    # -- questions -------------------------------------------------------------------------------------------------------

    def is_held(self, address: int) -> bool:
        """Whether somebody holds it."""
        return self.pool_of(address).is_held(address)

    def held_in(self, low: int, high: int) -> Iterator[int]:
        """The held addresses of a range, in order."""
        low, high = max(low, self.first), min(high, self.last)
        if low <= high:
            for offset in self._busy.members(low - self.first, high - self.first):
                if self.is_held(offset + self.first):
                    yield offset + self.first

    def mark_of(self, address: int) -> int:
        """The revision of the record of its rest; 0 when it does not rest, or the record is gone."""
        state = self.pool_of(address).state_of(address)
        return state.mark if state is not None else 0

    def marks(self) -> list[int]:
        """The addresses whose rest the store records."""
        return [address for pool in self._all() for address, state in pool.states() if state.mark]

    def usage(self, index: int) -> Usage:
        """Of one pool, at constant cost. Those whose rest is over count as resting until the next `settle`."""
        pool = self.pools[index]
        return Usage(pool.size, pool.held, pool.reserved, len(pool.resting))

    @property
    def planned(self) -> bool:
        """Something of it is taken by plans of which nobody knows yet how they end."""
        return bool(self._planned)

    @property
    def held_outside(self) -> int:
        """How many are held that no pool hands out any more, or ever did."""
        return self._outside.held

    def reshaped(self, subnet: Subnet) -> "Space":
        """The same CIDR and the same holders and plans with other pools, exclusions or gateway. Groups are to be made again."""
        new = self._became = Space(subnet)
        for address in self.held_in(self.first, self.last):
            new.hold(address)
        new._planned = set(self._planned)
        for pool in self._all():
            for address, state in pool.states():
                new.rest(address, state.since, state.mark)
        for pool in new._all():
            pool.sort()
        return new

    def lost_by(self, subnet: Subnet) -> Iterator[int]:
        """The held addresses that these pools would not hand out any more, though they are handed out now."""
        before = [part for pool in self.pools for part in pool.ranges]
        for low, high in minus(before, self.ranges_of(subnet)):
            yield from (address for address in self.held_in(low, high) if address not in self._aside)

    def aside(self) -> list[int]:
        """The addresses of groups."""
        return sorted(self._aside)

    def cut_by(self, subnet: Subnet) -> Iterator[int]:
        """The addresses of groups that no pod may have any more: excluded, the gateway, or reserved by the protocol."""
        allowed = handed_out(subnet)
        return (address for address in sorted(self._aside) if not any(low <= address <= high for low, high in allowed))

    @staticmethod
    def ranges_of(subnet: Subnet) -> list[Range]:
        """All that the subnet's pools hand out."""
        return [part for ranges in pools_of(subnet) for part in ranges]
