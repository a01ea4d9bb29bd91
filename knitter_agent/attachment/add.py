"""ADD as a transaction on the node.

    make room → allocate the port set ┐
                open the namespace    ┴→ plan (→ journal: intent → delegates) → journal: intent → drivers → journal: done → answer

Until the journal has the intent nothing is made; after it, whatever ends the ADD but its success (a refusal, a deadline, a caller
that is gone, a crash) ends with an undo of the whole intent. From the intent to done all is one piece of work of the kernel's
thread. Delegates come before that, with an intent of their own that is synced, as done then is: what they make may outlive the
boot.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from knitter_agent.attachment.background import ended
from knitter_agent.attachment.delegates import Surroundings
from knitter_agent.attachment.intent import allocation_of
from knitter_agent.attachment.remove import Remover
from knitter_agent.attachment.sandbox import cookie_at
from knitter_agent.attachment.tools import Tools
from knitter_agent.attachment.undo import Undoer
from knitter_agent.cni import Call
from knitter_agent.cni.result import of_port, read, written
from knitter_agent.drivers import HostInterface, settle_defaults
from knitter_agent.manager_client import Granted
from knitter_agent.netlink import Kernel, Namespace
from knitter_agent.record import Delegation, Key, Record, State
from knitter_common import failpoints
from knitter_common.errors import Exists, Unavailable
from knitter_common.model import Port
from knitter_common.steps import Step

T = TypeVar("T")

AFTERWARDS = 0.005  # seconds after an ADD's answer for what can wait: the plugin, woken by the answer, shall find a processor

log = structlog.get_logger()


class Adder:
    """Carries ADDs out. `prevResult` is passed through; the journal knows of it only what Knitter added.

    `untold` are attachments whose ADD is done and whose answer is on its way: they are not ones that nobody was told of.
    """

    def __init__(self, tools: Tools, undoer: Undoer, remover: Remover) -> None:
        self._tools = tools
        self._undoer = undoer
        self._remover = remover
        self.untold: set[Key] = set()

    async def add(self, call: Call) -> Mapping[str, Any]:
        """The result in the call's version. Raises KnitterError; then nothing is left of the attempt, or its undo is under way."""
        key = Key(call.conf.name, call.container_id, call.interface)
        async with self._tools.locks.hold(f"id/{call.container_id}", f"netns/{call.netns}"):
            await self._make_room(call, key)
            return await self._attach(call, key)

    async def _make_room(self, call: Call, key: Key) -> None:
        """Waits for undos in the way. Raises Exists(CNI_INTERFACE_EXISTS) for an attachment that lives and was answered."""
        record = self._tools.journal.records.get(key)
        if record is not None and key not in self._undoer.pending:
            told = record.state is State.ATTACHED and (record.answered or key in self.untold)
            if told and await cookie_at(self._tools, record.netns) == record.cookie:
                text = f"CNI_IFNAME {key.interface!r}: container {key.container_id} is attached to {key.network} with it already"
                raise Exists("CNI_INTERFACE_EXISTS", text, interface=key.interface)
            log.warning("an attachment nobody was told of, or whose namespace is gone, gives way", attachment=str(key))
            await self._remover.detach([record])
        await self._undoer.settled(call.container_id, call.netns)
        try:
            async with asyncio.timeout(self._tools.patience):
                await self._undoer.finished(key)
        except TimeoutError as error:
            text = f"the set of {key} before this one is not given back yet: no manager has acknowledged it"
            raise Unavailable("MANAGER_UNAVAILABLE", text) from error

    async def _attach(self, call: Call, key: Key) -> Mapping[str, Any]:
        async with AsyncExitStack() as always, AsyncExitStack() as undo:
            delegations = _delegations(call)
            self._tools.delegates.require(delegations, call.path)
            opening = self._tools.worker.run(lambda _: self._tools.open_namespace(call.netns)).hold()
            always.push_async_callback(_closed, opening)
            record = Record(
                key,
                State.ATTACHING,
                call.netns,
                0,
                self._tools.clock(),
                args=call.arguments,
                path=call.path,
                delegations=delegations,
            )
            undoing = await undo.enter_async_context(_Undoing(self._undoer, record))
            with _Unless(opening):
                granted = await self._allocate(call, key, undoing)
            sandbox = await opening
            await self._undoer.settled(call.container_id, call.netns, sandbox.cookie)  # it may have had another path
            ports = settle_defaults(granted.ports) if granted else ()
            undoing.record = self._planned(undoing.record, ports, sandbox)
            record = await self._carry_out(call, undoing, ports, sandbox)
            undo.pop_all()
            self.untold.add(key)
        asyncio.get_running_loop().call_later(AFTERWARDS, self._tell, record)
        return self._answer(call, record)

    def _tell(self, record: Record) -> None:
        """That it is there, if it still is: its end may have been told already."""
        now = self._tools.journal.records.get(record.key)
        if now is not None and now.state is State.ATTACHED and now.time == record.time:
            self._tools.changed(now)

    async def _allocate(self, call: Call, key: Key, undoing: "_Undoing") -> Granted | None:
        allocation = allocation_of(call, key, self._tools.node, self._tools.default_network, self._tools.clock())
        if allocation is None:
            return None
        await failpoints.reach("add.before-allocate")
        granted = await self._tools.manager.allocate(allocation, self._tools.patience)
        undoing.record = replace(undoing.record, port_set=granted.encoded)
        await failpoints.reach("add.after-allocate")
        return granted

    def _planned(self, record: Record, ports: Sequence[Port], sandbox: Namespace) -> Record:
        wirings = tuple(self._tools.drivers(port.type).plan(port, str(record.key)) for port in ports)
        return replace(record, cookie=sandbox.cookie, wirings=wirings)

    async def _carry_out(self, call: Call, undoing: "_Undoing", ports: Sequence[Port], sandbox: Namespace) -> Record:
        """The record that is done. What delegates make may outlive the boot, so that their intent does, and what comes of it."""
        journal, record = self._tools.journal, undoing.record
        if record.delegations:
            await undoing.carry(journal.put(record))
            around = Surroundings(record.key, record.netns, record.args, record.path)
            result = await self._tools.delegates.add(record.delegations, around)
            undoing.record = replace(record, result=result)
            await failpoints.reach("add.after-delegates")
        journal.expect(undoing.record)
        try:
            done = await undoing.carry(self._tools.worker.run(lambda kernel: self._make(kernel, call, undoing, ports, sandbox)))
        except Exists:
            await undoing.carry(journal.put(undoing.record))
            raise
        journal.wrote(done)
        if record.delegations:
            await undoing.carry(journal.sync())
        return done

    def _make(self, kernel: Kernel, call: Call, undoing: "_Undoing", ports: Sequence[Port], sandbox: Namespace) -> Record:
        """In the worker: everything from the intent to done, whether or not somebody still waits for it."""
        journal = self._tools.journal
        failpoints.at("add.before-intent")
        journal.write(undoing.record)
        failpoints.at("add.after-intent")
        hosts = self._wire(kernel, undoing, sandbox)
        failpoints.at("add.before-done")
        result = undoing.record.result if call.conf.prev_result is None else call.conf.prev_result
        if result is None:
            result = _result(call, ports, hosts)
        undoing.record = done = replace(undoing.record, state=State.ATTACHED, result=result)
        journal.write(done)
        failpoints.at("add.after-done")
        return done

    def _wire(self, kernel: Kernel, undoing: "_Undoing", sandbox: Namespace) -> Sequence[Sequence[HostInterface]]:
        """The drivers, in the order of the ports. Where an interface exists, that one and the rest are not ours to undo."""
        record = undoing.record
        hosts: list[Sequence[HostInterface]] = []
        for wiring in record.wirings:
            failpoints.at("add.wire")
            try:
                hosts.append(self._tools.drivers(wiring.type).attach(kernel, sandbox, wiring))
            except Exists:
                undoing.record = replace(record, wirings=record.wirings[: len(hosts)])
                raise
        failpoints.at("add.wired")
        return hosts

    def _answer(self, call: Call, record: Record) -> Mapping[str, Any]:
        result = record.result or {}
        if result.get("cniVersion") == call.conf.version:
            return result
        return written(read(result, call.conf.version), call.conf.version)


