"""Pages of a listing: ordered by key, the token is the last key of the page before, so that they stay in order while things
change."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from google.protobuf.message import Message

from knitter_common.errors import Invalid
from knitter_common.names import shown

T = TypeVar("T")
M = TypeVar("M", bound=Message)

DEFAULT, MOST = 500, 1000
MOST_BYTES = 2 * 1024 * 1024  # half of what a message may have


def page(items: Iterator[tuple[str, T]], size: int, weigh: Callable[[T], int] | None = None) -> tuple[list[T], str]:
    """The next `size` items (0 means the default) of (key, item) in order, and the token for what follows, "" for nothing.

    `weigh` gives an item's bytes where it may have many: a page that would not fit a message ends before.
    """
    limit = min(size or DEFAULT, MOST)
    found = list(islice(items, limit + 1))
    if weigh is not None:
        limit = _that_fit([weigh(item) for _, item in found[:limit]])
    token = found[limit - 1][0] if len(found) > limit else ""
    return [item for _, item in found[:limit]], token


def after_token(text: str, ours: bool) -> str:
    """A page_token of a request, after which the page begins. Raises Invalid(FIELD_INVALID) for what is none of `ours`."""
    if text and not ours:
        said = f"page_token: {shown(text)} is none of ours; send the next_page_token of the page before, or nothing"
        raise Invalid("FIELD_INVALID", said, field="page_token", value=shown(text, 200))
    return text


def page_of(items: Iterator[tuple[str, T]], size: int, convert: Callable[[T], M]) -> tuple[list[M], str]:
    """As `page`, as messages."""
    return page(((key, convert(item)) for key, item in items), size, lambda message: message.ByteSize())


def _that_fit(weights: Sequence[int]) -> int:
    """How many of them, at least one."""
    total = 0
    for at, weight in enumerate(weights):
        total += weight
        if total > MOST_BYTES:
            return max(at, 1)
    return len(weights)
