"""The push: one Watch to a monitor, found again when it breaks, and the reports back. Without any monitor the agent works as well.

After each connect the node reports every attachment it has; from then on what was attached and what ended, and how far each topic
has been applied. Reports are gathered for a moment: nothing waits for one, and a call for each change would cost an ADD a tenth of
its time.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import grpc
import structlog

from knitter.v1 import monitor_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter.v1.monitor_pb2_grpc import MonitorServiceStub
from knitter_agent.attachment.background import ended
from knitter_agent.journal import Journal
from knitter_agent.pushed import Pushed, Unusable
from knitter_agent.record import Record, State
from knitter_common.errors import Internal, KnitterError, Unavailable, from_rpc_error
from knitter_common.managers import Backoff, Peers
from knitter_common.model import Network
from knitter_common.version import __version__

if TYPE_CHECKING:
    from knitter.v1.monitor_pb2_grpc import MonitorServiceAsyncStub

_REPORT_TIMEOUT = 10.0  # seconds
_GATHER = 0.25  # seconds for which a report waits for more of its kind; longer than a burst of ADDs takes

log = structlog.get_logger()


class Watch:
    """Use from one event loop. `pushed` is what there is so far, over all connections; `network_pushed` is called with each network
    that is pushed."""

    def __init__(
        self, node: str, monitors: Peers, journal: Journal, default_network: str = "", backoff: Backoff | None = None
    ) -> None:
        self.pushed = Pushed()
        self.network_pushed: Callable[[Network], None] = lambda network: None
        self._node = node
        self._monitors = monitors
        self._journal = journal
        self._primary = pb.PrimaryInterface(default_network=default_network)
        self._backoff = backoff or Backoff()
        self._connected = False
        self._due = asyncio.Event()
        self._report = pb.ReportStatusRequest()
        self._changes: list[Record] = []

    def changed(self, record: Record) -> None:
        """An attachment is there, or is gone; told with the next report while a monitor is connected."""
        if not self._connected or not record.port_set:
            return
        self._changes.append(record)
        self._due.set()

    async def run(self) -> None:
        """Watches until cancelled."""
        try:
            while True:
                asked = self._monitors.current
                error = await self._watch_once()
                log.debug("the Watch ended", monitor=asked, reason=error.reason, error=error.message)
                if self._connected:
                    log.warning("the monitor's push broke", monitor=asked, reason=error.reason, error=error.message)
                self._connected = False
                self._monitors.turn(asked)
                await self._backoff.wait()
        finally:
            await self._monitors.close()

    async def _watch_once(self) -> KnitterError:
        """One Watch, to its end; returns why it ended."""
        stub: MonitorServiceAsyncStub = MonitorServiceStub(self._monitors.channel())
        positions = [pb.TopicPosition(topic=name, revision=revision) for name, revision in self.pushed.positions.items()]
        call = stub.Watch(
            pb.WatchRequest(
                node=self._node, agent_version=__version__, epoch=self.pushed.epoch, positions=positions, primary=self._primary
            )
        )
        reporting = asyncio.create_task(self._report_on(stub))
        try:
            async for message in call:
                if not self._connected:
                    self._begin()
                self._take(message)
        except grpc.aio.AioRpcError as failure:
            return from_rpc_error(failure)
        except Exception as failure:
            log.error("what a monitor pushed was not understood", exc_info=failure)  # a help, not a need: begun anew
            return Internal("INTERNAL", str(failure))
        finally:
            call.cancel()
            reporting.cancel()
            await ended(reporting)
            if not reporting.cancelled():
                reporting.result()  # a defect
        return Unavailable("MANAGER_UNAVAILABLE", "the monitor ended the Watch")

    def _begin(self) -> None:
        log.info("a monitor pushes to this node", monitor=self._monitors.current)
        self._connected = True
        self._backoff.reset()
        self._report, self._changes = pb.ReportStatusRequest(), []
        for record in self._journal.records.values():
            if record.state is State.ATTACHED:
                self.changed(record)

    def _take(self, message: pb.WatchResponse) -> None:
        for unusable in self.pushed.apply(message):
            log.warning(
                "what was pushed cannot be used", key=unusable.key, revision=unusable.revision, error=unusable.error.message
            )
            self._report.rejections.append(_rejection(unusable))
        for change in message.changes.changes:
            thing = self.pushed.find(f"network/{change.network.id}") if change.HasField("network") else None
            if isinstance(thing, Network):
                self.network_pushed(thing)
        if message.topic:
            self._due.set()

    def network(self, network_id: str) -> Network | None:
        """As it was pushed last."""
        thing = self.pushed.find(f"network/{network_id}")
        return thing if isinstance(thing, Network) else None

    async def _report_on(self, stub: "MonitorServiceAsyncStub") -> None:
        """Reports whatever is due, one report at a time."""
        while True:
            await self._due.wait()
            await asyncio.sleep(_GATHER)
            self._due.clear()
            report, self._report = self._report, pb.ReportStatusRequest()
            changes, self._changes = self._changes, []
            _tell(report, changes)
            report.node, report.epoch = self._node, self.pushed.epoch
            report.applied.extend(pb.TopicPosition(topic=name, revision=at) for name, at in self.pushed.positions.items())
            try:
                await stub.ReportStatus(report, timeout=_REPORT_TIMEOUT)
            except grpc.aio.AioRpcError as failure:
                log.debug("a report did not arrive; the next connection tells all", error=from_rpc_error(failure).message)


def _tell(report: pb.ReportStatusRequest, changes: Sequence[Record]) -> None:
    for record in changes:
        if record.state is State.ATTACHED:
            report.attached.append(_status(record))
        else:
            report.detached.append(types.PortSet.FromString(record.port_set).owner)


def _status(record: Record) -> pb.AttachmentStatus:
    port_set = types.PortSet.FromString(record.port_set)
    return pb.AttachmentStatus(owner=port_set.owner, container_id=record.key.container_id, ports=port_set.ports)


def _rejection(unusable: Unusable) -> pb.Rejection:
    return pb.Rejection(key=unusable.key, revision=unusable.revision, reason=unusable.error.reason, message=unusable.error.message)
