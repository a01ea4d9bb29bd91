"""A history of calls, and what must be true of it whatever was killed on the way.

Every call is recorded, with when it was made, when it was answered and how; also the kills. An owner surely holds its addresses
from the answer of its ADD to the call of its DEL; before and after that it may or may not. So two that surely hold one address at
one moment are a violation, and so is an address of a network with a long rest that was acknowledged twice within it.
"""

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Operation:
    """One call. Times on the monotonic clock; not answered: nobody knows what became of it."""

    verb: str
    who: str
    called: float
    answered: float | None = None
    outcome: str = ""

    def answer(self, outcome: str) -> None:
        """It is answered now."""
        self.answered, self.outcome = time.monotonic(), outcome

    def __str__(self) -> str:
        end = f"{self.answered:.3f} {self.outcome[:120]}" if self.answered is not None else "not answered"
        return f"{self.called:.3f} {self.verb} {self.who} → {end}"


@dataclass
class Holding:
    """One acknowledged attachment. Times on the monotonic clock; `until` is None while nobody asked for its end."""

    container: str
    addresses: tuple[str, ...]
    since: float
    until: float | None = None


@dataclass
class History:
    """What happened, from several threads."""

    operations: list[Operation] = field(default_factory=list)
    holdings: list[Holding] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, verb: str, who: str) -> Operation:
        """A call is about to be made."""
        operation = Operation(verb, who, time.monotonic())
        with self._lock:
            self.operations.append(operation)
        return operation

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
        """Addresses that two held at one moment, with all that is known of the two."""
        found = []
        for address, earlier, later in self._pairs():
            if earlier.until is None or earlier.until > later.since:
                told = "\n  ".join((*self.of(earlier.container), *self.of(later.container)))
                found.append(
                    f"{address}: {earlier.container} until {earlier.until}, {later.container} since {later.since}\n  {told}"
                )
        return found

    def reused(self, rests: Callable[[str], bool], rest: float) -> list[str]:
        """Addresses that rest and were acknowledged again within their rest, in seconds."""
        return [
            f"{address}: {earlier.container} until {earlier.until}, {later.container} since {later.since}"
            for address, earlier, later in self._pairs()
            if rests(address) and (earlier.until is None or later.since - earlier.until < rest)
        ]

    def _pairs(self) -> list[tuple[str, Holding, Holding]]:
        """Each address with each two that held it one after the other."""
        by_address: dict[str, list[Holding]] = {}
        for holding in self.holdings:
            for address in holding.addresses:
                by_address.setdefault(address, []).append(holding)
        for held in by_address.values():
            held.sort(key=lambda holding: holding.since)
        return [(address, *two) for address, held in by_address.items() for two in itertools.pairwise(held)]

    def of(self, who: str) -> list[str]:
        """All calls of one owner, and all kills, in order."""
        return [str(one) for one in self.operations if one.who == who or one.verb == "kill"]

    def living(self) -> list[Holding]:
        """What was acknowledged and not deleted."""
        return [holding for holding in self.holdings if holding.until is None]
