"""knitter-agent: wires the parts of one node's agent, in the order in which they may be trusted.

socket's lock → journal → recovery → DEL queue → (manager, monitor: begun, not awaited) → serving → marker beside the socket
"""

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path

import structlog

from knitter.v1 import agent_pb2_grpc
from knitter_agent.attachment import Attachments, Delegates, Follower, Tools
from knitter_agent.config import AgentSettings
from knitter_agent.delqueue import DelQueue
from knitter_agent.journal import BOOT_ID, Journal, open_journal
from knitter_agent.liveness import Liveness
from knitter_agent.manager_client import ManagerClient
from knitter_agent.netlink import Kernel
from knitter_agent.reconcile import Reconciler
from knitter_agent.record import Record, State
from knitter_agent.service import SERVICE, AgentServicer, Bounds
from knitter_agent.watch import Watch
from knitter_agent.worker import KernelWorker
from knitter_common.managers import Managers, Peers
from knitter_common.model import Node
from knitter_common.serve import GrpcServer, run
from knitter_common.version import __version__

MARKER = "served"  # beside the socket: holds the boot id in which the agent has served

log = structlog.get_logger()


class Agent:
    """The daemon (knitter_common.serve.Daemon)."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._server = GrpcServer(settings.listen, settings.server, [SERVICE])
        self._journal: Journal | None = None
        self._workers: tuple[KernelWorker, ...] = ()
        self._manager: ManagerClient | None = None
        self._attachments: Attachments | None = None
        self._queue: DelQueue | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> str:
        """Recovers, then serves."""
        settings, boot_id = self._settings, BOOT_ID.read_text(encoding="ascii").strip()
        self._server.take()
        self._journal = journal = open_journal(Path(settings.state) / "journal.db")
        self._workers = worker, remover = KernelWorker(Kernel()), KernelWorker(Kernel(), "remover")
        node = Node(settings.node_name, settings.underlay_address, settings.labels, __version__)
        self._manager = manager = ManagerClient(
            Managers(settings.managers), lambda managers: reconciler(managers), node=node.name, in_use=lambda: reconciler.in_use()
        )
        watch = Watch(node.name, Peers(settings.monitors), journal, settings.default_network) if settings.monitors else None
        tools = Tools(
            node.name,
            journal,
            worker,
            manager,
            Delegates(settings.delegate_timeout),
            settings.manager_patience,
            settings.default_network,
            changed=lambda record: changed(record),
            second_worker=remover,
        )
        follower = Follower(tools, watch.network) if watch else None

        def changed(record: Record) -> None:
            if watch is not None:
                watch.changed(record)
            if follower is not None and record.state is State.ATTACHED:
                follower.attached(record)

        self._attachments = attachments = Attachments(tools)
        reconciler = Reconciler(node, tools, attachments, boot_id)
        await attachments.start(boot_id)
        self._queue = DelQueue(Path(settings.state) / "delq", attachments, boot_id)
        await self._queue.start()
        self._begin(self._queue.follow())
        if settings.liveness_interval:
            self._begin(Liveness(tools, attachments, settings.liveness_interval, settings.liveness_grace).run())
        manager.start()
        if watch is not None and follower is not None:
            watch.network_pushed = follower.pushed
            self._begin(follower.run())
            self._begin(watch.run())
        servicer = AgentServicer(attachments, journal, self._trouble, Bounds(settings.max_concurrent_adds))
        agent_pb2_grpc.add_AgentServiceServicer_to_server(servicer, self._server.grpc)
        address = await self._server.start()
        _mark(Path(address.removeprefix("unix:")).with_name(MARKER), boot_id, settings.strict_status)
        await self._server.serving()
        return address

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _trouble(self) -> str:
        if self._settings.strict_status and not (self._manager and self._manager.connected):
            return "no manager is connected, and the agent's setting strictStatus asks for one"
        return ""

    async def wait(self) -> None:
        """Until a part fails that the agent cannot do without."""
        assert self._attachments is not None
        ends = [asyncio.ensure_future(self._server.wait()), self._attachments.undoer.broken, *self._tasks]
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()

    async def stop(self) -> None:
        """Finishes the calls under way; the pods keep their networks."""
        await self._server.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._queue is not None:
            self._queue.close()
        if self._attachments is not None:
            await self._attachments.close()
        if self._manager is not None:
            await self._manager.close()
        for worker in self._workers:
            await worker.close()
        if self._journal is not None:
            await self._journal.close()


def _mark(path: Path, boot_id: str, strict: bool) -> None:
    """Tells the plugin's STATUS that the agent has served in this boot, and whether it must be there all the time."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(boot_id + ("\nstrict\n" if strict else "\n"), encoding="ascii")
    fresh.replace(path)


def main() -> int:
    """The console script."""
    return run("knitter-agent", AgentSettings, Agent)


if __name__ == "__main__":
    sys.exit(main())
