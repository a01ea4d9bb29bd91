"""Ends attachments whose network namespace is gone, where the runtime sends neither DEL nor GC, and repairs those that live.

A sandbox lives as long as its recorded path opens with the recorded cookie. That it does not is an inference, so it takes two
looks, the second no earlier than a grace time after the first, and the record must be the same one both times. What cannot be found
out (descriptors have run out) is no look at all.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from knitter_agent.attachment import Attachments, Tools, cookie_at
from knitter_agent.record import Key, Record, State

log = structlog.get_logger()


class Liveness:
    """`interval` and `grace` in seconds; `clock` is monotonic, in seconds."""

    def __init__(
        self, tools: Tools, attachments: Attachments, interval: float, grace: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tools = tools
        self._attachments = attachments
        self._interval = interval
        self._grace = grace
        self._clock = clock
        self._missed: dict[Key, tuple[int, float]] = {}  # the record's time, and when it was first found dead

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.look()
                await self._attachments.repair()
            except Exception as error:
                log.error("a look at the attachments failed", exc_info=error)

    async def look(self) -> int:
        """One look at every attachment; returns how many it ended."""
        ended = 0
        for record in [record for record in self._tools.journal.records.values() if record.state is State.ATTACHED]:
            if await self._lives(record):
                self._missed.pop(record.key, None)
            elif self._twice(record):
                log.warning("the sandbox is gone and nobody deleted its attachment", attachment=str(record.key), netns=record.netns)
                ended += await self._attachments.end(record)
        known = self._tools.journal.records
        self._missed = {key: missed for key, missed in self._missed.items() if key in known}
        return ended

    def _twice(self, record: Record) -> bool:
        """This is a second look, late enough, at the same record."""
        now = self._clock()
        seen, since = self._missed.get(record.key, (0, 0.0))
        if seen != record.time:
            self._missed[record.key] = (record.time, now)
            return False
        return now - since >= self._grace

    async def _lives(self, record: Record) -> bool:
        try:
            return await cookie_at(self._tools, record.netns) == record.cookie
        except Exception as error:  # noqa: BLE001 - told; what cannot be found out ends nobody
            log.warning("whether a sandbox lives cannot be found out", attachment=str(record.key), error=str(error))
            return True
