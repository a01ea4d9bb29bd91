"""The manager as a daemon: opens the store, brings the state up, serves reads, writes when it is its turn, and hands over at
its end."""

import asyncio
import secrets
import time
from collections.abc import Coroutine
from typing import Any

import structlog

from knitter.v1 import manager_pb2_grpc
from knitter_common.serve import GrpcServer
from knitter_manager.allocation.jobs import Jobs
from knitter_manager.allocation.planner import Planner
from knitter_manager.allocation.reconcile import Reconciler
from knitter_manager.allocation.sets import PortSets
from knitter_manager.committer import Committer
from knitter_manager.config import ManagerSettings
from knitter_manager.feed import Feed
from knitter_manager.objects.book import Book
from knitter_manager.objects.networks import Networks
from knitter_manager.objects.nodes import Nodes
from knitter_manager.role import Role
from knitter_manager.service.manager import Domain, ManagerService
from knitter_manager.state import Cluster
from knitter_manager.store import Store, open_store
from knitter_manager.sweeper import Sweeper

log = structlog.get_logger()

SERVICE = "knitter.v1.ManagerService"


def new_id() -> str:
    """12 hexadecimal digits."""
    return secrets.token_hex(6)


class ManagerDaemon:
    """See knitter_common.serve.Daemon."""

    def __init__(self, settings: ManagerSettings, store: Store | None = None) -> None:
        """`store` is given by tests; else it is the one that the settings name."""
        self._settings, self._store = settings, store
        self._server = GrpcServer(settings.listen, settings.server, [SERVICE])
        self._tasks: list[asyncio.Task[Any]] = []
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._role: Role | None = None
        self._committer: Committer | None = None
        self._jobs: Jobs | None = None

    async def start(self) -> str:
        """Serves reads once the state is loaded. Returns when this manager writes, or when another one does."""
        store = self._store = self._store or await open_store(self._settings.store)
        cluster = Cluster(self._settings.default_network)
        begin = time.monotonic()
        snapshot = await store.load()
        await cluster.load(snapshot.epoch, snapshot.revision, snapshot.batches, begin)
        log.info("loaded", seconds=round(time.monotonic() - begin, 3), revision=cluster.revision, sets=len(cluster.sets))
        role = self._wire(store, cluster)
        address = await self._server.start()
        role.name = self._settings.name or address
        lead = self._spawn(role.lead())
        await self._settled(store, role, lead)
        await self._server.serving()
        return address

    def _wire(self, store: Store, cluster: Cluster) -> Role:
        clock, settings = time.monotonic, self._settings
        committer = self._committer = Committer(store, cluster, clock)
        feed = Feed(store, cluster, clock)
        role = self._role = Role(store, cluster, committer, feed, clock)
        committer.lost = role.lost
        planner = Planner(cluster, settings.limits, clock, time.time_ns)
        jobs = self._jobs = Jobs(store, cluster, committer, clock)
        sets = PortSets(cluster, planner, jobs, role.may_write, role.allowed)
        book = Book(cluster, committer, role.may_write, clock, time.time_ns)
        nodes = Nodes(book, lambda name: reconciler.free(name))
        reconciler = Reconciler(cluster, jobs, sets, nodes.register, role.may_write)
        networks = Networks(book, new_id, planner.quota_of)
        domain = Domain(cluster, store, feed, sets, networks, nodes, reconciler, settings.heartbeat)
        manager_pb2_grpc.add_ManagerServiceServicer_to_server(ManagerService(domain), self._server.grpc)  # type: ignore[abstract]
        self._spawn(feed.follow())
        self._spawn(Sweeper(cluster, committer, role.writing, settings.rest, clock).run())
        return role

    async def _settled(self, store: Store, role: Role, lead: "asyncio.Task[Any]") -> None:
        """Until it is clear who writes."""
        writing = self._spawn(role.writing.wait())
        while not writing.done():
            if await store.writer() not in ("", role.name):
                return
            await asyncio.wait((writing, lead), timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
            if lead.done():
                lead.result()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def wait(self) -> None:
        """Until something breaks that only a new start can mend."""
        await asyncio.shield(self._failed)

    async def stop(self) -> None:
        """Answers what is under way, then gives the writer's key up."""
        if self._role is not None:
            self._role.end()
        await self._server.stop()
        if self._committer is not None and self._jobs is not None:
            await self._jobs.close()
            await self._committer.idle()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._store is not None:
            await self._store.close()
        if self._failed.done() and not self._failed.cancelled():
            self._failed.exception()
