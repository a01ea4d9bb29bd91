"""CheckState: the store with itself, this manager's memory with the store, and the nodes' journals with both."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing

from knitter.v1 import manager_pb2 as pb
from knitter_common.errors import Unavailable
from knitter_manager import keys
from knitter_manager.check.counters import Counting, stands_still
from knitter_manager.check.detail import MOST, Detail
from knitter_manager.check.journals import Journals
from knitter_manager.check.nodes import SETTLE, Asked, NodeChecks
from knitter_manager.check.reading import WANTED
from knitter_manager.check.survey import Survey
from knitter_manager.committer import Committer
from knitter_manager.feed import Feed
from knitter_manager.records import kept
from knitter_manager.standing import EPOCH, Standing
from knitter_manager.state import Cluster
from knitter_manager.store.protocol import Snapshot, Store, below

_TRIES = 20  # to find the memory at a snapshot's revision with nothing under way
_PATIENCE = 2.0  # seconds that one try waits for the feed
_BATCH = 200  # findings in one message
_MOST_UNLIKE = 200  # sets that the memory has otherwise: where there are more, one knows what to do


class Checker:
    """Only reads. One comparison at a time reads the store."""

    def __init__(
        self, store: Store, cluster: Cluster, committer: Committer, feed: Feed, standing: Standing, journals: Journals
    ) -> None:
        self._store, self._cluster, self._committer = store, cluster, committer
        self._feed, self._standing, self._journals = feed, standing, journals
        self._lock = asyncio.Lock()

    async def check(self, nodes: bool, settle: float = SETTLE) -> AsyncIterator[pb.CheckStateResponse]:
        """Findings as they are found, at last the summary. Raises StoreDown, Unavailable(RESTORING)."""
        async with self._lock:
            survey, counting = await self._survey()
            told = list(survey.findings())
        for message in _messages(told):
            yield message
        buckets = survey.differing
        for begin in range(0, len(buckets), MOST):
            detail = Detail(frozenset(buckets[begin : begin + MOST]))
            async with self._lock:
                await detail.read(await self._snapshot())
                told = list(detail.findings())
            for message in _messages(told):
                yield message
        for message in _messages([*await self._unlike(survey), *await self._miscounted(counting)]):
            yield message
        asked = Asked()
        if nodes:
            async with aclosing(NodeChecks(self._cluster, self._journals, settle).compare(asked)) as found:  # type: ignore[type-var]
                async for findings in found:
                    for message in _messages(findings):
                        yield message
        yield pb.CheckStateResponse(summary=_summary(survey, counting, asked))

    # -- the store ---------------------------------------------------------------------------------------------------------

    async def _snapshot(self) -> Snapshot:
        if self._standing.applying:
            raise Unavailable("RESTORING", "a snapshot is being restored: the store is between two states")
        return await self._store.load(WANTED)

    async def _survey(self) -> tuple[Survey, Counting | None]:
        snapshot, counting = await self._begin()
        survey = Survey(self._cluster, counting)
        await survey.read(snapshot)
        if counting is not None:
            counting.objects((shape.network for shape in survey.shapes.values()), (claim for claim, _ in survey.claims.values()))
        return survey, counting

    async def _begin(self) -> tuple[Snapshot, Counting | None]:
        """A snapshot; and what the memory counts at its revision, if it stands still there."""
        for number in range(_TRIES):
            snapshot = await self._snapshot()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._feed.until(snapshot.revision)
            except TimeoutError:
                return snapshot, None
            if self._still_at(snapshot.revision):
                return snapshot, Counting(self._cluster)
            if number + 1 < _TRIES:
                await _close(snapshot)
        return snapshot, None

    def _still_at(self, revision: int) -> bool:
        cluster = self._cluster
        return cluster.revision == revision and cluster.settled and self._committer.quiet and stands_still(cluster)

    # -- the memory --------------------------------------------------------------------------------------------------------

    async def _unlike(self, survey: Survey) -> list[pb.Finding]:
        """The sets that the memory has otherwise than the store, also now; of many, some."""
        found = []
        for owner_key in survey.unlike[:_MOST_UNLIKE]:
            key = keys.port_set(owner_key)
            record = (await self._store.get([key])).get(key)
            await self._caught_up()
            known = self._cluster.sets.get(owner_key)
            stored = None if record is None else kept(record.value, record.revision)
            again = (await self._store.get([key])).get(key)
            if known == stored or again != record:
                continue
            said = f"{keys.said(owner_key)}: this manager knows another set than the store has; start it again"
            found.append(pb.Finding(kind=pb.FINDING_KIND_MEMORY, key=key, revision=record.revision if record else 0, message=said))
        return found

    async def _caught_up(self) -> None:
        """The feed has told all that the store has by now, if it does at all."""
        snapshot = await self._store.load((below(EPOCH),))
        await _close(snapshot)
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._feed.until(snapshot.revision)
        except TimeoutError:
            return

    async def _miscounted(self, counting: Counting | None) -> list[pb.Finding]:
        """What the manager counts otherwise than the store has it, in two looks alike."""
        if counting is None or not counting.differing():
            return []
        async with self._lock:
            _, again = await self._survey()
        second = again.differing() if again is not None else {}
        found = []
        for (what, of), (mine, stored) in counting.differing().items():
            if second.get((what, of)) == (mine, stored):
                said = f"{what}: this manager counts {mine} {of}, the store has {stored}; start it again"
                found.append(pb.Finding(kind=pb.FINDING_KIND_MEMORY, network=_network_of(what), message=said))
        return found


def _network_of(what: str) -> str:
    kind, _, name = what.partition(" ")
    return name if kind == "network" else ""


async def _close(snapshot: Snapshot) -> None:
    """It is not read, or not to its end."""
    async for _ in snapshot.batches:  # the first batch begins it, so that closing ends it
        break
    await snapshot.batches.aclose()  # type: ignore[attr-defined]


def _messages(findings: Iterable[pb.Finding]) -> Iterator[pb.CheckStateResponse]:
    waiting = list(findings)
    for begin in range(0, len(waiting), _BATCH):
        yield pb.CheckStateResponse(findings=waiting[begin : begin + _BATCH])


def _summary(survey: Survey, counting: Counting | None, asked: Asked) -> pb.CheckSummary:
    return pb.CheckSummary(
        revision=survey.revision,
        networks=len(survey.shapes),
        port_sets=survey.sets,
        ip_claims=len(survey.claims),
        addresses=survey.addresses,
        macs=survey.macs,
        counters=counting is not None,
        asked=sorted(asked.nodes),
        not_asked=[pb.NodeNotAsked(node=node, why=why) for node, why in sorted(asked.not_asked.items())],
    )