class _Undoing:
    """The way back of one ADD: on any failure its record is handed to the undoer, and is undone before the failure is told.

    Its steps are carried out to their end before they are undone. A caller that is gone waits for nothing, the undo goes on.
    """

    def __init__(self, undoer: Undoer, record: Record) -> None:
        self._undoer = undoer
        self.record = record
        self._step: asyncio.Future[Any] | None = None

    async def carry(self, step: Step[T]) -> T:
        """What a step of the kernel worker or the journal returns or raises; such a step cannot be called off in the middle."""
        self._step = step.hold()
        return await step

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Undoes after a failure."""
        if error is None or not (self.record.port_set or self.record.cookie):
            return
        try:
            if self._step is not None:
                await ended(self._step)  # microseconds to milliseconds: the kernel's or the disk's own time
            if self.record.state is State.ATTACHED:  # the disk may have it as done
                marking = asyncio.ensure_future(self._undoer.marked(self.record))
                await ended(marking)
                self.record = marking.result()
        finally:
            undo = self._undoer.submit(self.record)
        if not isinstance(error, asyncio.CancelledError):
            await asyncio.shield(undo.told)  # the kernel is clean, and delegates were told once


class _Unless:
    """What is awaited inside is given up when `work` fails; then that failure is raised in its place. As asyncio.timeout works."""

    def __init__(self, work: "asyncio.Future[Any]") -> None:
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._failed = False

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task()
        assert task is not None
        self._cancelling = task.cancelling()
        self._work.add_done_callback(self._look)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._work.remove_done_callback(self._look)
        task, self._task = self._task, None
        if self._failed and task is not None and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            self._work.result()  # raises

    def _look(self, work: "asyncio.Future[Any]") -> None:
        if self._task is not None and work.exception() is not None:
            self._failed = True
            self._task.cancel()


async def _closed(opening: "asyncio.Future[Namespace]") -> None:
    """Closes the namespace once it has been opened; a failure to open was told where it was awaited."""
    try:
        await ended(opening)  # it is at most in the kernel, for 0.2 ms
    finally:
        if not opening.cancelled() and opening.exception() is None:
            opening.result().close()


def _delegations(call: Call) -> tuple[Delegation, ...]:
    """A primary interface that exists (prevResult) needs no delegate."""
    if call.conf.prev_result is not None:
        return ()
    return tuple(Delegation(conf, call.interface) for conf in call.conf.delegates)


def _result(call: Call, ports: Sequence[Port], hosts: Sequence[Sequence[HostInterface]]) -> Mapping[str, Any]:
    for port, host in zip(ports, hosts, strict=True):
        if port.interface == call.interface:
            return of_port(port, [(one.name, one.mac) for one in host], call.netns, call.conf.dns, port.mtu)
    return {"interfaces": [], "ips": [], "routes": [], "dns": {}}
