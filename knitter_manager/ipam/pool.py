"""One pool: who of its addresses is held, which ones rest, and in which order they go out.

    never used, lowest first  →  rested, longest first  →  resting, longest first

An address that was never used since this writer began has rested longest of all. One that rests goes out only when the pools that
the caller may use have nothing else (design.md, invariant 3), or when it is asked for by name.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from knitter_manager.ipam.bitmap import Bitmap
from knitter_manager.ipam.ranges import Range

# Rested addresses whose order is kept. Older ones count as never used again: they have rested longer than all that are kept.
KEPT_RESTED = 65_536


class Resting:
    """Since when an address rests, on the writer's monotonic clock in seconds, and the revision of its record in the store."""

    __slots__ = ("mark", "since")

    def __init__(self, since: float, mark: int) -> None:
        self.since, self.mark = since, mark


class Taken(NamedTuple):
    """An address that was just taken. `mark` is the revision of the record that its rest left in the store, 0 for none; `since` is
    when that rest began, None when it was never used."""

    address: int
    mark: int
    since: float | None


class Pool:
    """Addresses that are `busy` and neither resting nor rested are held. `base` is the subnet's first address; several pools of a
    subnet share one bitmap. A pool without ranges hands nothing out, but keeps track of what was taken some other way."""

    __slots__ = ("_base", "_busy", "_ends", "_open", "_unswept", "held", "ranges", "reserved", "rested", "resting", "size")

    def __init__(self, base: int, busy: Bitmap, ranges: Iterable[Range]) -> None:
        self._base, self._busy = base, busy
        self.ranges: tuple[Range, ...] = tuple(ranges)
        self._ends = sorted(self.ranges)
        self._open = (1 << len(self.ranges)) - 1  # ranges that may have one that was never used
        self.size = sum(high - low + 1 for low, high in self.ranges)
        self.held = 0
        self.reserved = 0  # set aside for IP groups
        self.resting: OrderedDict[int, Resting] = OrderedDict()
        self.rested: OrderedDict[int, Resting] = OrderedDict()
        self._unswept: list[int] = []  # rested ones that had a record when somebody last looked

    def __contains__(self, address: int) -> bool:
        at = bisect_right(self._ends, (address, 1 << 128)) - 1
        return at >= 0 and address <= self._ends[at][1]

    # -- taking and giving back ------------------------------------------------------------------------------------------

    def take(self, now: float, rest: float) -> Taken | None:
        """The next one that was never used, or has rested."""
        address = self._next_unused()
        if address is not None:
            self._busy.add(address - self._base)
            self.held += 1
            return Taken(address, 0, None)
        for address in self.rested:
            return self.take_this(address)
        for address, state in self.resting.items():
            return self.take_this(address) if state.since + rest <= now else None
        return None

    def oldest(self) -> tuple[float, int] | None:
        """(since when, address) of the one that rests longest."""
        for address, state in self.resting.items():
            return state.since, address
        return None

    def take_this(self, address: int) -> Taken | None:
        """This address, also while it rests. None when it is held."""
        state = self.rested.pop(address, None) or self.resting.pop(address, None)
        if state is None and address - self._base in self._busy:
            return None
        self._busy.add(address - self._base)
        self.held += 1
        return Taken(address, 0, None) if state is None else Taken(address, state.mark, state.since)

    def undo(self, taken: Taken) -> None:
        """As if it had never been taken: it comes back where it was in the order."""
        if not self.is_held(taken.address):
            return
        self.held -= 1
        if taken.since is None:
            self._open_again(taken.address)
            return
        self.resting[taken.address] = Resting(taken.since, taken.mark)
        self.sort()

    def sort(self) -> None:
        """Brings those that rest into the order of their rests."""
        since = [state.since for state in self.resting.values()]
        if since != sorted(since):
            for address, _ in sorted(self.resting.items(), key=lambda item: item[1].since):
                self.resting.move_to_end(address)

    def _next_unused(self) -> int | None:
        while self._open:
            at = (self._open & -self._open).bit_length() - 1
            low, high = self.ranges[at]
            found = self._busy.first_absent(low - self._base, high - self._base)
            if found is not None:
                return found + self._base
            self._open &= ~(1 << at)
        return None

    def _open_again(self, address: int) -> None:
        self._busy.discard(address - self._base)
        for at, (low, high) in enumerate(self.ranges):
            if low <= address <= high:
                self._open |= 1 << at
                return

    # -- what the store says ---------------------------------------------------------------------------------------------

    def hold(self, address: int) -> None:
        """Somebody holds it. Idempotent."""
        self.take_this(address)

    def rest(self, address: int, now: float, mark: int) -> None:
        """Nobody holds it any more; it rests from now on. `mark` is the revision of the record that says so."""
        if self.rested.pop(address, None) is None and self.resting.pop(address, None) is None:
            if address - self._base in self._busy:
                self.held -= 1
            else:
                self._busy.add(address - self._base)
        self.resting[address] = Resting(now, mark)

    def unmark(self, address: int) -> None:
        """The record of its rest is gone from the store; or, while it is held, the record of its holder."""
        state = self.state_of(address)
        if state is not None:
            state.mark = 0
        elif address - self._base in self._busy:
            self.held -= 1
            self._open_again(address)

    def settle(self, now: float, rest: float) -> list[tuple[int, int]]:
        """Moves those that have rested long enough; returns (address, mark) of each rested one whose record can go."""
        while self.resting:
            address, state = next(iter(self.resting.items()))
            if state.since + rest > now:
                break
            self.resting.popitem(last=False)
            self.rested[address] = state
            self._unswept.append(address)
        over = [(address, kept.mark) for address in self._unswept if (kept := self.rested.get(address)) and kept.mark]
        self._unswept = [address for address, _ in over]
        while len(self.rested) > KEPT_RESTED:
            address, state = next(iter(self.rested.items()))
            if state.mark:
                break
            self.rested.popitem(last=False)
            self._open_again(address)
        return over

    def rest_anew(self, now: float) -> None:
        """Another writer begins: every rest whose end the store does not record begins again."""
        for address in [address for address, state in self.rested.items() if state.mark]:
            self.resting[address] = self.rested.pop(address)
        for state in self.resting.values():
            state.since = now

    # -- moving between pools --------------------------------------------------------------------------------------------

    def give(self, address: int) -> Resting | None:
        """Leaves this pool, whose busy bit stays; returns the state of its rest. The address must not be held."""
        return self.rested.pop(address, None) or self.resting.pop(address, None)

    def receive(self, address: int, state: Resting | None) -> None:
        """Comes from another pool, with the state of its rest or never used."""
        if state is None:
            self._open_again(address)
            return
        self._busy.add(address - self._base)
        self.resting[address] = state
        self.sort()

    # -- questions -------------------------------------------------------------------------------------------------------

    def is_held(self, address: int) -> bool:
        """Whether somebody holds it."""
        return address - self._base in self._busy and address not in self.rested and address not in self.resting

    def state_of(self, address: int) -> Resting | None:
        """Its rest, also when that is over; None when it is held or was never used."""
        return self.rested.get(address) or self.resting.get(address)

    def states(self) -> Iterator[tuple[int, Resting]]:
        """All that rest or have rested, the longest first."""
        yield from self.rested.items()
        yield from self.resting.items()
