"""A history of ADD and DEL calls, and what must be true of it whatever was killed on the way.

A sandbox surely holds its addresses from the answer of its ADD to the call of its DEL. Two sandboxes that surely hold one address
at one moment are a violation, and so is a set that was acknowledged and is gone.
"""

import itertools
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Holding:
    """One acknowledged attachment. Times on the monotonic clock; `until` is None while it was not deleted."""

    container: str
    addresses: tuple[str, ...]
    since: float
    until: float | None = None


@dataclass
class History:
    """What happened, from several threads."""

    holdings: list[Holding] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def added(self, container: str, addresses: tuple[str, ...]) -> Holding:
        """An ADD was answered with these addresses."""
        holding = Holding(container, addresses, time.monotonic())
        with self._lock:
            self.holdings.append(holding)
        return holding

    def failed(self, what: str) -> None:
        """A call failed; allowed while something is killed, but told."""
        with self._lock:
            self.failures.append(what)

    def violations(self) -> list[str]:
        """Addresses that two sandboxes held at one moment."""
        found = []
        by_address: dict[str, list[Holding]] = {}
        for holding in self.holdings:
            for address in holding.addresses:
                by_address.setdefault(address, []).append(holding)
        for address, held in by_address.items():
            held.sort(key=lambda holding: holding.since)
            for earlier, later in itertools.pairwise(held):
                if earlier.until is None or earlier.until > later.since:
                    found.append(f"{address}: {earlier.container} until {earlier.until}, {later.container} since {later.since}")
        return found

    def living(self) -> list[Holding]:
        """What was acknowledged and not deleted."""
        return [holding for holding in self.holdings if holding.until is None]
