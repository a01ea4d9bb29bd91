"""What the monitor's tests share: changes as a manager would send them, and what a node makes of a Watch."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc

from knitter.v1 import monitor_pb2 as pb
from knitter.v1 import monitor_pb2_grpc
from knitter.v1 import types_pb2 as types
from knitter_common.convert import owner_from_proto
from knitter_common.errors import from_rpc_error


async def eventually(check: Callable[[], object], within: float = 10.0) -> None:
    """Until `check` is true, looked at every 10 ms; for what gives a test no event to wait for."""
    async with asyncio.timeout(within):
        while not check():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)


def pod(name: str) -> types.Owner:
    """A pod's owner; its key is portset/pod/t1/<name>/u."""
    return types.Owner(pod=types.PodOwner(namespace="t1", name=name, uid="u"))


def port_set(revision: int, name: str, node: str, *networks: str, overlay: bool = False, **more: object) -> types.Change:
    """A port set of a pod with one port on each of these networks."""
    kind = types.NETWORK_TYPE_VXLAN if overlay else types.NETWORK_TYPE_BRIDGE
    ports = [
        types.Port(id=f"{name}{index}", network_id=network, interface=f"eth{index}", type=kind, mac=f"02:00:00:00:00:{index:02x}")
        for index, network in enumerate(networks)
    ]
    state = more.pop("state", types.PORT_SET_STATE_RESERVED)
    made = types.PortSet(owner=pod(name), tenant="t1", node=node, ports=ports, revision=revision, state=state, **more)
    return types.Change(revision=revision, port_set=made)


def network(revision: int, ident: str, **more: object) -> types.Change:
    """A network by its id."""
    return types.Change(revision=revision, network=types.Network(id=ident, tenant="t1", name=ident, revision=revision, **more))


def node(revision: int, name: str, address: str = "") -> types.Change:
    """A node with its underlay address."""
    return types.Change(revision=revision, node=types.Node(name=name, underlay_address=address, revision=revision))


def deleted(revision: int, key: str, owner: types.Owner | None = None) -> types.Change:
    """A tombstone as the manager sends it."""
    return types.Change(revision=revision, deleted=types.Tombstone(key=key, owner=owner))


def released(revision: int, name: str) -> types.Change:
    """The tombstone of a pod's port set."""
    return deleted(revision, f"portset/pod/t1/{name}/u", pod(name))


def key_of(change: types.Change) -> str:
    """The key of what a change is about."""
    match change.WhichOneof("object"):
        case "port_set":
            return f"portset/{owner_from_proto(change.port_set.owner).key}"
        case "network":
            return f"network/{change.network.id}"
        case "node":
            return f"node/{change.node.name}"
        case _:
            return change.deleted.key


@dataclass
class TopicState:
    """One topic as a node holds it. `position` is where it can resume."""

    objects: dict[str, types.Change] = field(default_factory=dict)
    position: int = 0
    synced: bool = False
    resets: int = 0
    removed: list[str] = field(default_factory=list)


class NodeState:
    """Applies what a Watch sends, as an agent does, and asserts the protocol's order."""

    def __init__(self) -> None:
        self.epoch = ""
        self.topics: dict[str, TopicState] = {}
        self.heartbeats = 0
        self.messages = 0

    def take(self, message: pb.WatchResponse) -> None:
        """One message."""
        self.messages += 1
        match message.WhichOneof("event"):
            case "reset":
                before = self.topics.get(message.topic, TopicState())
                self.topics[message.topic] = TopicState(resets=before.resets + 1)
                self.epoch = message.reset.epoch
            case "changes":
                self._changes(self.topics[message.topic], message.changes.changes)
            case "synced":
                topic = self.topics[message.topic]
                assert message.synced.revision >= topic.position
                topic.synced, topic.position = True, message.synced.revision
            case "dropped":
                self.topics.pop(message.topic, None)
            case "heartbeat":
                assert message.heartbeat.time.seconds > 1_600_000_000
                self.heartbeats += 1

    def take_all(self, messages: Iterable[pb.WatchResponse]) -> None:
        """All of them."""
        for message in messages:
            self.take(message)

    def begin(self) -> None:
        """A new stream: synced is told anew."""
        for topic in self.topics.values():
            topic.synced = False

    def keys(self, topic: str) -> set[str]:
        """The keys it holds of a topic."""
        return set(self.topics[topic].objects)

    def positions(self) -> list[pb.TopicPosition]:
        """For WatchRequest: every topic it holds anything of, those of a cut snapshot at 0."""
        return [pb.TopicPosition(topic=name, revision=topic.position) for name, topic in self.topics.items()]

    def _changes(self, topic: TopicState, changes: Iterable[types.Change]) -> None:
        last = topic.position
        for change in changes:
            assert change.revision >= last, "changes come in order of revision"
            last = change.revision
            key = key_of(change)
            if change.WhichOneof("object") == "deleted":
                topic.objects.pop(key, None)
                topic.removed.append(key)
            else:
                topic.objects[key] = change
        if topic.synced or topic.position:  # within a snapshot a position means nothing yet
            topic.position = last


class WatchingNode:
    """A node that watches one of the monitors, and connects to the next when it is cut, as an agent does."""

    def __init__(self, name: str, *addresses: str) -> None:
        self.name, self._addresses = name, itertools.cycle(addresses)
        self.state = NodeState()
        self.cuts: list[str] = []
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def until(self, check: Callable[[NodeState], object], within: float = 15.0) -> None:
        """Until its state is as `check` wants it."""
        async with asyncio.timeout(within):
            while not check(self.state):
                self._news.clear()
                await self._news.wait()

    async def _run(self) -> None:
        while True:
            self.state.begin()
            async with grpc.aio.insecure_channel(next(self._addresses), options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                stub: Any = monitor_pb2_grpc.MonitorServiceStub(channel)
                request = pb.WatchRequest(node=self.name, epoch=self.state.epoch, positions=self.state.positions())
                try:
                    async for message in stub.Watch(request):
                        self.state.take(message)
                        self._news.set()
                except grpc.aio.AioRpcError as error:
                    self.cuts.append(from_rpc_error(error).reason)
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Ends it; raises what its task failed with."""
        if not self._task.done():
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
