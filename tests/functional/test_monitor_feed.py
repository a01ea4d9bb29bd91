"""The feed: resumed where it was cut, a snapshot counts only when it is whole. A stand-in tells the feed word for word."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from harness.monitor import eventually, network, port_set, released

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import manager_pb2_grpc
from knitter.v1 import types_pb2 as types
from knitter_common.errors import Unavailable
from knitter_common.managers import Managers
from knitter_common.serve import GrpcServer, ServerSettings
from knitter_common.settings import Seconds
from knitter_monitor.config import PushSettings
from knitter_monitor.feed import Feed
from knitter_monitor.hub.hub import Hub

CUT = "cut"


class Teller(manager_pb2_grpc.ManagerServiceServicer):
    """Tells each stream what the test says; `asked` are the requests."""

    def __init__(self) -> None:
        self.asked: list[pb.ChangesRequest] = []
        self.words: asyncio.Queue[pb.ChangesResponse | str] = asyncio.Queue()

    async def Changes(self, request: pb.ChangesRequest, context: Any) -> AsyncIterator[pb.ChangesResponse]:
        self.asked.append(request)
        while True:
            word = await self.words.get()
            if isinstance(word, str):
                raise Unavailable("STORE_UNAVAILABLE", "cut by the test")
            yield word

    def reset(self, epoch: str) -> None:
        self.words.put_nowait(pb.ChangesResponse(reset=pb.FeedReset(epoch=epoch)))

    def changes(self, *changes: types.Change) -> None:
        self.words.put_nowait(pb.ChangesResponse(changes=pb.ChangeBatch(changes=changes)))

    def synced(self, epoch: str, revision: int) -> None:
        self.words.put_nowait(pb.ChangesResponse(synced=pb.FeedSynced(epoch=epoch, revision=revision)))

    def cut(self) -> None:
        self.words.put_nowait(CUT)


class Following:
    """A teller, and a hub that follows it."""

    def __init__(self) -> None:
        self.teller = Teller()
        self.hub = Hub(PushSettings())
        self.news: list[bool] = []
        self.server = GrpcServer("127.0.0.1:0", ServerSettings(grace=Seconds(0)), ["knitter.v1.ManagerService"])
        manager_pb2_grpc.add_ManagerServiceServicer_to_server(self.teller, self.server.grpc)

    def keys(self, node: str) -> set[str]:
        """The pods of a node."""
        watcher = self.hub.connect(node, "", {})
        try:
            found = set()
            while (message := watcher.next(self.hub.board)) is not None:
                found |= {change.port_set.owner.pod.name for change in message.changes.changes if change.HasField("port_set")}
            return found
        finally:
            self.hub.disconnect(watcher)


@pytest.fixture
async def following() -> AsyncIterator[Following]:
    made = Following()
    managers = Managers([await made.server.start()])
    feed = Feed(managers, made.hub, 0.5, made.news.append)
    task = asyncio.create_task(feed.run())
    yield made
    assert not task.done(), task.exception()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await managers.close()
    await made.server.stop()


async def _begin(following: Following) -> None:
    following.teller.reset("e1")
    following.teller.changes(port_set(7, "late", "n1"), port_set(2, "p", "n1"))  # a snapshot is ordered by key
    following.teller.changes(network(3, "x"))
    assert not following.hub.ready
    following.teller.synced("e1", 10)
    await eventually(lambda: following.hub.ready)


async def test_a_snapshot_counts_when_it_is_whole(following: Following) -> None:
    await _begin(following)
    assert following.keys("n1") == {"p", "late"}
    assert (following.hub.board.epoch, following.hub.board.revision) == ("e1", 10)
    assert (following.teller.asked[0].epoch, following.teller.asked[0].after_revision) == ("", 0)


async def test_a_cut_feed_is_resumed_after_the_last_change(following: Following) -> None:
    await _begin(following)
    following.teller.changes(port_set(11, "q", "n1"), port_set(12, "r", "n1"))
    following.teller.cut()
    following.teller.synced("e1", 12)
    following.teller.changes(released(13, "q"))
    await eventually(lambda: following.hub.board.revision == 13)
    assert (following.teller.asked[1].epoch, following.teller.asked[1].after_revision) == ("e1", 12)
    assert following.keys("n1") == {"p", "late", "r"}


async def test_a_snapshot_that_is_cut_half_way_changes_nothing(following: Following) -> None:
    await _begin(following)
    following.teller.reset("e2")
    following.teller.changes(port_set(2, "other", "n1"))
    following.teller.cut()
    await eventually(lambda: len(following.teller.asked) == 2)
    assert following.keys("n1") == {"p", "late"}
    assert (following.teller.asked[1].epoch, following.teller.asked[1].after_revision) == ("e1", 10)


async def test_a_new_epoch_replaces_everything(following: Following) -> None:
    await _begin(following)
    following.teller.reset("e2")
    following.teller.changes(port_set(2, "other", "n1"))
    following.teller.synced("e2", 4)
    await eventually(lambda: following.hub.board.epoch == "e2")
    assert following.keys("n1") == {"other"}
    following.teller.cut()
    await eventually(lambda: len(following.teller.asked) == 2)
    assert (following.teller.asked[1].epoch, following.teller.asked[1].after_revision) == ("e2", 4)


async def test_a_silent_feed_is_given_up(following: Following) -> None:
    await _begin(following)
    await eventually(lambda: len(following.teller.asked) >= 2)
    assert following.hub.ready, "what is known is served on"


async def test_a_change_that_cannot_be_read_does_not_stop_the_others(following: Following) -> None:
    await _begin(following)
    following.teller.changes(types.Change(revision=11, port_set=types.PortSet(node="n1")), port_set(12, "q", "n1"))
    await eventually(lambda: following.hub.board.revision == 12)
    assert following.keys("n1") == {"p", "late", "q"}


async def test_new_states_and_deletions_call_for_a_comparison_of_what_is_declared(following: Following) -> None:
    await _begin(following)
    assert following.news.pop() is True
    following.teller.changes(released(11, "p"))
    following.teller.changes(types.Change(revision=12, deleted=types.Tombstone(key="network/x")))
    await eventually(lambda: len(following.news) >= 5)
    assert following.news[-2:] == [False, True]
