"""A manager without its server: the state, what changes it, and what runs beside. Wired here, so that tests need no process."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from knitter_common.model import NetworkType
from knitter_common.objects.validate import type_name
from knitter_manager.allocation.jobs import Jobs, store_unavailable
from knitter_manager.allocation.planner import Planner
from knitter_manager.allocation.reconcile import Reconciler
from knitter_manager.allocation.sets import PortSets
from knitter_manager.check.checker import Checker
from knitter_manager.check.journals import Journals
from knitter_manager.check.repair import Repairer
from knitter_manager.committer import Committer
from knitter_manager.config import ManagerSettings
from knitter_manager.feed import Feed
from knitter_manager.objects.adoption import Adoption
from knitter_manager.objects.book import Book
from knitter_manager.objects.claims import Claims
from knitter_manager.objects.groups import Groups
from knitter_manager.objects.networks import Networks
from knitter_manager.objects.nodes import Nodes
from knitter_manager.objects.segments import Segments
from knitter_manager.objects.tenants import Tenants, Undertaker
from knitter_manager.recovery import Recovery
from knitter_manager.restore import Restore
from knitter_manager.role import Role
from knitter_manager.standing import Standing
from knitter_manager.state import Cluster
from knitter_manager.store import Store
from knitter_manager.store.protocol import StoreDown
from knitter_manager.sweeper import Sweeper
from knitter_manager.usage import Addresses

log = structlog.get_logger()


def new_id() -> str:
    """12 hexadecimal digits."""
    return secrets.token_hex(6)


class Core:
    """`clock` is monotonic, in seconds; `wall` is the time of day in nanoseconds since 1970. Belongs to the running event loop."""

    def __init__(
        self,
        settings: ManagerSettings,
        store: Store,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self.settings, self.store, self.clock, self.wall = settings, store, clock, wall
        self.cluster = Cluster(settings.default_network)
        self.committer = Committer(store, self.cluster, clock)
        self.standing = Standing(self.cluster)
        self.feed = Feed(store, self.cluster, self.standing, clock, lambda: Cluster(settings.default_network))
        self.role = Role(store, self.cluster, self.committer, self.feed, self.standing, clock)
        self.committer.lost = self.role.lost
        self.recovery = Recovery(store, self.cluster, self.feed, self.standing, self.role)
        self.restore = Restore(
            store, self.cluster, self.committer, self.feed, self.standing, self.role, self.recovery, self.feed.empty
        )
        self.role.resume = self._resume
        self.feed.new_epoch = self.role.begin_anew
        self.feed.going_back = self.recovery.going_back
        self.committer.went_back = self.feed.anew
        self.planner = Planner(self.cluster, settings.limits, clock, wall)
        self.jobs = Jobs(store, self.cluster, self.committer, clock)
        may_write, allowed = self.role.may_write, self.role.allowed
        self.sets = PortSets(self.cluster, self.planner, self.jobs, may_write, allowed, self._sticky_until)
        book = Book(self.cluster, self.committer, may_write, clock, wall, self.recovery.in_step)
        self.nodes = Nodes(book, lambda name: self.reconciler.free(name))
        self.reconciler = Reconciler(
            self.cluster, store, self.jobs, self.sets, self.nodes.register, self.nodes.acquit, may_write, self.recovery
        )
        segmentation = settings.segmentation
        self.segments = Segments(self.cluster, segmentation.vni, segmentation.vlans, settings.rest, wall)
        types = [one for one in NetworkType if type_name(one) in settings.allowed_types]
        self.networks = Networks(book, self.planner, self.segments, new_id, types)
        self.tenants = Tenants(book, self.planner.quota_of)
        self.groups = Groups(book, store, self.planner, new_id, clock, settings.rest)
        self.claims = Claims(book, store, self.planner)
        self.adoption = Adoption(book)
        self.addresses = Addresses(self.cluster, store)
        self.journals = Journals()
        self.checker = Checker(store, self.cluster, self.committer, self.feed, self.standing, self.journals)
        self.repairer = Repairer(store, self.cluster, self.committer, self.journals, may_write)
        self.undertaker = Undertaker(
            book, self.role.writing, self.sets, self.claims, self.groups, self.networks, settings.tenant_deletion_wait
        )
        self.sweeper = Sweeper(self.cluster, self.committer, self.sets, self.segments, settings.rest, clock, wall)
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[Any]] = []

    async def _resume(self) -> None:
        """Before this manager writes: what others have left half done, and what it has seen itself."""
        await self.restore.resume()
        await self.recovery.resume()

    def _sticky_until(self) -> int:
        ttl = self.settings.sticky_ttl
        return self.wall() + int(ttl * 1e9) if ttl else 0

    async def load(self) -> None:
        """Brings the state up from the store and follows its changes from then on. Raises Unavailable(STORE_UNAVAILABLE)."""
        begin = time.monotonic()
        try:
            await self.feed.load()
        except StoreDown as error:
            raise store_unavailable(error) from error
        seconds = round(time.monotonic() - begin, 3)
        log.info("loaded", seconds=seconds, revision=self.cluster.revision, sets=len(self.cluster.sets))
        self._spawn(self.feed.follow())
        self._spawn(self.sweeper.run(self.role.writing))
        self._spawn(self.undertaker.run())

    async def lead(self, name: str) -> None:
        """Writes whenever it can, under this name. Returns when this manager writes, or when another one does. Raises what broke
        meanwhile."""
        self.role.name = name
        lead, writing = self._spawn(self.role.lead()), self._spawn(self.role.writing.wait())
        while not writing.done():
            with contextlib.suppress(StoreDown):  # asked again
                if await self.store.writer() not in ("", name) and not self.standing.applying:
                    return
            await asyncio.wait((writing, lead, self.failed), timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
            if self.failed.done():
                self.failed.result()

    async def stop(self) -> None:
        """Lets what is under way end, then gives the writer's key up. Reads are still answered."""
        self.role.end()
        self.feed.wake()
        await self.jobs.close()
        await self.committer.idle()
        await self.abandon()

    async def abandon(self) -> None:
        """Ends at once, as if killed; who waits for what is under way is told that nobody knows."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.jobs.close()
        await self.store.close()
        await self.committer.idle()
        if self.failed.done() and not self.failed.cancelled():
            self.failed.exception()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)
