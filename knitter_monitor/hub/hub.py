"""The hub: the newest state of the cluster, and the nodes that watch it. It gets changes from the feed and wakes who needs them.

One board is in force at a time. A fresh snapshot of the manager is gathered beside it and takes its place when it is complete, so
that a feed that is cut half-way changes nothing; every topic then begins with Reset, which is never an order to detach anything.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from knitter_common.errors import Unavailable
from knitter_monitor.hub.board import Board
from knitter_monitor.hub.facts import Fact
from knitter_monitor.hub.watcher import Watcher

log = structlog.get_logger()


class Limits(Protocol):
    """What bounds a hub (`config.PushSettings`)."""

    @property
    def message_changes(self) -> int:
        """Changes of one message."""

    @property
    def message_bytes(self) -> int:
        """Size of one message, about."""

    @property
    def tombstone_age(self) -> float:
        """How long deletions are remembered, in seconds."""

    @property
    def tombstones_per_topic(self) -> int:
        """How many deletions of one topic are remembered."""


class Hub:
    """Used from one event loop. `clock` gives seconds that only grow."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._board: Board | None = None
        self._watchers: dict[str, Watcher] = {}
        self._followers: defaultdict[str, set[Watcher]] = defaultdict(set)
        self._moved_on = asyncio.Event()  # replaced at each step forward

    @property
    def board(self) -> Board:
        """The state in force. Raises Unavailable(REPLICA_BEHIND) before the first."""
        if self._board is None:
            raise Unavailable("REPLICA_BEHIND", "this monitor has not yet heard of the manager's state; wait or ask another")
        return self._board

    @property
    def ready(self) -> bool:
        """There is a state to serve."""
        return self._board is not None

    @property
    def watching(self) -> tuple[str, ...]:
        """The nodes with an open Watch."""
        return tuple(self._watchers)

    def replace(self, epoch: str, snapshot: Iterable[Fact], revision: int) -> None:
        """A whole new state is in force from now on."""
        board = self._board = Board(epoch, snapshot, revision)
        for watcher in self._watchers.values():
            watcher.begin_anew()
            self._follow(watcher, board)
        self._step()

    def apply(self, facts: Iterable[Fact]) -> None:
        """Changes, in order of revision."""
        board, now = self.board, self._clock()
        for fact in facts:
            board.apply(fact, now)
        touched, moved = board.take_touched()
        for node in moved & self._watchers.keys():
            self._follow(self._watchers[node], board)
        for name in touched:
            for watcher in self._followers.get(name, ()):
                watcher.mark(name)
        self._step()

    def sweep(self) -> int:
        """Forgets deletions that are old enough; call it now and then. Returns how many."""
        if self._board is None:
            return 0
        limits = self._limits
        return self._board.sweep(self._clock() - limits.tombstone_age, limits.tombstones_per_topic, self._followers)

    async def catch_up(self, epoch: str, revision: int, within: float) -> None:
        """Waits until this hub has what a client has seen. Raises Unavailable(REPLICA_BEHIND) after `within` seconds.

        A client of another store, or of an older epoch, waits for nothing: it gets a Reset.
        """
        try:
            async with asyncio.timeout(within):
                while self._board is None or _is_behind(self._board, epoch, revision):
                    await self._moved_on.wait()
        except TimeoutError as error:
            has = self.board  # raises where there is none
            message = f"this monitor is at revision {has.revision} of {has.epoch}, the client has seen {revision} of {epoch}"
            raise Unavailable("REPLICA_BEHIND", message + "; ask another or wait", revision=has.revision) from error

    def connect(self, node: str, epoch: str, positions: Mapping[str, int]) -> Watcher:
        """Begins a Watch. An older one of the same node is cut with WATCH_TAKEN_OVER."""
        board = self.board
        older = self._watchers.get(node)
        if older is not None:
            self.disconnect(older)
            older.close(Unavailable("WATCH_TAKEN_OVER", f"another Watch of node {node} was opened", node=node))
        watcher = Watcher(node, epoch, positions, self._limits.message_changes, self._limits.message_bytes)
        self._watchers[node] = watcher
        self._follow(watcher, board)
        return watcher

    def disconnect(self, watcher: Watcher) -> bool:
        """Ends a Watch. False: it was not the node's current one any more."""
        for name in watcher.cursors:
            self._leave(name, watcher)
        if self._watchers.get(watcher.node) is not watcher:
            return False
        del self._watchers[watcher.node]
        return True

    def close(self) -> None:
        """Cuts every Watch with SHUTTING_DOWN."""
        for watcher in self._watchers.values():
            watcher.close(Unavailable("SHUTTING_DOWN", "this monitor is ending; ask another, or wait"))

    def _follow(self, watcher: Watcher, board: Board) -> None:
        added, dropped = watcher.follow(board, board.needs(watcher.node))
        for name in added:
            self._followers[name].add(watcher)
        for name in dropped:
            self._leave(name, watcher)

    def _leave(self, name: str, watcher: Watcher) -> None:
        self._followers[name].discard(watcher)
        if not self._followers[name]:
            del self._followers[name]

    def _step(self) -> None:
        self._moved_on.set()
        self._moved_on = asyncio.Event()


def _is_behind(board: Board, epoch: str, revision: int) -> bool:
    """A client has seen more of the same store. An epoch is the store's id, a dot and the counter that a restore raises."""
    if epoch == board.epoch:
        return board.revision < revision
    (store, _, count), (ours, _, our_count) = epoch.rpartition("."), board.epoch.rpartition(".")
    return bool(store) and store == ours and count.isdecimal() and our_count.isdecimal() and int(count) > int(our_count)
