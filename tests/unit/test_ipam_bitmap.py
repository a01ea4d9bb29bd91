"""The bitmap in levels, against a plain set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knitter_manager.ipam.bitmap import Bitmap


@given(st.integers(1, 5000), st.data())
def test_it_is_a_set_that_knows_what_it_lacks(bound: int, data: st.DataObject) -> None:
    numbers = st.integers(0, bound - 1)
    bitmap, model = Bitmap(bound), set[int]()
    for number, present in data.draw(st.lists(st.tuples(numbers, st.booleans()), max_size=60)):
        (bitmap.add if present else bitmap.discard)(number)
        (model.add if present else model.discard)(number)
    for begin, end in data.draw(st.lists(st.tuples(numbers, numbers), max_size=3)):
        for number in range(begin, end + 1):
            bitmap.add(number)
            model.add(number)
    low, high = sorted(data.draw(st.tuples(numbers, numbers)))
    absent = next((number for number in range(low, high + 1) if number not in model), None)
    assert bitmap.first_absent(low, high) == absent
    assert list(bitmap.members(low, high)) == sorted(number for number in model if low <= number <= high)
    assert bitmap.count(low, high) == len([number for number in model if low <= number <= high])
    assert (low in bitmap) == (low in model)


@pytest.mark.parametrize("bits", [24, 64, 112])
def test_large_ones_cost_what_is_in_them(bits: int) -> None:
    bitmap = Bitmap(1 << bits)
    last = (1 << bits) - 1
    bitmap.add(last)
    bitmap.add(0)
    assert bitmap.first_absent(0, last) == 1
    assert bitmap.first_absent(last, last) is None
    assert list(bitmap.members(0, last)) == [0, last]


def test_full_words_are_stepped_over_at_every_level() -> None:
    bitmap = Bitmap(1 << 24)
    for number in range(1024 * 1024):
        bitmap.add(number)
    assert bitmap.first_absent(0, (1 << 24) - 1) == 1024 * 1024
    bitmap.discard(1023)
    assert bitmap.first_absent(0, (1 << 24) - 1) == 1023
    assert bitmap.first_absent(1024, 1024 * 1024 - 1) is None
