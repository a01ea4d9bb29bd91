"""Follows the store's changes: brings the state up to date with what others wrote, and tells subscribers.

What the newest commits mean to those outside is kept in a ring that all subscribers read, each at its own pace; one that falls
out of it reads the store's log, and where that is gone too it begins anew with a snapshot. Nothing is queued per subscriber.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from operator import itemgetter

import structlog

from knitter.v1 import types_pb2 as types
from knitter_common import convert
from knitter_manager import keys
from knitter_manager.standing import APPLYING, EPOCH, META, RESTORING, Standing, restore_of
from knitter_manager.state import Cluster
from knitter_manager.state.loading import WANTED
from knitter_manager.store.protocol import Commit, Compacted, Record, Store, StoreDown, WentBack, below

log = structlog.get_logger()

RING = 20_000  # commits and their records, together

_PAUSE = 0.05  # seconds after the first failure to follow the store; doubled each time, up to 2

_OBJECTS: dict[str, str] = {  # family of keys → field of Change
    "portset": "port_set",
    "network": "network",
    "tenant": "tenant",
    "group": "ip_group",
    "claim": "ip_claim",
    "node": "node",
}


class Feed:
    """One per manager. `clock` is monotonic, in seconds; `empty` makes an empty state, for loading anew."""

    def __init__(
        self, store: Store, cluster: Cluster, standing: Standing, clock: Callable[[], float], empty: Callable[[], Cluster]
    ) -> None:
        self._store, self._cluster, self._standing, self._clock, self.empty = store, cluster, standing, clock, empty
        self._ring: deque[Commit] = deque()
        self._weight = 0  # of what is in the ring
        self._news = asyncio.Event()
        self._stale = False  # the state must be loaded anew
        self._whole = 0  # the state was loaded at this revision; what the feed tells up to it again changes nothing
        self.between = False  # the store was between two states when it was loaded: only its standing is known
        self.new_epoch: Callable[[], None] = lambda: None  # called when the state is in another epoch than before
        self.going_back: Callable[[], None] = lambda: None  # called before a state is loaded in place of a newer one
        self._proofs = 0  # how often the store was proven to have gone back
        self._pause = _PAUSE
        self._reading: asyncio.Future[None] | None = None

    async def load(self) -> None:
        """Brings the state up from the store, in place of what it was. Raises StoreDown; then it is as before."""
        proofs = self._proofs
        mark = (await self._store.get([RESTORING])).get(RESTORING)
        between = mark is not None and restore_of(mark.value).get("phase") == APPLYING
        snapshot = await self._store.load((below(META),) if between else WANTED)
        loaded, newest = self.empty(), _Newest()
        await loaded.load(snapshot.epoch, snapshot.revision, newest.of(snapshot.batches), self._clock())
        loaded.revision = newest.revision
        self._standing.store_id = snapshot.epoch.rpartition(".")[0]
        epoch, self.between = self._cluster.epoch, between
        self._cluster.become(loaded)
        self._cluster.epoch = self._standing.epoch
        if epoch not in ("", self._cluster.epoch):
            self.new_epoch()
        self._whole = snapshot.revision
        self._forget()
        self._stale = proofs != self._proofs
        self.wake()

    def _forget(self) -> None:
        self._ring.clear()
        self._weight = 0

    async def follow(self) -> None:
        """Follows for ever. What the store has forgotten meanwhile is made up for by loading anew."""
        while True:
            try:
                while self._stale:
                    await self.load()
                    log.info("loaded anew", revision=self._cluster.revision, epoch=self._cluster.epoch)
                self._reading = asyncio.ensure_future(self._read())
                await self._reading
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not self._stale or task is None or task.cancelling():
                    raise
            except WentBack:
                self.anew()
            except Compacted as error:
                if error.oldest > self._whole:
                    log.warning("the store has forgotten what came next", error=str(error))
                    self._stale = True
                else:  # the state has it already; who resumes before it begins anew
                    self._cluster.revision = max(self._cluster.revision, error.oldest)
                    self._forget()
            except StoreDown as error:
                log.warning("the store's changes cannot be followed", error=str(error))
                await asyncio.sleep(self._pause)
                self._pause = min(self._pause * 2, 2.0)

    async def _read(self) -> None:
        """Until the state must be loaded anew."""
        async with aclosing(self._store.changes(self._cluster.revision)) as changes:  # type: ignore[type-var]
            async for commits in changes:
                self._pause = _PAUSE
                self._take(commits)
                if self._stale:
                    return

    def anew(self) -> None:
        """The store was proven to have gone back in time: what is known is loaded anew, whatever comes meanwhile."""
        self.going_back()
        self._proofs += 1
        self._stale = True
        if self._reading is not None:
            self._reading.cancel()

    def _take(self, commits: Sequence[Commit]) -> None:
        now = self._clock()
        for commit in commits:
            if commit.revision <= self._cluster.revision:
                continue
            between = self._standing.applying
            if between and RESTORING not in commit.puts and RESTORING not in commit.deletes:
                self._cluster.revision = commit.revision  # half of another state: what we know stays what was
                continue
            if between or EPOCH in commit.puts:  # in a new epoch nothing is sure that was known before
                self._stale = True
                return
            self._cluster.told(commit, now)
            self._remember(commit)
        self.wake()

    def _remember(self, commit: Commit) -> None:
        """The newest stays, however large."""
        shown = _shown(commit)
        self._ring.append(shown)
        self._weight += shown.weight
        while self._weight > RING and len(self._ring) > 1:
            self._weight -= self._ring.popleft().weight

    async def until(self, revision: int) -> None:
        """Until the state has everything up to that revision."""
        while self._stale or self._cluster.revision < revision:
            await self._news.wait()

    def behind(self, after: int) -> list[Commit] | None:
        """The commits after a revision, none when there is none; None when the ring does not reach back that far."""
        if after >= self._cluster.revision:
            return []
        if not self._ring or self._ring[0].revision > after + 1:
            return None
        if after < self._ring[0].revision:
            return list(self._ring)
        newest: list[Commit] = []
        for commit in reversed(self._ring):
            if commit.revision <= after:
                break
            newest.append(commit)
        newest.reverse()
        return newest

    async def news(self, within: float) -> bool:
        """Until there is something new, or `within` seconds are over; whether there is."""
        try:
            async with asyncio.timeout(within):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def wake(self) -> None:
        """Whoever waits for news looks again."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def log_since(self, after: int) -> AsyncIterator[Sequence[Commit]]:
        """What the store's log has between `after` and what the ring holds. Raises Compacted, StoreDown."""
        goal = self._ring[0].revision - 1 if self._ring else self._cluster.revision
        if after >= goal:
            return
        async with aclosing(self._store.changes(after)) as changes:  # type: ignore[type-var]
            async for commits in changes:
                yield commits
                if commits[-1].revision >= goal:
                    return


