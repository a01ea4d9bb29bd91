"""The snapshot file: all records of a store at one moment. Pure: bytes in, records out, and back.

    file    = magic, frame…
    frame   = kind (1 byte), length of the payload (4 bytes, little-endian), payload
    kinds   H  once, first: JSON {format, storeId, epoch, revision, time}
            R  any number: records, compressed with zlib: length of key, length of value (4 bytes each), key in UTF-8, value
            E  once, last: JSON {records, content, sha256}

`sha256` is of all bytes before the E frame; `content` of keys and values alone, so that two stores with the same state show the
same. Records are in order of their keys. A file of a newer format is refused, as is one that is cut, changed or followed by
anything.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from knitter_common.errors import Invalid

FORMAT = 1
MAGIC = b"KNITSNAP"
_FRAME = struct.Struct("<cI")
_HEADER = {"storeId": str, "epoch": str, "revision": int, "time": int}  # beside its format
_ENTRY = struct.Struct("<II")
_MOST = 64 * 1024 * 1024  # bytes of one frame, packed or unpacked

Entry = tuple[str, bytes]  # key and value


@dataclass(frozen=True, slots=True)
class Header:
    """Where and when it was taken. `time` is in nanoseconds since 1970."""

    store_id: str
    epoch: str
    revision: int
    time: int


@dataclass(frozen=True, slots=True)
class Trailer:
    """What was in it."""

    records: int
    content: str
    sha256: str


class Writer:
    """Makes the file, piece by piece: `begin`, `records` as often as there are some, `end`."""

    def __init__(self) -> None:
        self._all, self._content = hashlib.sha256(), hashlib.sha256()
        self._count = 0

    def begin(self, header: Header) -> bytes:
        """The first piece."""
        told = {"format": FORMAT, "storeId": header.store_id, "epoch": header.epoch, "revision": header.revision}
        return self._hashed(MAGIC + _frame(b"H", json.dumps({**told, "time": header.time}).encode()))

    def records(self, entries: Iterable[Entry]) -> bytes:
        """The next piece; keys in order."""
        parts: list[bytes] = []
        for key, value in entries:
            name = key.encode()
            parts += (_ENTRY.pack(len(name), len(value)), name, value)
            self._count += 1
        packed = b"".join(parts)
        self._content.update(packed)
        return self._hashed(_frame(b"R", zlib.compress(packed, 1))) if packed else b""

    def end(self) -> bytes:
        """The last piece."""
        trailer = Trailer(self._count, self._content.hexdigest(), self._all.hexdigest())
        return _frame(b"E", json.dumps(asdict(trailer)).encode())

    def _hashed(self, piece: bytes) -> bytes:
        self._all.update(piece)
        return piece


class Reader:
    """Reads the file, piece by piece: `feed` each, then `end`. `header` and `trailer` are there as soon as they were read.

    Everything raises Invalid(SNAPSHOT_INVALID) with what is wrong; only after `end` it is sure that the file is whole.
    """

    def __init__(self) -> None:
        self.header: Header | None = None
        self.trailer: Trailer | None = None
        self._buffer = bytearray()
        self._begun = False
        self._all, self._content = hashlib.sha256(), hashlib.sha256()
        self._count = 0
        self._last = ""

    def feed(self, data: bytes) -> Iterator[list[Entry]]:
        """The records that these bytes complete. Consume it before the next call."""
        self._buffer += data
        if not self._begun:
            if len(self._buffer) < len(MAGIC) and MAGIC.startswith(bytes(self._buffer)):
                return
            if not self._buffer.startswith(MAGIC):
                raise invalid("it is not a snapshot file")
            self._all.update(MAGIC)
            del self._buffer[: len(MAGIC)]
            self._begun = True
        while len(self._buffer) >= _FRAME.size:
            kind, length = _FRAME.unpack_from(self._buffer)
            if self.trailer is not None:
                raise invalid("something follows its end")
            if length > _MOST:
                raise invalid(f"a piece of {length} bytes is longer than any that is written")
            if len(self._buffer) < _FRAME.size + length:
                return
            frame = bytes(self._buffer[: _FRAME.size + length])
            del self._buffer[: _FRAME.size + length]
            entries = self._frame(kind, frame)
            if entries:
                yield entries

    def end(self) -> tuple[Header, Trailer]:
        """The file has no more bytes."""
        if self.header is None or self.trailer is None or self._buffer:
            raise invalid("it is cut off" if self.trailer is None else "something follows its end")
        return self.header, self.trailer

    def _frame(self, kind: bytes, frame: bytes) -> list[Entry]:
        payload = frame[_FRAME.size :]
        if (kind == b"H") is not (self.header is None):
            raise invalid("its header is missing or repeated")
        if kind == b"E":
            self._end(payload)
            return []
        self._all.update(frame)
        if kind == b"H":
            self._header(payload)
            return []
        if kind != b"R":
            raise invalid(f"it has a piece of the unknown kind {kind!r}")
        return self._records(payload)

    def _header(self, payload: bytes) -> None:
        told = _json(payload)
        if type(told.get("format")) is not int:
            raise invalid("its header names no format")
        if told["format"] != FORMAT:
            raise invalid(f"it has format {told['format']}; this release reads format {FORMAT}")
        for key, kind in _HEADER.items():
            if type(told.get(key)) is not kind:
                raise invalid(f"its header has no {key}, or one that is no {'number' if kind is int else 'text'}")
        self.header = Header(told["storeId"], told["epoch"], told["revision"], told["time"])

    def _records(self, payload: bytes) -> list[Entry]:
        inflate = zlib.decompressobj()
        try:
            packed = inflate.decompress(payload, _MOST)
        except zlib.error as error:
            raise invalid(f"a piece cannot be unpacked: {error}") from error
        if inflate.unconsumed_tail or not inflate.eof:
            raise invalid("a piece is too large or cut off")
        self._content.update(packed)
        entries = list(self._entries(packed))
        self._count += len(entries)
        return entries

    def _entries(self, packed: bytes) -> Iterator[Entry]:
        offset = 0
        while offset < len(packed):
            if offset + _ENTRY.size > len(packed):
                raise invalid("a record is cut off")
            key_length, value_length = _ENTRY.unpack_from(packed, offset)
            middle = offset + _ENTRY.size + key_length
            if middle + value_length > len(packed):
                raise invalid("a record is cut off")
            try:
                key = packed[offset + _ENTRY.size : middle].decode()
            except UnicodeDecodeError as error:
                raise invalid("a key is no text") from error
            if key <= self._last:
                raise invalid(f"its records are not in order at {key!r}")
            self._last = key
            offset = middle + value_length
            yield key, packed[middle:offset]

    def _end(self, payload: bytes) -> None:
        told = _json(payload)
        made = Trailer(self._count, self._content.hexdigest(), self._all.hexdigest())
        if told != asdict(made):
            raise invalid("its checksum does not fit: it was changed, or broken on its way")
        self.trailer = made


def invalid(why: str) -> Invalid:
    """The snapshot file cannot be used."""
    return Invalid("SNAPSHOT_INVALID", f"snapshot file: {why}")


def _frame(kind: bytes, payload: bytes) -> bytes:
    return _FRAME.pack(kind, len(payload)) + payload


def _json(payload: bytes) -> dict[str, Any]:
    try:
        told = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise invalid(f"its header or end is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise invalid("its header or end is no JSON object")
    return told
