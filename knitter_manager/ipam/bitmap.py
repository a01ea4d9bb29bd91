"""A set of whole numbers below a bound, of which "the first that is not in it" is found at a cost that grows with neither
bound nor fill.

Words of 1024 bits in levels: a bit of level 0 is a number, a bit of level n+1 says that a whole word of level n is full. Words
that are empty are not kept, so a /8 or a /64 costs what is in it. (Python's integers do a word's operations in some 50 ns.)
"""

from collections.abc import Iterable, Iterator

_BITS = 10
_WORD = 1 << _BITS
_MASK = _WORD - 1
_FULL = (1 << _WORD) - 1
_ONE = tuple(1 << bit for bit in range(_WORD))


class Bitmap:
    """Numbers from 0 to `bound` - 1."""

    __slots__ = ("_levels", "bound")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        depth = max(1, -(-(bound - 1).bit_length() // _BITS))
        self._levels: list[dict[int, int]] = [{} for _ in range(depth)]

    def add(self, number: int) -> None:
        """Idempotent."""
        self._fill(0, number)

    def add_all(self, numbers: Iterable[int]) -> None:
        """As `add` for each; quick when they are sorted."""
        leaves = self._levels[0]
        current, word = -1, 0
        for number in numbers:
            if number >> _BITS != current:
                self._write(current, word)
                current = number >> _BITS
                word = leaves.get(current, 0)
            word |= _ONE[number & _MASK]
        self._write(current, word)

    def _write(self, index: int, word: int) -> None:
        if word:
            self._levels[0][index] = word
            if word == _FULL:
                self._fill(1, index)

    def _fill(self, height: int, number: int) -> None:
        for level in self._levels[height:]:
            index = number >> _BITS
            word = level.get(index, 0) | _ONE[number & _MASK]
            level[index] = word
            if word != _FULL:
                return
            number = index

    def discard(self, number: int) -> None:
        """Idempotent."""
        for level in self._levels:
            index = number >> _BITS
            word = level.get(index, 0)
            if not word & _ONE[number & _MASK]:
                return
            left = word ^ _ONE[number & _MASK]
            if left:
                level[index] = left
            else:
                del level[index]
            if word != _FULL:
                return
            number = index

    def __contains__(self, number: int) -> bool:
        return bool(self._levels[0].get(number >> _BITS, 0) & _ONE[number & _MASK])

    def first_absent(self, low: int, high: int) -> int | None:
        """The least number from `low` to `high`, both included, that is not in the set."""
        levels = self._levels
        number, height = low, 0
        while height < len(levels):
            index = number >> _BITS
            absent = ~levels[height].get(index, 0) & (_FULL ^ (_ONE[number & _MASK] - 1))
            if absent:
                found = index << _BITS | (absent & -absent).bit_length() - 1
                for level in reversed(levels[:height]):
                    absent = ~level.get(found, 0) & _FULL
                    found = found << _BITS | (absent & -absent).bit_length() - 1
                return found if found <= high else None
            number = index + 1
            height += 1
        return None

    def count(self, low: int, high: int) -> int:
        """How many numbers from `low` to `high` are in the set; costs a step per word that is not empty."""
        return sum(word.bit_count() for _, word in self._words(low, high))

    def members(self, low: int, high: int) -> Iterator[int]:
        """The numbers from `low` to `high` that are in the set, in order."""
        for index, word in self._words(low, high):
            while word:
                bit = word & -word
                yield index << _BITS | bit.bit_length() - 1
                word ^= bit

    def _words(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        first, last = low >> _BITS, high >> _BITS
        leaves = self._levels[0]
        if last - first < len(leaves):
            indices: Iterator[int] = (index for index in range(first, last + 1) if index in leaves)
        else:
            indices = iter(sorted(index for index in leaves if first <= index <= last))
        for index in indices:
            word = leaves[index]
            if index == first:
                word &= _FULL ^ (_ONE[low & _MASK] - 1)
            if index == last:
                word &= (_ONE[high & _MASK] << 1) - 1
            if word:
                yield index, word
