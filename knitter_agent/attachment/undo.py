"""Undoing attachments: one worker gathers all that wait and has the drivers delete them together.

The life of an undo, for a record that is durable (state DETACHING, or ATTACHING after a failed ADD):

    submit → kernel state gone (gathered; the kernel's grace period is paid once) → delegates' DEL, in reverse ─┐
                                                                    └→ set given back to the manager ───────────┴→ row deleted

`clean` is the moment from which the same network namespace may be wired again; `gone` the end. What fails is tried again with
back-off: the kernel's part and the release until they succeed, a delegate's DEL at most MAX_ATTEMPTS times.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import structlog

from knitter.v1 import types_pb2
from knitter_agent.attachment.delegates import Surroundings
from knitter_agent.attachment.sandbox import cookie_at
from knitter_agent.attachment.tools import Tools
from knitter_agent.drivers import Wiring
from knitter_agent.netlink import Kernel
from knitter_agent.record import Key, Record, State
from knitter_common import convert, failpoints
from knitter_common.errors import Internal, KnitterError
from knitter_common.managers import Backoff
from knitter_common.model import NetworkType, PodOwner, Return

MAX_ATTEMPTS = 10  # runs of one delegate's DEL

log = structlog.get_logger()


def _under_way() -> dict[str, str]:
    """The request id of the call that this is a part of, where there is one, for the log."""
    known = structlog.contextvars.get_contextvars()
    return {"request_id": known["request_id"]} if "request_id" in known else {}


@dataclass(slots=True)
class Undo:
    """One undo under way. `released`: its set is the manager's again. `asked` is the request that began it, for the log.

    `told` ends when the kernel is clean, with the next outcome of the delegates: None, or their error; `hurry` has them run now.
    """

    record: Record
    clean: "asyncio.Future[None]"
    gone: "asyncio.Future[None]"
    told: "asyncio.Future[KnitterError | None]"
    released: bool = False
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.2, most=30.0))
    asked: Mapping[str, str] = field(default_factory=_under_way)


class Undoer:
    """Use from one event loop. `pending` are the undos that have not ended; `broken` ends with the error that stopped the work."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._queue: list[Undo] = []
        self._wake = asyncio.Event()
        self._pending: dict[Key, Undo] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def pending(self) -> Mapping[Key, Undo]:
        """By attachment."""
        return MappingProxyType(self._pending)

    def start(self) -> None:
        """Begins to work."""
        self._spawn(self._gather())

    async def close(self) -> None:
        """Stops; what is not done stays in the journal and is done at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for undo in self._pending.values():
            for future in (undo.clean, undo.gone, undo.told):
                future.cancel()

    def submit(self, record: Record) -> Undo:
        """Has an attachment undone; again, while it is under way, returns the same, and runs a delegate that failed at once."""
        known = self._pending.get(record.key)
        if known is not None:
            if known.told.done() and known.told.result() is not None:
                known.told = asyncio.get_running_loop().create_future()
                known.hurry.set()
            return known
        future = asyncio.get_running_loop().create_future
        undo = Undo(record, future(), future(), future())
        self._pending[record.key] = undo
        self._queue.append(undo)
        self._wake.set()
        return undo

    async def marked(self, record: Record) -> Record:
        """The record as one that ends, on the disk too, so that a crash from now on does not leave half of it. A disk that does not
        take that is told, and no more: the undo goes on."""
        ending = replace(record, state=State.DETACHING)
        try:
            await self._tools.journal.put(ending)
        except Exception as error:
            log.error("the journal does not take an end; it is carried out", attachment=str(record.key), exc_info=error)
        return ending

    async def settled(self, container_id: str, netns: str, cookie: int = 0) -> None:
        """Until no undo of this sandbox, or in the network namespace of this path or cookie, is under way in the kernel."""

        def concerns(record: Record) -> bool:
            same = bool(netns and record.netns == netns) or bool(cookie and record.cookie == cookie)
            return same or record.key.container_id == container_id

        while waiting := [undo.clean for undo in self._pending.values() if not undo.clean.done() and concerns(undo.record)]:
            await asyncio.wait(waiting)

    async def finished(self, key: Key) -> None:
        """Until the undo of this attachment, if there is one, has ended."""
        if (undo := self._pending.get(key)) is not None:
            await asyncio.shield(undo.gone)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.broken.done():
            self.broken.set_exception(error)

    async def _gather(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._queue = self._queue, []
            try:
                await self._unwire(batch)
            except Exception as error:  # noqa: BLE001 - logged and tried again; every step may be repeated
                for undo in batch:
                    self._later(undo, error)

    async def _unwire(self, batch: Sequence[Undo]) -> None:
        await failpoints.reach("undo.before-unwire")
        try:
            await self._tools.remover.run(lambda kernel: self._detach(kernel, [undo.record for undo in batch]))
            outcomes: dict[Key, BaseException | None] = {}
        except Exception as error:  # noqa: BLE001 - one may have spoiled the batch: each alone, and told below
            log.warning("a gathered undo failed; one by one now", attachments=len(batch), error=str(error))
            outcomes = {undo.record.key: await self._unwire_alone(undo) for undo in batch}
        await failpoints.reach("undo.after-unwire")
        for undo in batch:
            if (trouble := outcomes.get(undo.record.key)) is None:
                self._spawn(self._finish(undo))
            else:
                self._later(undo, trouble)

    async def _unwire_alone(self, undo: Undo) -> BaseException | None:
        try:
            await self._tools.remover.run(lambda kernel: self._detach(kernel, [undo.record]))
        except Exception as error:  # noqa: BLE001 - logged and tried again by the caller
            return error
        return None

    def _detach(self, kernel: Kernel, records: Iterable[Record]) -> None:
        """In the worker: everything of one type at once."""
        failpoints.at("undo.unwire")
        wirings: dict[NetworkType, list[Wiring]] = {}
        for record in records:
            for wiring in record.wirings:
                wirings.setdefault(wiring.type, []).append(wiring)
        for kind, together in wirings.items():
            self._tools.drivers(kind).detach(kernel, together)

    def _later(self, undo: Undo, error: BaseException) -> None:
        delay = undo.backoff.next()
        log.error(
            "an undo failed and will be tried again",
            attachment=str(undo.record.key),
            seconds=round(delay, 1),
            error=str(error),
            **undo.asked,
        )

        def again() -> None:
            self._queue.append(undo)
            self._wake.set()

        asyncio.get_running_loop().call_later(delay, again)

    async def _finish(self, undo: Undo) -> None:
        with structlog.contextvars.bound_contextvars(**undo.asked):
            try:
                await self._end(undo)
            except Exception as error:
                log.error("an undo failed unexpectedly", attachment=str(undo.record.key), exc_info=error)
                self._later(undo, error)

    async def _end(self, undo: Undo) -> None:
        release = asyncio.create_task(self._release(undo))
        try:
            await self._delegates(undo)
            await failpoints.reach("undo.after-delegates")
            _resolve(undo.clean)
            await release
            await failpoints.reach("undo.before-drop")
            await self._drop(undo)
        finally:
            release.cancel()
        _resolve(undo.gone)
        self._pending.pop(undo.record.key, None)
        self._tools.changed(replace(undo.record, state=State.DETACHING))
        log.info("detached", attachment=str(undo.record.key))

    async def _delegates(self, undo: Undo) -> None:
        record = undo.record
        if not record.delegations:
            _resolve(undo.told)
            return
        around = Surroundings(record.key, await self._live_netns(record), record.args, record.path)
        while True:
            try:
                await self._tools.delegates.delete(record.delegations, around, record.result)
            except (KnitterError, OSError) as error:
                record = undo.record = replace(record, attempts=record.attempts + 1)
                undo.hurry.clear()
                if not undo.told.done():
                    undo.told.set_result(_known(error))
                if record.attempts >= MAX_ATTEMPTS:
                    log.error("a delegate's DEL failed for the last time", attachment=str(record.key), error=str(error))
                    return
                log.warning("a delegate's DEL failed", attachment=str(record.key), attempt=record.attempts, error=str(error))
                await self._remember(record)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(undo.hurry.wait(), undo.backoff.next())
            else:
                _resolve(undo.told)
                return

    async def _live_netns(self, record: Record) -> str:
        """The path, if it still is the namespace that was recorded; a delegate must not enter another."""

        if not record.netns:
            return ""
        alive = await cookie_at(self._tools, record.netns) == record.cookie
        return record.netns if alive else ""

    async def _release(self, undo: Undo) -> None:
        record = undo.record
        if not record.port_set or undo.released:
            return
        await failpoints.reach("undo.before-release")
        owner = convert.owner_from_proto(types_pb2.PortSet.FromString(record.port_set).owner)
        back = Return(
            owner,
            container_id=record.key.container_id,
            unbind_only=isinstance(owner, PodOwner),
            request_id=undo.asked.get("request_id", ""),
        )
        backoff = Backoff(first=0.5, most=30.0)
        while True:
            try:
                await self._tools.manager.release(back)
                undo.released = True
                break
            except KnitterError as error:
                if error.reason == "SHUTTING_DOWN":
                    await asyncio.Event().wait()  # the journal keeps it for the next start
                log.error("the manager does not take a set back", owner=owner.key, reason=error.reason, error=error.message)
                await backoff.wait()
        await failpoints.reach("undo.after-release")

    async def _remember(self, record: Record) -> None:
        if record.key in self._tools.journal.records:
            try:
                await self._tools.journal.put(record)
            except KnitterError as error:
                log.error("the journal does not take an attempt", attachment=str(record.key), error=error.message)

    async def _drop(self, undo: Undo) -> None:
        while self._tools.journal.may_hold(undo.record.key):
            try:
                await self._tools.journal.drop([undo.record.key])
            except KnitterError as error:
                log.error("the journal does not delete a row", attachment=str(undo.record.key), error=error.message)
                await undo.backoff.wait()


def _known(error: KnitterError | OSError) -> KnitterError:
    return error if isinstance(error, KnitterError) else Internal("DELEGATE_FAILED", f"a delegate cannot be run: {error}")


def _resolve(future: "asyncio.Future[None] | asyncio.Future[KnitterError | None]") -> None:
    if not future.done():
        future.set_result(None)
