"""knitter_agent.pushed and watch: what a monitor pushes is kept, a Reset voids nothing before its Synced, reports go back."""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import pytest
from harness.agent import parts

from knitter.v1 import monitor_pb2 as pb
from knitter.v1 import monitor_pb2_grpc
from knitter.v1 import types_pb2 as types
from knitter_agent.pushed import Pushed
from knitter_agent.watch import Watch
from knitter_common import convert
from knitter_common.managers import Backoff, Peers
from knitter_common.model import Network, PodOwner, PortSet

OWNER = PodOwner("t1", "web", "u1")
KEY = f"portset/{OWNER.key}"
TOPIC = "node/node1"


def _set(revision: int, owner: PodOwner = OWNER) -> types.Change:
    message = convert.port_set_to_proto(PortSet(owner, "t1", "node1", revision=revision))
    return types.Change(revision=revision, port_set=message)


def _gone(revision: int, key: str = KEY) -> types.Change:
    return types.Change(revision=revision, deleted=types.Tombstone(key=key))


def _changes(*changes: types.Change, topic: str = TOPIC) -> pb.WatchResponse:
    return pb.WatchResponse(topic=topic, changes=pb.TopicChanges(changes=changes))


def _reset(epoch: str = "e1", topic: str = TOPIC) -> pb.WatchResponse:
    return pb.WatchResponse(topic=topic, reset=pb.TopicReset(epoch=epoch))


def _synced(revision: int, epoch: str = "e1", topic: str = TOPIC) -> pb.WatchResponse:
    return pb.WatchResponse(topic=topic, synced=pb.TopicSynced(epoch=epoch, revision=revision))


def _applied(*messages: pb.WatchResponse) -> Pushed:
    pushed = Pushed()
    for message in messages:
        assert pushed.apply(message) == ()
    return pushed


def test_a_snapshot_and_what_follows() -> None:
    pushed = _applied(_reset(), _changes(_set(5)), _synced(7), _changes(_set(9)))
    found = pushed.find(KEY)
    assert isinstance(found, PortSet)
    assert found.revision == 9
    assert pushed.positions == {TOPIC: 9}
    pushed.apply(_changes(_gone(10)))
    assert pushed.find(KEY) is None


def test_a_reset_voids_nothing_before_it_is_synced() -> None:
    pushed = _applied(_reset(), _changes(_set(5)), _synced(7), _reset("e2"))
    assert pushed.find(KEY) is not None
    assert pushed.positions == {TOPIC: 0}
    pushed.apply(_synced(3, "e2"))
    assert pushed.find(KEY) is None
    assert (pushed.epoch, pushed.positions) == ("e2", {TOPIC: 3})


def test_what_was_dropped_is_forgotten() -> None:
    network = types.Change(revision=2, network=convert.network_to_proto(Network("t1", "a", id="n1")))
    pushed = _applied(_reset(topic="network/n1"), _changes(network, topic="network/n1"), _synced(2, topic="network/n1"))
    assert isinstance(pushed.find("network/n1"), Network)
    pushed.apply(pb.WatchResponse(topic="network/n1", dropped=pb.TopicDropped()))
    assert pushed.find("network/n1") is None
    assert pushed.positions == {}


def test_one_bad_object_never_stops_the_others() -> None:
    bad = types.Change(revision=6, port_set=types.PortSet())
    pushed = _applied(_reset())
    (unusable,) = pushed.apply(_changes(bad, _set(7)))
    assert (unusable.key, unusable.revision) == ("portset/", 6)
    assert pushed.find(KEY) is not None
    assert pushed.apply(_changes(types.Change(revision=8))) == ()
    assert pushed.apply(pb.WatchResponse(heartbeat=pb.WatchHeartbeat())) == ()


class SmallMonitor(monitor_pb2_grpc.MonitorServiceServicer):
    """Sends `script` to each Watch, and then keeps it open; keeps the requests and reports."""

    def __init__(self, *script: pb.WatchResponse) -> None:
        self.script = script
        self.watched: list[pb.WatchRequest] = []
        self.reports: list[pb.ReportStatusRequest] = []
        self.cut = asyncio.Event()
        self._home = tempfile.mkdtemp(prefix="kmon-")
        self.address = f"unix:{self._home}/monitor.sock"

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        monitor_pb2_grpc.add_MonitorServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        await self._server.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._server.stop(None)
        shutil.rmtree(self._home)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.watched.append(request)
        for message in self.script:
            yield message
        await self.cut.wait()
        self.cut.clear()

    async def ReportStatus(self, request: Any, context: Any) -> Any:
        self.reports.append(request)
        return pb.ReportStatusResponse()


async def _until(holds: Any) -> None:
    async with asyncio.timeout(5):
        for _ in itertools.count():
            if holds():
                return
            await asyncio.sleep(0.01)


async def test_it_resumes_where_it_was_and_reports(tmp_path: Path) -> None:
    async with SmallMonitor(_reset(), _changes(_set(5)), _synced(7)) as monitor, parts(tmp_path) as agent:
        watch = Watch("node1", Peers([monitor.address]), agent.journal, "admin/x", Backoff(first=0.01))
        running = asyncio.create_task(watch.run())
        await _until(lambda: any(report.applied and report.applied[0].revision == 7 for report in monitor.reports))
        assert monitor.watched[0].primary.default_network == "admin/x"
        object.__setattr__(agent.tools, "changed", watch.changed)
        await agent.add()
        await _until(lambda: any(report.attached for report in monitor.reports))
        monitor.script = (_synced(7),)
        monitor.cut.set()
        await _until(lambda: len(monitor.watched) == 2)
        assert [(position.topic, position.revision) for position in monitor.watched[1].positions] == [(TOPIC, 7)]
        assert monitor.watched[1].epoch == "e1"
        assert watch.pushed.find(KEY) is not None
        await _until(lambda: sum(len(report.attached) for report in monitor.reports) == 2)  # the new monitor knows nothing
        await agent.delete()
        await _until(lambda: any(report.detached for report in monitor.reports))
        running.cancel()
        await asyncio.wait([running])


async def test_without_a_monitor_it_goes_on_trying(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        watch = Watch("node1", Peers(["unix:/nonexistent/monitor.sock"]), agent.journal, backoff=Backoff(first=0.01, most=0.02))
        running = asyncio.create_task(watch.run())
        await asyncio.sleep(0.1)
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])


async def test_it_ends_also_when_it_is_told_to_between_two_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parting = asyncio.Event()

    async def report_on(self: Watch, stub: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            parting.set()
            await asyncio.sleep(0.05)

    monkeypatch.setattr(Watch, "_report_on", report_on)
    async with parts(tmp_path) as agent:
        watch = Watch("node1", Peers(["unix:/nonexistent/monitor.sock"]), agent.journal, backoff=Backoff(first=0.01, most=0.02))
        running = asyncio.create_task(watch.run())
        await asyncio.wait_for(parting.wait(), 5)
        running.cancel()
        await asyncio.wait([running], timeout=5)
        assert running.cancelled()
