"""The nodes whose agents' streams are open here, and can be asked what their journals hold."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types

MOST_TOLD = 100_000  # sets that one node may tell of

_AT_ONCE = 32  # nodes that are asked at once


class NotAsked(Exception):
    """A node's journal is not known; the message says why."""


@dataclass(slots=True, eq=False)
class Line:
    """A node's stream. `send` has a question sent on it."""

    node: str
    send: Callable[[pb.JournalQuestion], None]
    waiting: dict[int, "asyncio.Future[list[types.PortSet]]"] = field(default_factory=dict)
    parts: dict[int, list[types.PortSet]] = field(default_factory=dict)

    def take(self, answer: pb.JournalAnswer) -> None:
        """A part of an answer; one that nobody waits for (any more) is dropped."""
        future = self.waiting.get(answer.id)
        if future is None or future.done():
            return
        told = self.parts.setdefault(answer.id, [])
        told.extend(answer.in_use)
        if len(told) > MOST_TOLD:
            future.set_exception(NotAsked(f"it tells of more than {MOST_TOLD} sets"))
        elif not answer.more:
            future.set_result(told)


class Journals:
    """Belongs to one event loop. Of two streams of one node the newer one is asked."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._last = 0

    def connected(self, node: str) -> bool:
        """Whether it can be asked."""
        return node in self._lines

    def opened(self, node: str, send: Callable[[pb.JournalQuestion], None]) -> Line:
        """A node's stream is open from now on."""
        line = self._lines[node] = Line(node, send)
        return line

    def closed(self, line: Line) -> None:
        """The stream has ended; whoever waits for an answer is told so."""
        if self._lines.get(line.node) is line:
            del self._lines[line.node]
        for future in line.waiting.values():
            if not future.done():
                future.set_exception(NotAsked("its stream broke"))

    async def ask(self, node: str, within: float) -> list[types.PortSet]:
        """The sets that are in use on the node, as its journal has them. `within` is in seconds. Raises NotAsked."""
        line = self._lines.get(node)
        if line is None:
            raise NotAsked("not connected")
        self._last += 1
        asked = self._last
        future = line.waiting[asked] = asyncio.get_running_loop().create_future()
        line.send(pb.JournalQuestion(id=asked))
        try:
            async with asyncio.timeout(within):
                told: list[types.PortSet] = await future
        except TimeoutError:
            raise NotAsked(f"no answer within {within:g} s") from None
        finally:
            del line.waiting[asked]
            line.parts.pop(asked, None)
        return told

    async def ask_all(self, nodes: Sequence[str], within: float) -> AsyncIterator[tuple[str, list[types.PortSet] | NotAsked]]:
        """Each node with what it says, as they answer; some are asked at a time, so that a silent one keeps few others waiting."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(node: str) -> tuple[str, list[types.PortSet] | NotAsked]:
            async with turns:
                try:
                    return node, await self.ask(node, within)
                except NotAsked as error:
                    return node, error

        tasks = [asyncio.ensure_future(one(node)) for node in nodes]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for unanswered in tasks:
                unanswered.cancel()
