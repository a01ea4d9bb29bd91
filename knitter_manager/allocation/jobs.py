"""Operations on port sets: one at a time per owner, any number at once over all, each answered when the store has it.

An operation is a step that looks at the state and says what to commit, or what to answer at once. It is planned in the very call
that asks for it; only what follows a commit happens later. A second operation on the same owner waits for the first, and then sees
what it did: that is how the same Allocate sent twice gets one answer.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass

import structlog

from knitter_common.errors import Internal, Unavailable
from knitter_manager import keys
from knitter_manager.allocation.held import HeldBy
from knitter_manager.allocation.plan import Plan
from knitter_manager.committer import Change, Committer, Outcome
from knitter_manager.records import kept
from knitter_manager.state import Cluster
from knitter_manager.store.protocol import Conflict, NotWriter, Record, Store, StoreDown

_SOMEBODY = "another owner"
ATTEMPTS = 32  # on conflicts: each shows something that was not known, such as the newest of a network's many changes

log = structlog.get_logger()

Answer = bytes | None  # the owner's record as it is kept, or nothing


@dataclass(frozen=True, slots=True)
class Attempt:
    """How often the step was tried before, and what the store had instead of what the last plan expected."""

    number: int = 0
    conflict: Conflict | None = None


Step = Callable[[Attempt], "Plan | Answer"]  # a Plan is committed, anything else is the answer
_FIRST = Attempt()


@dataclass(slots=True, eq=False)
class _Job:
    turn: str
    owner_key: str
    step: Step
    future: "asyncio.Future[Answer]"
    attempt: Attempt = _FIRST


class Jobs:
    """Belongs to one event loop. `clock` is the monotonic clock in seconds."""

    def __init__(self, store: Store, cluster: Cluster, committer: Committer, clock: Callable[[], float]) -> None:
        self._store, self._cluster, self._committer, self._clock = store, cluster, committer, clock
        self._loop = asyncio.get_running_loop()
        self._busy: dict[str, deque[_Job] | None] = {}  # turn → what waits for the operation under way, None for nothing
        self._doubtful: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def run(self, turn: str, owner_key: str, step: Step) -> "asyncio.Future[Answer]":
        """Starts an operation on an owner's set; the future ends with its answer, or with a KnitterError. Cancelling it does
        not undo anything. Operations of the same `turn` wait for one another."""
        job = _Job(turn, owner_key, step, self._loop.create_future())
        if turn in self._doubtful:
            _fail(job, _doubt(owner_key))
        elif turn not in self._busy:
            if self._begun(job):
                self._busy[turn] = None
        elif (waiting := self._busy[turn]) is not None:
            waiting.append(job)
        else:
            self._busy[turn] = deque((job,))
        return job.future

    def _next(self, turn: str) -> None:
        """Goes on with what waits, until something is under way or nothing is left."""
        waiting = self._busy[turn]
        while waiting:
            if self._begun(waiting.popleft()):
                return
        del self._busy[turn]

    def _begun(self, job: _Job) -> bool:
        """Tries the step: whether a commit is under way now; else it is answered."""
        try:
            plan = job.step(job.attempt)
        except HeldBy as held:
            nobody_knows = held.error(_SOMEBODY)
            if self._closed:
                _fail(job, nobody_knows)
            else:
                self._spawn(self._name_holder(job, held)).add_done_callback(lambda _: _fail(job, nobody_knows))
            return False
        except Exception as error:  # noqa: BLE001 - told to who asked
            _fail(job, error)
            return False
        if isinstance(plan, Plan):
            self._committer.submit(Change(plan.conditions, plan.puts, plan.deletes, lambda end: self._done(job, plan, end)))
            return True
        if not job.future.done():
            job.future.set_result(plan)
        return False

    def _done(self, job: _Job, plan: Plan, end: Outcome) -> None:
        if isinstance(end, int):
            self._finish(job, plan, end)
            return
        if isinstance(end, StoreDown):
            self._doubt(job, plan, end)
            return
        plan.undo()
        if isinstance(end, NotWriter):
            _fail(job, not_writer(end.writer))
            self._next(job.turn)
            return
        self._cluster.refresh(end.key, end.current, end.revision, self._clock())
        job.attempt = Attempt(job.attempt.number + 1, end)
        if job.attempt.number < ATTEMPTS:
            if not self._begun(job):
                self._next(job.turn)
            return
        _fail(job, Internal("INTERNAL", f"{keys.said(job.owner_key)}: the store disagrees again and again, last about {end.key}"))
        self._next(job.turn)

    def _finish(self, job: _Job, plan: Plan, revision: int) -> None:
        plan.settle()
        if plan.failure is not None:
            _fail(job, plan.failure)
        elif not job.future.done():
            value = plan.puts.get(keys.PORT_SET + job.owner_key)
            job.future.set_result(None if value is None else kept(value, revision))
        self._next(job.turn)

    def _spawn(self, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("what became of an operation could not be found out", exc_info=error)

    async def _name_holder(self, job: _Job, held: HeldBy) -> None:
        try:
            found = await self._store.get([held.key])
        except StoreDown as error:
            _fail(job, store_unavailable(error))
            return
        record = found.get(held.key)
        who = keys.said(record.value.decode()) if record is not None and record.value else "an operation under way"
        _fail(job, held.error(who))

    # -- when the store did not answer ----------------------------------------------------------------------------------

    def _doubt(self, job: _Job, plan: Plan, error: StoreDown) -> None:
        """Nobody knows whether it was written: what was taken stays taken until the store tells."""
        log.warning("a commit was not answered", owner=job.owner_key, error=str(error))
        self._doubtful.add(job.turn)
        _fail(job, store_unavailable(error))
        for waiting in self._busy[job.turn] or ():
            _fail(waiting, _doubt(waiting.owner_key))
        self._busy[job.turn] = None
        if not self._closed:
            self._spawn(self._settle_doubt(job, plan))

    async def _settle_doubt(self, job: _Job, plan: Plan) -> None:
        touched = [*plan.puts, *plan.deletes]
        pause = 0.05
        while True:
            try:
                found = await self._store.get(touched)
                break
            except StoreDown:
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
        set_key = keys.PORT_SET + job.owner_key
        record = found.get(set_key)
        written = plan.puts.get(set_key)
        happened = record is None if written is None else record is not None and record.value == written
        if happened:
            self._learn(plan, touched, found)
            plan.settle()
        else:
            plan.undo()
        self._doubtful.discard(job.turn)
        self._next(job.turn)

    def _learn(self, plan: Plan, touched: Sequence[str], found: Mapping[str, Record]) -> None:
        """A commit has happened, and the feed may not have told it yet."""
        for key in touched:
            record = found.get(key)
            if record is not None:
                self._cluster.refresh(key, record, record.revision, self._clock())
            elif key.startswith(keys.PORT_SET):
                self._cluster.end_set(key.removeprefix(keys.PORT_SET), plan.conditions.get(key, 0))

    async def close(self) -> None:
        """Gives up on what is in doubt, and on what comes to be from now on: what was taken stays taken, nobody asks the store."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def not_writer(writer: str) -> Unavailable:
    """This manager does not write; `writer` does, "" for nobody."""
    if not writer:
        return Unavailable("NO_WRITER", "no manager writes at the moment; one is about to")
    return Unavailable("NOT_WRITER", f"this manager does not write; {writer} does", writer=writer)


def store_unavailable(error: StoreDown) -> Unavailable:
    """The store does not answer."""
    return Unavailable("STORE_UNAVAILABLE", f"the store does not answer: {error}")


def _doubt(owner_key: str) -> Unavailable:
    said = f"{keys.said(owner_key)}: the store did not answer an operation before this one, and must be asked what became of it"
    return Unavailable("STORE_UNAVAILABLE", said)


def _fail(job: _Job, error: BaseException) -> None:
    if not job.future.done():
        job.future.set_exception(error)
