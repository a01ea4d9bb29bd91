"""Pages of a listing: ordered by key, the token is the last key of the page before, so that they stay in order while things
change."""

from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

DEFAULT, MOST = 500, 1000


def page(items: Iterator[tuple[str, T]], size: int) -> tuple[list[T], str]:
    """The next `size` items (0 means the default) of (key, item) in order, and the token for what follows, "" for nothing."""
    limit = min(size or DEFAULT, MOST)
    found = list(islice(items, limit + 1))
    token = found[limit - 1][0] if len(found) > limit else ""
    return [item for _, item in found[:limit]], token
