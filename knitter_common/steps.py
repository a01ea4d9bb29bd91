"""Futures of what a thread does for the event loop, which nobody can call off once it was handed over."""

import asyncio
from typing import TypeVar

T = TypeVar("T")


class Step(asyncio.Future[T]):
    """Belongs to the running event loop. Its cancellation never stops the work; once it is held, it has no effect at all: whoever
    awaits it and is cancelled hears of that when the work has ended."""

    _held = False

    def hold(self) -> "Step[T]":
        """Itself, held from now on."""
        self._held = True
        return self

    def cancel(self, msg: object = None) -> bool:
        """As of any future, unless it is held."""
        return not self._held and super().cancel(msg)
