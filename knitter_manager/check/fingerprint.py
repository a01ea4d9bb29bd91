"""Whether two very large sets of (key, owner) are the same, in constant memory: sums of hashes, by bucket of the key.

What is added on one side and taken off on the other leaves nothing. Where something is left, only the keys of that bucket need to
be looked at one by one.
"""

BUCKETS = 1 << 16
_MASK = (1 << 64) - 1


def bucket_of(key: str) -> int:
    """Where a key belongs. Differs from one process to the next."""
    return hash(key) & (BUCKETS - 1)


class Fingerprint:
    """Of one comparison."""

    def __init__(self) -> None:
        self._left = [0] * BUCKETS

    def add(self, key: str, owner: str) -> None:
        """On one side."""
        self._left[hash(key) & (BUCKETS - 1)] += hash((key, owner)) & _MASK

    def take(self, key: str, owner: str) -> None:
        """On the other side."""
        self._left[hash(key) & (BUCKETS - 1)] -= hash((key, owner)) & _MASK

    def differing(self) -> list[int]:
        """The buckets in which the sides differ."""
        return [bucket for bucket, left in enumerate(self._left) if left]
