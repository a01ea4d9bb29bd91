"""Keys in order, for pages: sorted when somebody lists, not when somebody allocates."""

from bisect import bisect_right, insort
from collections.abc import Container, Iterator, Sequence

_FEW = 64  # keys that are sorted in one by one


class Order:
    """The keys of a dict in order. Removed keys stay until the next sorting; whoever walks skips them."""

    def __init__(self, held: dict[str, bytes]) -> None:
        self._held = held
        self._sorted: list[str] = []
        self._added: list[str] | None = []  # None: all is to be sorted anew

    def added(self, key: str) -> None:
        """A key that was not there before."""
        if self._added is not None:
            self._added.append(key)
            if len(self._added) > len(self._held) + 1000:
                self._added = None

    def follow(self, keys: Sequence[str]) -> None:
        """Keys that were not there before, in order, all greater than every one that was told until now."""
        self._settle()
        self._sorted += keys

    def after(self, token: str, among: Container[str] | None = None) -> Iterator[str]:
        """The keys greater than `token`, in order; with `among` only those. Walk it without a pause."""
        self._settle()
        ordered, held = self._sorted, self._held
        last = ""
        for index in range(bisect_right(ordered, token), len(ordered)):
            key = ordered[index]
            if key in held and key != last and (among is None or key in among):
                last = key
                yield key

    def _settle(self) -> None:
        added, self._added = self._added, []
        if added is None or len(self._sorted) + len(added) > 2 * len(self._held) + _FEW:
            self._sorted = sorted(self._held)
        elif len(added) <= _FEW:
            for key in added:
                insort(self._sorted, key)
        else:
            self._sorted += added
            self._sorted.sort()
