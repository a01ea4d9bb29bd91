"""MonitorService: the hub, the connections and the sources over gRPC. Thin: what a Watch sends is decided in hub/."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from knitter.v1 import monitor_pb2 as pb
from knitter.v1 import monitor_pb2_grpc
from knitter_common.errors import Unavailable
from knitter_common.names import dns_subdomain, shown
from knitter_common.objects.fields import checked, refuse
from knitter_common.serve.pages import after_token, page
from knitter_monitor.config import PushSettings
from knitter_monitor.connections import Connections
from knitter_monitor.hub.hub import Hub
from knitter_monitor.hub.watcher import Watcher
from knitter_monitor.sources.report import Report

SERVICE = "knitter.v1.MonitorService"

log = structlog.get_logger()


class MonitorService(monitor_pb2_grpc.MonitorServiceServicer):
    """One for each monitor process. `now` gives nanoseconds since 1970."""

    def __init__(
        self,
        hub: Hub,
        connections: Connections,
        reports: Callable[[], list[Report]],
        settings: PushSettings,
        now: Callable[[], int],
    ) -> None:
        self._hub, self._connections, self._reports, self._settings, self._now = hub, connections, reports, settings, now

    async def Watch(
        self, request: pb.WatchRequest, context: "grpc.aio.ServicerContext[pb.WatchRequest, pb.WatchResponse]"
    ) -> AsyncIterator[pb.WatchResponse]:
        """See monitor.proto. Raises Unavailable: REPLICA_BEHIND, WATCH_TAKEN_OVER, WATCH_TOO_SLOW, SHUTTING_DOWN."""
        _require_node(request.node)
        positions = _positions("positions", request.positions)
        await self._hub.catch_up(request.epoch, max(positions.values(), default=0), self._settings.behind_wait)
        watcher = self._hub.connect(request.node, request.epoch, positions)
        self._connections.opened(request, watcher)
        bound = log.bind(node=request.node, peer=context.peer())
        bound.info("a node watches", version=request.agent_version, resumes=len(positions))
        try:
            await self._send(watcher, context)
        except Unavailable as error:
            bound.warning("a Watch was cut", reason=error.reason, error=error.message)
            raise
        finally:
            self._connections.closed(watcher)
            if self._hub.disconnect(watcher):
                bound.info("a node's Watch ended")
        yield pb.WatchResponse()  # never reached: _send ends by an error; it makes this a generator, as grpc.aio wants it

    async def _send(self, watcher: Watcher, context: "grpc.aio.ServicerContext[pb.WatchRequest, pb.WatchResponse]") -> None:
        """Sends what there is, and heartbeats in silence, until the Watch is cut or the caller gone."""
        while True:
            message = watcher.next(self._hub.board)
            if message is None:
                try:
                    async with asyncio.timeout(self._settings.heartbeat):
                        await watcher.wait()
                    continue
                except TimeoutError:
                    message = pb.WatchResponse(heartbeat=pb.WatchHeartbeat(time=self._time()))
            try:
                async with asyncio.timeout(self._settings.slow_after):
                    await context.write(message)
            except TimeoutError as error:
                text = f"node {watcher.node} has not taken a message for {self._settings.slow_after:g} s"
                raise Unavailable("WATCH_TOO_SLOW", text + "; resume at the last position", node=watcher.node) from error

    async def ReportStatus(self, request: pb.ReportStatusRequest, context: Any) -> pb.ReportStatusResponse:
        """Takes a node's report."""
        _require_node(request.node)
        applied = _positions("applied", request.applied)
        self._connections.reported(request.node, applied, request.rejections)
        for rejection in request.rejections:
            log.warning(
                "a node could not use an object",
                node=request.node,
                key=rejection.key,
                revision=rejection.revision,
                reason=rejection.reason,
                error=rejection.message,
            )
        return pb.ReportStatusResponse()

    async def ListConnections(self, request: pb.ListConnectionsRequest, context: Any) -> pb.ListConnectionsResponse:
        """A page of who is connected, and how far."""
        listed = self._connections.listed(after_token(request.page_token, "/" not in request.page_token))
        found, token = page(listed, request.page_size, lambda message: message.ByteSize())
        return pb.ListConnectionsResponse(connections=found, next_page_token=token)

    async def ListSources(self, request: pb.ListSourcesRequest, context: Any) -> pb.ListSourcesResponse:
        """Where declarations come from, and what is wrong with them."""
        return pb.ListSourcesResponse(sources=[report.to_proto() for report in self._reports()])

    def _time(self) -> Timestamp:
        time = Timestamp()
        time.FromNanoseconds(self._now())
        return time


def _require_node(node: str) -> None:
    checked("node", dns_subdomain, node)


def _positions(field: str, positions: Iterable[pb.TopicPosition]) -> dict[str, int]:
    """By topic. Topics that this release does not know are told as dropped: a newer node may know more."""
    found: dict[str, int] = {}
    for at, position in enumerate(positions):
        if not position.topic or position.topic in found:
            what = f"{shown(position.topic)} is there already; send each topic once" if position.topic else "is empty; say which"
            refuse(f"{field}[{at}].topic", what, position.topic)
        if position.revision < 0:
            said = f"{position.revision} is no revision; send that of the last Synced, or 0"
            refuse(f"{field}[{at}].revision", said, position.revision)
        found[position.topic] = position.revision
    return found
