"""One open Watch: which topics it follows and how far each has been sent. Pure: gives the next message when asked for one.

There is no queue. A topic that changed is marked; what to send is looked up when the reader has taken what came before. So a
watcher's memory is one cursor for each topic it follows, and a reader that falls behind gets the newest state, not every step.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from knitter.v1 import monitor_pb2 as pb
from knitter_common.errors import KnitterError
from knitter_monitor.hub.board import Board
from knitter_monitor.hub.facts import message_of
from knitter_monitor.hub.topic import Topic


@dataclass(slots=True)
class Cursor:
    """How far one topic has been sent. `anew`: a Reset is due; `fresh_from`: deletions up to here are of before its Reset.

    `whole`: everything up to `position` has been sent; `synced`: and the node has been told so.
    """

    position: int
    anew: bool
    fresh_from: int = 0
    whole: bool = False
    synced: bool = False


class Watcher:
    """Made by the hub, which tells it what to follow and what has changed; read by one handler."""

    def __init__(self, node: str, epoch: str, positions: Mapping[str, int], most_changes: int, most_bytes: int) -> None:
        """`positions` are what the node says it holds of `epoch`."""
        self.node = node
        self.cut: KnitterError | None = None
        self.cursors: dict[str, Cursor] = {}
        self._told = (epoch, dict(positions))
        self._most, self._most_bytes = most_changes, most_bytes
        self._marked: dict[str, None] = {}  # topics with something to send, in turn
        self._dropped: dict[str, None] = {}
        self._awake = asyncio.Event()

    def follow(self, board: Board, needs: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
        """Follows exactly these topics from now on. Returns those that were added and those that were dropped."""
        (epoch, told), self._told = self._told, ("", {})
        self._dropped.update(dict.fromkeys(sorted(told.keys() - needs)))
        held = told if epoch == board.epoch else {}
        added, gone = needs - self.cursors.keys(), self.cursors.keys() - needs
        for name in sorted(added):
            position = held.get(name, 0)
            resumes = position >= max(board.topic(name).floor, 1)
            self.cursors[name] = Cursor(position if resumes else 0, anew=not resumes)
            self._dropped.pop(name, None)
            self.mark(name)
        for name in gone:
            del self.cursors[name]
            self._marked.pop(name, None)
            self._dropped[name] = None
        if gone:
            self._awake.set()
        return frozenset(added), frozenset(gone)

    def begin_anew(self) -> None:
        """The board is another one: every topic that is followed begins with Reset."""
        for name, cursor in self.cursors.items():
            cursor.anew = True
            self.mark(name)

    def mark(self, name: str) -> None:
        """There is something to send of this topic."""
        if name in self.cursors:
            self._marked[name] = None
            self._awake.set()

    def close(self, error: KnitterError) -> None:
        """Ends the Watch with this error."""
        self.cut = self.cut or error
        self._awake.set()

    async def wait(self) -> None:
        """Until there may be something to send."""
        await self._awake.wait()

    def next(self, board: Board) -> pb.WatchResponse | None:
        """The next message, None when the node has been sent everything. Raises what `close` was given."""
        if self.cut is not None:
            raise self.cut
        if self._dropped:
            name = next(iter(self._dropped))
            del self._dropped[name]
            return pb.WatchResponse(topic=name, dropped=pb.TopicDropped())
        while self._marked:
            name = next(iter(self._marked))
            del self._marked[name]
            message = self._advance(name, self.cursors[name], board)
            if message is not None:
                return message
        self._awake.clear()
        return None

    def _advance(self, name: str, cursor: Cursor, board: Board) -> pb.WatchResponse | None:
        topic = board.topic(name)
        if cursor.anew or self._missed(cursor, topic):
            self.cursors[name] = Cursor(0, anew=False, fresh_from=board.revision)
            self._marked[name] = None
            return pb.WatchResponse(topic=name, reset=pb.TopicReset(epoch=board.epoch))
        if cursor.whole and not cursor.synced:
            cursor.synced = True
            self._marked[name] = None
            return pb.WatchResponse(topic=name, synced=pb.TopicSynced(epoch=board.epoch, revision=cursor.position))
        part = topic.after(cursor.position, tombstones_after=cursor.fresh_from, most=self._most, most_bytes=self._most_bytes)
        cursor.position, cursor.whole = (board.revision if part.whole else part.position), part.whole
        if not (cursor.whole and cursor.synced):
            self._marked[name] = None  # behind the others: topics take turns
        if part.changes:
            return pb.WatchResponse(topic=name, changes=message_of(part.changes))
        return None

    def _missed(self, cursor: Cursor, topic: Topic) -> bool:
        """A tombstone that was still to be sent has been forgotten meanwhile: the reader was slower than tombstones are kept."""
        return cursor.position < topic.floor and cursor.fresh_from < topic.floor