class _Newest:
    """The revision of the newest record that is loaded.

    It is that of a commit, as all that clients are told of; the snapshot's own may be one that others made in etcd, after which
    nobody can know whether something is still to come. What was only deleted since is told again.
    """

    def __init__(self) -> None:
        self.revision = 0

    async def of(self, batches: AsyncIterator[Sequence[Record]]) -> AsyncIterator[Sequence[Record]]:
        """The same batches."""
        async for batch in batches:
            self.revision = max(self.revision, max(map(itemgetter(2), batch), default=0))
            yield batch


def _shown(commit: Commit) -> Commit:
    """Without the records that nobody outside is told of, which are most."""
    puts = {key: value for key, value in commit.puts.items() if key.partition("/")[0] in _OBJECTS}
    return Commit(commit.revision, puts, tuple(key for key in commit.deletes if key.partition("/")[0] in _OBJECTS))


def changes_of(commit: Commit) -> Iterator[types.Change]:
    """What a commit means to those outside: objects as they are now, and tombstones."""
    for key in commit.deletes:
        family, _, rest = key.partition("/")
        if family == "portset":
            tombstone = types.Tombstone(key=key, owner=convert.owner_to_proto(keys.owner_of(rest)))
            yield types.Change(revision=commit.revision, deleted=tombstone)
        elif family in _OBJECTS:
            yield types.Change(revision=commit.revision, deleted=types.Tombstone(key=key))
    for key, value in commit.puts.items():
        field = _OBJECTS.get(key.partition("/")[0])
        if field is not None:
            change = types.Change(revision=commit.revision)
            message = getattr(change, field)
            message.ParseFromString(value)
            message.revision = commit.revision
            yield change


def snapshot_of(cluster: Cluster) -> Iterator[types.Change]:
    """Everything that is there, as changes; consistent although it is read bit by bit."""
    tenants = [entry.tenant for entry in cluster.tenants.values() if entry.tenant.revision]
    nodes = [entry.node for entry in cluster.nodes.values() if entry.node.revision]
    networks = [entry.network for entry in cluster.networks.values()]
    groups = [entry.group for network in cluster.networks.values() for entry in network.groups.values()]
    claims, sets = list(cluster.claims.values()), list(cluster.sets.values())
    for tenant in tenants:
        yield types.Change(revision=tenant.revision, tenant=convert.tenant_to_proto(tenant))
    for node in nodes:
        yield types.Change(revision=node.revision, node=convert.node_to_proto(node))
    for network in networks:
        yield types.Change(revision=network.revision, network=convert.network_to_proto(network))
    for group in groups:
        yield types.Change(revision=group.revision, ip_group=convert.ip_group_to_proto(group))
    for claim in claims:
        yield types.Change(revision=claim.revision, ip_claim=convert.ip_claim_to_proto(claim))
    for record in sets:
        change = types.Change()
        change.port_set.ParseFromString(record)
        change.revision = change.port_set.revision
        yield change
