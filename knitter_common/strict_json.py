"""JSON as people write it in an annotation or a file, read strictly: no key twice, nothing that others read otherwise.

Refused, each with its place: more than 256 KiB, no JSON (line and column), a key twice in one object, NaN, Infinity and numbers
that do not fit a double, whole numbers beyond 2⁵³ (every later reader would round them), halves of surrogate pairs, nesting deeper
than 24 (what is handed on must fit protobuf's own limit of 100, three levels for each of ours).
"""

import json
from collections.abc import Sequence
from typing import Any

from knitter_common.place import Json, Place

MAX_BYTES = 256 * 1024  # the most that Kubernetes takes as annotations of one object
MAX_DEPTH = 24
_EXACT = 2**53


class _Object(dict[str, Any]):
    """An object that remembers a key written twice."""

    twice: str | None = None


class _Number:
    """A number that cannot be handed on, as it was written."""

    def __init__(self, text: str) -> None:
        self.text = text


def _object(pairs: Sequence[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        made.twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return made


def _whole(text: str) -> int | _Number:
    return int(text) if len(text) < 18 and abs(int(text)) <= _EXACT else _Number(text)


def _fraction(text: str) -> float | _Number:
    number = float(text)
    return number if number - number == 0 else _Number(text)


def read(text: str, place: Place, limit: int = MAX_BYTES) -> Json:
    """The JSON value. Raises Invalid with the place."""
    bounded(text, place, limit)
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_whole, parse_float=_fraction, parse_constant=_Number)
    except json.JSONDecodeError as error:
        sentence = f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
        raise place.error(sentence, text[error.pos : error.pos + 40]) from None
    except RecursionError:
        raise place.error(f"is nested deeper than {MAX_DEPTH} levels; make it flatter") from None
    return plain(value, place)


def plain(value: object, place: Place, depth: int = 0) -> Json:
    """A value that some JSON reader made, checked by the same rules, in new plain lists and dictionaries."""
    if isinstance(value, str):
        return _well_formed(value, place)
    if value is None or isinstance(value, bool):
        return value
    if depth >= MAX_DEPTH and isinstance(value, dict | list):
        raise place.error(f"is nested deeper than {MAX_DEPTH} levels; make it flatter")
    if isinstance(value, dict):
        return _plain_object(value, place, depth)
    if isinstance(value, list):
        return [plain(entry, place.item(index), depth + 1) for index, entry in enumerate(value)]
    if isinstance(value, int) and abs(value) > _EXACT:
        value = _Number(str(value) if abs(value) < _EXACT**4 else "a number of many digits")
    if isinstance(value, float) and value - value != 0:
        value = _Number(str(value))
    if isinstance(value, _Number):
        raise place.error(f"{value.text[:40]} fits no number of JSON readers; write it as a text", value.text[:40])
    return value


def _plain_object(value: dict[Any, Any], place: Place, depth: int) -> dict[str, Json]:
    if isinstance(value, _Object) and value.twice is not None:
        raise place.at(_well_formed(value.twice, place)).error("is written twice in one object; remove one of them", value.twice)
    made: dict[str, Json] = {}
    for key, entry in value.items():
        if not isinstance(key, str):
            raise place.error(f"the key {key!r} must be a text; write it with quotes", key)
        _well_formed(key, place)
        made[key] = plain(entry, place.at(key), depth + 1)
    return made


def _well_formed(text: str, place: Place) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise place.error(f"holds {half}, half of a pair of surrogates; write the whole character") from None
    return text


def bounded(text: str, place: Place, limit: int = MAX_BYTES) -> None:
    """Refuses a text that is longer than `limit` bytes."""
    if len(text) > limit or len(text.encode(errors="replace")) > limit:
        raise place.error(f"is longer than {limit} bytes; make it shorter", len(text))
