"""Who is or was connected to this monitor: what each node was sent, what it has applied, and what it could not use."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from knitter.v1 import monitor_pb2 as pb
from knitter_common.convert import time_to_proto
from knitter_monitor.hub.watcher import Watcher

REJECTIONS = 100  # kept of each node


@dataclass(slots=True)
class Connection:
    """One node. Times in nanoseconds since 1970."""

    node: str
    agent_version: str = ""
    connect_time: int = 0
    watcher: Watcher | None = None
    sent: dict[str, int] = field(default_factory=dict)
    applied: dict[str, int] = field(default_factory=dict)
    rejections: dict[str, pb.Rejection] = field(default_factory=dict)


class Connections:
    """All nodes since this monitor started. `now` gives nanoseconds since 1970."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._nodes: dict[str, Connection] = {}

    def opened(self, request: pb.WatchRequest, watcher: Watcher) -> None:
        """A node opened a Watch."""
        node = self._of(request.node)
        node.agent_version, node.connect_time, node.watcher = request.agent_version, self._now(), watcher

    def closed(self, watcher: Watcher) -> None:
        """A Watch ended; where it had come to stays to be seen."""
        node = self._of(watcher.node)
        if node.watcher is watcher:
            node.sent, node.watcher = positions_of(watcher), None

    def reported(self, node: str, applied: Mapping[str, int], rejections: Iterable[pb.Rejection]) -> None:
        """A node's report. Of each object the newest rejection is kept."""
        connection = self._of(node)
        connection.applied = dict(applied)
        for rejection in rejections:
            connection.rejections.pop(rejection.key, None)
            connection.rejections[rejection.key] = rejection
        while len(connection.rejections) > REJECTIONS:
            del connection.rejections[next(iter(connection.rejections))]

    def listed(self, after: str = "") -> Iterator[tuple[str, pb.NodeConnection]]:
        """Those after a name, ordered by name."""
        for name in sorted(name for name in self._nodes if name > after):
            yield name, _told(self._nodes[name])

    def _of(self, node: str) -> Connection:
        return self._nodes.setdefault(node, Connection(node))


def positions_of(watcher: Watcher) -> dict[str, int]:
    """How far each topic was sent."""
    return {name: cursor.position for name, cursor in watcher.cursors.items()}


def _told(node: Connection) -> pb.NodeConnection:
    return pb.NodeConnection(
        node=node.node,
        agent_version=node.agent_version,
        connected=node.watcher is not None,
        connect_time=time_to_proto(node.connect_time) if node.connect_time else None,
        sent=_positions(positions_of(node.watcher) if node.watcher else node.sent),
        applied=_positions(node.applied),
        rejections=node.rejections.values(),
    )


def _positions(positions: Mapping[str, int]) -> list[pb.TopicPosition]:
    return [pb.TopicPosition(topic=topic, revision=revision) for topic, revision in sorted(positions.items())]
