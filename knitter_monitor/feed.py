"""The manager's feed of changes, followed for ever: what comes is given to the hub.

The feed is resumed where it was cut (epoch and revision); the manager answers with Reset when it cannot. Then the snapshot is
gathered beside the state in force and takes its place at Synced. Any manager serves the feed, the writer or not.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

import grpc
import structlog

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.errors import Invalid, KnitterError, Unavailable, from_rpc_error
from knitter_common.managers import Backoff, Managers
from knitter_monitor.hub.facts import NODE, PORT_SET, Fact, read
from knitter_monitor.hub.hub import Hub

log = structlog.get_logger()


class Gatherer:
    """Turns the feed's messages into calls of the hub. `epoch` and `revision` are where to resume."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._snapshot: list[Fact] | None = None
        self._snapshot_epoch = ""
        self.epoch = ""
        self.revision = 0

    def begin(self) -> None:
        """A stream begins; what an older one left half-done is void."""
        self._snapshot = None

    def take(self, message: pb.ChangesResponse) -> bool:
        """One message. True: what is declared may not be there any more, because of a new state or a deletion."""
        match message.WhichOneof("event"):
            case "reset":
                self._snapshot, self._snapshot_epoch = [], message.reset.epoch
            case "changes":
                return self._changes(message.changes.changes)
            case "synced":
                self._synced(message.synced)
                return True
            case _:
                pass  # a heartbeat, or news of a newer manager
        return False

    def _changes(self, changes: Iterable[types.Change]) -> bool:
        facts = [fact for fact in map(_read, changes) if fact is not None]
        if self._snapshot is not None:
            self._snapshot.extend(facts)
        elif facts:
            self._hub.apply(facts)
            self.revision = facts[-1].revision
            return any(fact.deleted and not fact.key.startswith((PORT_SET, NODE)) for fact in facts)
        return False

    def _synced(self, synced: pb.FeedSynced) -> None:
        if self._snapshot is None:
            self.revision = max(synced.revision, self.revision)
            return
        self._hub.replace(self._snapshot_epoch, self._snapshot, synced.revision)
        log.info("a new state is in force", epoch=self._snapshot_epoch, revision=synced.revision, objects=len(self._snapshot))
        self.epoch, self.revision = self._snapshot_epoch, synced.revision
        self._snapshot = None


def _read(change: types.Change) -> Fact | None:
    try:
        return read(change)
    except Invalid as error:  # one bad object never stops the others
        log.error("a change that cannot be read was left out", revision=change.revision, error=error.message)
        return None


class Feed:
    """Follows the feed of one of the managers; `on_news` is called after each of its messages, with what `Gatherer.take` says."""

    def __init__(self, managers: Managers, hub: Hub, silence: float, on_news: Callable[[bool], None]) -> None:
        """A stream on which nothing comes for `silence` seconds, not even a heartbeat, is given up."""
        self._managers, self._silence, self._on_news = managers, silence, on_news
        self._gatherer = Gatherer(hub)
        self._backoff = Backoff(most=1.0)
        self._trouble = ""  # the reason told last; "" while the feed is followed

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            asked = self._managers.current
            try:
                await self._follow()
            except KnitterError as error:
                tell = log.debug if error.reason == self._trouble else log.warning  # once, however long it lasts
                tell("the feed was cut", manager=asked, reason=error.reason, error=error.message)
                self._trouble = error.reason
                self._managers.learn(error, asked)
            await self._backoff.wait()

    async def _follow(self) -> None:
        gatherer = self._gatherer
        gatherer.begin()
        request = pb.ChangesRequest(epoch=gatherer.epoch, after_revision=gatherer.revision)
        call = self._managers.stub().Changes(request)
        try:
            async for message in _within(call, self._silence):
                self._backoff.reset()
                if self._trouble:
                    log.info("the feed is followed again", manager=self._managers.current, revision=gatherer.revision)
                    self._trouble = ""
                self._on_news(gatherer.take(message))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        except TimeoutError as error:
            raise Unavailable("MANAGER_UNAVAILABLE", f"no word for {self._silence:g} s, not even a heartbeat") from error
        finally:
            call.cancel()
        raise Unavailable("MANAGER_UNAVAILABLE", "the manager ended the feed")


async def _within(
    call: "grpc.aio.UnaryStreamCall[pb.ChangesRequest, pb.ChangesResponse]", silence: float
) -> AsyncIterator[pb.ChangesResponse]:
    stream = aiter(call)
    while True:
        async with asyncio.timeout(silence):
            try:
                message = await anext(stream)
            except StopAsyncIteration:
                return
        yield message
