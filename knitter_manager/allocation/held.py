"""What a plan says when somebody else holds what it needs, and only the store knows who."""

from collections.abc import Callable

from knitter_common.errors import KnitterError


class HeldBy(Exception):
    """A step fails because somebody else holds the key; `error` makes the error once the store has told who (an owner for
    people)."""

    def __init__(self, key: str, error: Callable[[str], KnitterError]) -> None:
        super().__init__(key)
        self.key, self.error = key, error
