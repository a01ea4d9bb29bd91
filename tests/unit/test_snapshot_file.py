"""The snapshot file: what is written is read; whatever is done to it is noticed."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from knitter_common import snapshot
from knitter_common.errors import Invalid
from knitter_common.snapshot import Entry, Header, Reader, Trailer, Writer

HEADER = Header("a1b2", "a1b2.3", 77, 1_700_000_000_000_000_000)
ENTRIES = [(f"portset/named/t/{number:03}", b"value %d" % number) for number in range(50)]
RECORDS = st.dictionaries(st.text(min_size=1, max_size=20), st.binary(max_size=50), max_size=30)


def written(entries: list[Entry], piece: int = 7) -> bytes:
    """A whole file."""
    writer = Writer()
    parts = [writer.begin(HEADER)]
    parts += [writer.records(entries[at : at + piece]) for at in range(0, len(entries), piece)]
    return b"".join([*parts, writer.end()])


def read(data: bytes, piece: int = 1000) -> tuple[Header, Trailer, list[Entry]]:
    """All that a file holds."""
    reader, found = Reader(), []
    for at in range(0, len(data), piece):
        for entries in reader.feed(data[at : at + piece]):
            found += entries
    return *reader.end(), found


@given(RECORDS, st.integers(1, 9), st.integers(1, 400))
def test_what_is_written_is_read(records: dict[str, bytes], group: int, piece: int) -> None:
    entries = sorted(records.items())
    header, trailer, found = read(written(entries, group), piece)
    assert (header, found, trailer.records) == (HEADER, entries, len(entries))


def test_equal_states_have_equal_contents_however_they_were_cut() -> None:
    assert read(written(ENTRIES, 3))[1].content == read(written(ENTRIES, 50))[1].content
    assert read(written(ENTRIES[:-1]))[1].content != read(written(ENTRIES))[1].content


def test_a_file_cut_anywhere_is_refused() -> None:
    data = written(ENTRIES)
    for length in range(len(data)):
        with pytest.raises(Invalid) as raised:
            read(data[:length])
        assert raised.value.reason == "SNAPSHOT_INVALID"


@pytest.mark.parametrize(
    "header",
    [
        b'{"format": 1, "storeId": "a", "epoch": "a.1", "revision": 7, "time": 1e999}',
        b'{"format": 1, "storeId": "a", "epoch": "a.1", "revision": "7", "time": 1}',
        b'{"format": 1, "storeId": "a", "epoch": "a.1", "revision": true, "time": 1}',
        b'{"format": 1, "storeId": 5, "epoch": "a.1", "revision": 7, "time": 1}',
        b'{"format": 1, "storeId": "a", "revision": 7, "time": 1}',
        b'{"format": true}',
        b"[" * 100_000,
    ],
)
def test_a_header_of_other_values_is_refused(header: bytes) -> None:
    file = snapshot.MAGIC + b"H" + len(header).to_bytes(4, "little") + header
    with pytest.raises(Invalid, match="header"):
        read(file)


@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    file = bytearray(written(ENTRIES))
    at = data.draw(st.integers(0, len(file) - 1))
    file[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Invalid):
        read(bytes(file))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"#!/bin/sh\necho", "not a snapshot"),
        (written(ENTRIES) + b"more!", "follows its end"),
        (written(ENTRIES).replace(b'"format": 1', b'"format": 2'), "format 2; this release reads format 1"),
        (written([("b", b""), ("a", b"")]), "not in order"),
    ],
)
def test_the_refusal_says_why(data: bytes, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        read(data)


def test_a_bomb_is_not_unpacked() -> None:
    writer = Writer()
    bomb = writer.begin(HEADER) + writer.records([("a", bytes(snapshot._MOST + 1))])
    with pytest.raises(Invalid, match="too large"):
        read(bomb)
