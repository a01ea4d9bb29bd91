"""The newest commits in memory, and the wake-up of those who follow them; memory and sqlite share it. One event loop, no I/O."""

import asyncio
from collections.abc import Sequence

from knitter_manager.store.protocol import Commit, StoreDown

# Commits and their records, together, kept for followers that lag a little; who lags more reads the log.
TAIL = 16_384


class Tail:
    """Commits with consecutive revisions: `after` < revision <= `head`. They weigh less than twice `limit`, or are one."""

    def __init__(self, head: int, limit: int = TAIL) -> None:
        self.head = self.after = head
        self._limit = limit
        self._weight = 0
        self._commits: list[Commit] = []
        self._news = asyncio.Event()
        self._lost = False
        self._ended = ""

    def extend(self, commits: Sequence[Commit]) -> None:
        """Appends the next commits and wakes who waits. After a gap the tail begins with them."""
        if not commits:
            return
        if self._lost or commits[0].revision != self.head + 1:
            self.forget(self.head)
            self.after = commits[0].revision - 1
            self._lost = False
        self._commits.extend(commits)
        self._weight += sum(commit.weight for commit in commits)
        self.head = commits[-1].revision
        if self._weight >= 2 * self._limit:
            self.forget(self._before_newest())
        self.wake()

    def _before_newest(self) -> int:
        """The revision before the newest commits that are within the limit, of which there is one at least."""
        weight = 0
        for commit in reversed(self._commits):
            weight += commit.weight
            if weight > self._limit and commit.revision < self.head:
                return commit.revision
        return self.after

    def restart(self, head: int) -> None:
        """The head is known to be this one; nothing before it is told here."""
        self.forget(self.head)
        self.head = self.after = head
        self._lost = False
        self.wake()

    def lose(self) -> None:
        """There may be commits that were not told here: until the next ones followers read the log."""
        self._lost = True
        self.wake()

    def forget(self, revision: int) -> None:
        """Drops the commits up to `revision`."""
        count = min(revision, self.head) - self.after
        if count > 0:
            self._weight -= sum(commit.weight for commit in self._commits[:count])
            del self._commits[:count]
            self.after += count

    def since(self, after: int, most: int) -> Sequence[Commit] | None:
        """At most `most` commits after that revision; empty when there is none yet, None when the tail cannot tell."""
        if self._lost or after < self.after:
            return None
        begin = after - self.after
        return self._commits[begin : begin + most]

    def wake(self) -> None:
        """Wakes all who wait; they look again."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def news(self) -> asyncio.Event:
        """What is set at the next news. Take it, look, and only then wait on it. Raises StoreDown after `end`."""
        if self._ended:
            raise StoreDown(self._ended)
        return self._news

    def end(self, reason: str) -> None:
        """No more news: whoever waits gets StoreDown."""
        self._ended = self._ended or reason
        self.wake()
