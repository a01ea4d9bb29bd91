"""One pool: the order in which its addresses go out.

    never used, lowest first  →  rested, longest first  →  resting, longest first

An address that was never used since this writer began has rested longest of all. One that rests goes out only when the pools that
the caller may use have nothing else (design.md, invariant 3).
"""

from collections import OrderedDict
from collections.abc import Iterable

from knitter_manager.ipam.bitmap import Bitmap
from knitter_manager.ipam.ranges import Range

# Rested addresses whose order is kept. Older ones count as never used again: they have rested longer than all that are kept.
KEPT_RESTED = 65_536


class Resting:
    """Since when an address rests, on the writer's monotonic clock in seconds, and the revision of its record in the store."""

    __slots__ = ("mark", "since")

    def __init__(self, since: float, mark: int) -> None:
        self.since, self.mark = since, mark


class Pool:
    """Addresses that are `busy` in the subnet's bitmap and neither resting nor rested are held. `base` is the subnet's first
    address."""

    __slots__ = ("_base", "_busy", "_open", "held", "ranges", "rested", "resting", "size")

    def __init__(self, base: int, busy: Bitmap, ranges: Iterable[Range]) -> None:
        self._base, self._busy = base, busy
        self.ranges: tuple[Range, ...] = tuple(ranges)
        self._open = (1 << len(self.ranges)) - 1  # ranges that may have one that was never used
        self.size = sum(high - low + 1 for low, high in self.ranges)
        self.held = 0
        self.resting: OrderedDict[int, Resting] = OrderedDict()
        self.rested: OrderedDict[int, Resting] = OrderedDict()

    def next_unused(self) -> int | None:
        """The lowest address that was never used."""
        while self._open:
            at = (self._open & -self._open).bit_length() - 1
            low, high = self.ranges[at]
            found = self._busy.first_absent(low - self._base, high - self._base)
            if found is not None:
                return found + self._base
            self._open &= ~(1 << at)
        return None

    def settle(self, now: float, rest: float) -> list[tuple[int, int]]:
        """Moves those that have rested long enough; returns (address, mark) of each whose record can go."""
        over: list[tuple[int, int]] = []
        while self.resting:
            address, state = next(iter(self.resting.items()))
            if state.since + rest > now:
                break
            self.resting.popitem(last=False)
            self.rested[address] = state
            if state.mark:
                over.append((address, state.mark))
        while len(self.rested) > KEPT_RESTED:
            address, state = next(iter(self.rested.items()))
            if state.mark:
                break
            self.rested.popitem(last=False)
            self.open(address)
        return over

    def open(self, address: int) -> None:
        """The address counts as never used."""
        self._busy.discard(address - self._base)
        for at, (low, high) in enumerate(self.ranges):
            if low <= address <= high:
                self._open |= 1 << at
                return

    def holds(self, address: int) -> bool:
        """Whether it is one of this pool's."""
        return any(low <= address <= high for low, high in self.ranges)
