"""knitter-monitor: applies what is declared, and pushes to every node what that node needs. Wiring only."""

import asyncio
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import structlog

from knitter.v1 import monitor_pb2_grpc
from knitter_common.managers import Managers
from knitter_common.serve import GrpcServer, run
from knitter_monitor.config import FolderSettings, MonitorSettings
from knitter_monitor.connections import Connections
from knitter_monitor.feed import Feed
from knitter_monitor.hub.hub import Hub
from knitter_monitor.service import SERVICE, MonitorService
from knitter_monitor.sources.applying import Applier
from knitter_monitor.sources.document import parse
from knitter_monitor.sources.files import FolderSource
from knitter_monitor.sources.reading import FolderReader

SWEEP = 30.0  # seconds between looks for deletions that are old enough to be forgotten

log = structlog.get_logger()


class Monitor:
    """The daemon."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._server = GrpcServer(settings.listen, settings.server, [SERVICE])
        self._reading, self._writing = Managers(settings.managers), Managers(settings.managers)
        self._hub = Hub(settings.push)
        self._feed = Feed(self._reading, self._hub, settings.feed_silence, self._news)
        self._sources = [self._source(folder, settings) for folder in sorted(settings.folders, key=lambda folder: folder.name)]
        self._synced = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        service = MonitorService(
            self._hub,
            Connections(time.time_ns),
            lambda: [source.report for source in self._sources],
            settings.push,
            time.time_ns,
        )
        monitor_pb2_grpc.add_MonitorServiceServicer_to_server(service, self._server.grpc)

    def _source(self, folder: FolderSettings, settings: MonitorSettings) -> FolderSource:
        reader = FolderReader(Path(folder.path), parse)
        return FolderSource(reader, Applier(self._writing, f"files:{folder.name}"), settings.files)

    def _news(self, anew: bool) -> None:
        if self._hub.ready:
            self._synced.set()
        for source in self._sources:
            source.nudge(anew=anew)

    async def start(self) -> str:
        """Serves once the manager's state is known; folders are applied beside that."""
        address = await self._server.start()
        self._begin(self._feed.run())
        for source in self._sources:
            self._begin(source.run())
        waiting = asyncio.ensure_future(self._synced.wait())
        await asyncio.wait((waiting, *self._tasks), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._raise_ended()
        self._begin(self._sweep())
        await self._server.serving()
        return address

    async def wait(self) -> None:
        """Until something ends that never should."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        self._raise_ended()

    async def stop(self) -> None:
        """Cuts every Watch with SHUTTING_DOWN, so that nodes turn to another monitor at once."""
        await self._server.not_serving()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._hub.close()
        await self._server.stop()
        await asyncio.gather(self._reading.close(), self._writing.close())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self._hub.sweep()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _raise_ended(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    return run("knitter-monitor", MonitorSettings, Monitor, argv)


if __name__ == "__main__":
    sys.exit(main())
