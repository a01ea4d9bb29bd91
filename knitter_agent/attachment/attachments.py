"""The verbs in one place: what the service calls for a call that has been judged."""

import asyncio
from collections.abc import Mapping
from typing import Any

from knitter_agent.attachment.add import Adder
from knitter_agent.attachment.check import Checker
from knitter_agent.attachment.delegates import Surroundings
from knitter_agent.attachment.garbage import Collector
from knitter_agent.attachment.recovery import recover
from knitter_agent.attachment.remove import Remover
from knitter_agent.attachment.repair import repair
from knitter_agent.attachment.tools import Tools
from knitter_agent.attachment.undo import Undoer
from knitter_agent.cni import Call
from knitter_agent.record import Delegation, Key, Record
from knitter_common.errors import Unavailable


class Attachments:
    """Use from one event loop. Every verb raises KnitterError for what a runtime has to be told."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self.undoer = Undoer(tools)
        self.remover = Remover(tools, self.undoer)
        self._adder = Adder(tools, self.undoer, self.remover)
        self._checker = Checker(tools, self.undoer)
        self._collector = Collector(tools, self.undoer, self.remover)
        self._adding: dict[Key, asyncio.Task[Mapping[str, Any]]] = {}

    async def start(self, boot_id: str) -> None:
        """Recovers and repairs; then the verbs may be called."""
        self.undoer.start()
        await recover(self._tools, self.undoer, boot_id)
        await repair(self._tools)

    async def close(self) -> None:
        """Stops. What is not undone stays in the journal."""
        await self._tools.background.close()
        await self.undoer.close()

    async def add(self, call: Call) -> Mapping[str, Any]:
        """The CNI result in the call's version. A DEL of the same attachment meanwhile ends it."""
        key = Key(call.conf.name, call.container_id, call.interface)
        task = asyncio.create_task(self._adder.add(call))
        self._adding[key] = task
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            _cancel(task)
            await self._tools.background.finish(self._withdraw(task, key))
            raise
        finally:
            if self._adding.get(key) is task:
                del self._adding[key]
        if task.cancelled():
            raise Unavailable("DEADLINE_EXCEEDED", f"a DEL of {key} came while it was being added")
        return task.result()

    async def _withdraw(self, adding: "asyncio.Task[Mapping[str, Any]]", key: Key) -> None:
        """Nobody is there any more to be told of an ADD: it ends, or what it has done by now does."""
        await asyncio.wait([adding])
        if adding.cancelled() or adding.exception() is not None:
            return
        self._adder.untold.discard(key)
        if (record := self._tools.journal.records.get(key)) is not None:
            await self.remover.end(record)

    def busy(self, key: Key) -> bool:
        """An ADD or an undo of this attachment is under way."""
        return key in self._adding or key in self.undoer.pending

    def answered(self, call: Call) -> None:
        """The ADD's result is on its way to the runtime."""
        key = Key(call.conf.name, call.container_id, call.interface)
        self._adder.untold.discard(key)
        self._tools.journal.note_answered(key)

    async def delete(self, call: Call) -> None:
        """Success once the undo is durable."""
        adding = self._adding.get(Key(call.conf.name, call.container_id, call.interface))
        if adding is not None:
            _cancel(adding)
        await self.remover.delete(call)

    async def delete_late(self, call: Call, asked: int) -> None:
        """A DEL that was asked some time ago, in nanoseconds since 1970."""
        await self.remover.delete_late(call, asked)

    async def end(self, seen: Record) -> bool:
        """Ends an attachment that was found dead, unless it was replaced since it was seen."""
        return await self.remover.end(seen) is not None

    async def repair(self) -> int:
        """Makes the node's side whole again; returns how many things were mended."""
        return await repair(self._tools)

    async def check(self, call: Call) -> None:
        """Success when nothing differs."""
        await self._checker.check(call)

    async def collect_garbage(self, call: Call) -> None:
        """Success when the kernel is clean."""
        await self._collector.collect(call)

    async def status(self, call: Call) -> None:
        """Whether an ADD could be served now, as far as delegates say."""
        chain = tuple(Delegation(conf, call.interface) for conf in call.conf.delegates)
        if chain:
            await self._tools.delegates.status(chain, Surroundings(Key(call.conf.name, "", ""), "", "", call.path))


def _cancel(adding: "asyncio.Task[Mapping[str, Any]]") -> None:
    """Once: a second time would cut the way back short."""
    if not adding.cancelling():
        adding.cancel()
