"""A folder as a source: what its files declare is applied to the manager and kept applied when they change.

The loop is a thin shell: wait for a change (inotify), for news of the manager, or for a time that matters; read; bring. It never
polls.

What is missing from a folder is deleted only if a whole reading missed it, and another one after a grace time, and if the manager,
which refuses what is in use, agrees. At the start, what the manager holds of this source counts as declared before; later on only
what this process has seen declared does (another replica may read a newer folder).
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from knitter_common.errors import KnitterError
from knitter_common.managers import PASSING, Backoff
from knitter_monitor.config import FilesSettings
from knitter_monitor.sources.applying import Applier
from knitter_monitor.sources.kinds import Declarable, Key
from knitter_monitor.sources.reading import FolderReader, Reading
from knitter_monitor.sources.report import Problem, Report, problem_of
from knitter_monitor.sources.watching import FolderWatch

T = TypeVar("T")

log = structlog.get_logger()


class FolderSource:
    """One folder. `run` for ever; `nudge` tells that the manager's state has changed. `clock` in seconds, `now` in nanoseconds."""

    def __init__(
        self,
        reader: FolderReader,
        applier: Applier,
        settings: FilesSettings,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.report = Report(applier.source, str(reader.folder))
        self._reader, self._applier, self._settings, self._clock, self._now = reader, applier, settings, clock, now
        self._held: dict[Key, Declarable] | None = None  # what the manager holds of ours; None: to be asked
        self._known: set[Key] | None = None  # what may be deleted when it is missing
        self._applied: dict[Key, Declarable] = {}  # as declared, so that what did not change is not sent again
        self._places: dict[Key, str] = {}  # where each was written last
        self._missing: dict[Key, float] = {}  # since when
        self._failed: dict[Key, Problem] = {}
        self._away: Problem | None = None  # the manager does not answer
        self._wake = asyncio.Event()
        self._backoff, self._soon = Backoff(0.5, settings.retry_most), Backoff(0.2, 2.0)

    def nudge(self, *, anew: bool) -> None:
        """The manager's state has changed, which may help what failed. `anew`: compare everything again."""
        if anew:
            self._held = None
            self._applied.clear()
        if anew or self._failed or self._away:
            self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        async with FolderWatch(self._reader, self._wake.set) as watch:
            while True:
                self._wake.clear()
                reading = await watch.read()
                await self.bring(reading)
                await self._rest(self._wait_time(reading))

    async def bring(self, reading: Reading) -> None:
        """Brings the manager to what was read; what fails is in the report and is tried again."""
        self._away = None
        self._places.update((key, declared.place) for key, declared in reading.declared.items())
        try:
            held = await self._holdings(reading)
            await self._apply(reading, held)
            await self._delete(reading, held)
        except KnitterError as error:  # the manager does not answer: no use in trying the others
            self._away = problem_of(error, "manager")
        self._tell(reading)

    async def _holdings(self, reading: Reading) -> dict[Key, Declarable]:
        if self._held is None:
            held = await self._applier.held()
            self._known = set(held) if self._known is None else self._known
            self._held = held
        assert self._known is not None
        self._known.update(reading.declared)
        return self._held

    async def _apply(self, reading: Reading, held: dict[Key, Declarable]) -> None:
        self._failed = {key: problem for key, problem in self._failed.items() if key in reading.declared or key in self._missing}
        for key in sorted(reading.declared):
            wanted = reading.declared[key].obj
            if self._applied.get(key) == wanted:
                continue
            self._applied.pop(key, None)
            stored = await self._attempt(key, self._applier.apply(wanted))
            if stored is not None:
                held[key], self._applied[key] = stored, wanted

    async def _delete(self, reading: Reading, held: dict[Key, Declarable]) -> None:
        now = self._clock()
        missing = self._vanished(reading) if reading.whole else []
        self._missing = {key: self._missing.get(key, now) for key in missing}
        for key in sorted(self._missing, reverse=True):
            if now - self._missing[key] < self._settings.vanish_grace:
                continue
            if await self._attempt(key, self._applier.delete(held[key])):
                log.info("deleted: its declaration has vanished", source=self._applier.source, object=str(key))
                del held[key], self._missing[key]
                self._applied.pop(key, None)

    async def _attempt(self, key: Key, work: Coroutine[Any, Any, T]) -> T | None:
        """Its result; None when it failed, which is noted. Raises what passes by waiting: it is not about this object."""
        try:
            result = await work
        except KnitterError as error:
            if error.reason in PASSING:
                raise
            self._failed[key] = problem_of(error, self._places.get(key, str(self._reader.folder)), str(key))
            return None
        self._failed.pop(key, None)
        return result

    def _vanished(self, reading: Reading) -> list[Key]:
        known = self._known or set()
        return [key for key in self._held or () if key in known and not reading.names(key)]

    def _wait_time(self, reading: Reading) -> float | None:
        """How long to rest when nothing happens, in seconds; None: for ever."""
        waits = []
        for trouble, backoff in ((self._failed, self._backoff), (self._away, self._soon)):
            if trouble:
                waits.append(backoff.next())
            else:
                backoff.reset()
        grace = self._settings.vanish_grace
        waits += [wait for since in self._missing.values() if (wait := since + grace - self._clock()) > 0]
        if not reading.watched:
            waits.append(self._settings.retry_most)
        return min(waits, default=None)

    async def _rest(self, wait: float | None) -> None:
        """Until something happens and has come to rest, or until the time is over."""
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            return
        try:
            async with asyncio.timeout(self._settings.settle_most):
                while self._wake.is_set():
                    self._wake.clear()
                    await self._quiet()
        except TimeoutError:
            pass

    async def _quiet(self) -> None:
        try:
            async with asyncio.timeout(self._settings.settle):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _tell(self, reading: Reading) -> None:
        """The report, and a line in the log for each problem that is new or solved."""
        problems = {*reading.problems, *self._failed.values(), *self._unsure(reading)}
        if self._away:
            problems.add(self._away)
        report = self.report
        report.readable, report.read_time = reading.readable, self._now()
        report.declared = len(reading.declared) + len(reading.contested)
        report.applied = sum(self._applied.get(key) == declared.obj for key, declared in reading.declared.items())
        new, gone = report.put(problems, self._now())
        for problem in sorted(new, key=lambda problem: problem.place):
            log.warning(
                "not applied",
                source=report.name,
                place=problem.place,
                object=problem.object,
                reason=problem.reason,
                error=problem.message,
            )
        for problem in gone:
            log.info("solved", source=report.name, place=problem.place, object=problem.object, reason=problem.reason)

    def _unsure(self, reading: Reading) -> list[Problem]:
        """What seems to have vanished and is not deleted, and why."""
        folder, vanished = str(self._reader.folder), self._vanished(reading)
        problems = []
        if vanished and not reading.whole:
            why = "it declares nothing at all" if reading.readable else "not all of it can be read"
            names = ", ".join(str(key) for key in sorted(vanished)[:5]) + (", …" if len(vanished) > 5 else "")
            text = f"{folder}: {len(vanished)} objects are missing and are not deleted, because {why}: {names}"
            problems.append(Problem(folder, "", "SOURCE_INCOMPLETE", text))
        for key in self._held or ():
            if key not in (self._known or ()) and not reading.names(key):
                text = f"{key} is held for {self._applier.source!r}, but this monitor has never seen it declared; it is left alone"
                problems.append(Problem(folder, str(key), "SOURCE_FOREIGN", text))
        return problems
