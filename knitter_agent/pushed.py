"""What monitors have pushed to this node: topics of objects, in memory. Pure: messages in, what changed out.

`node/<name>` holds the node's port sets, `network/<id>` a network and the nodes that carry it. A Reset voids nothing at once: the
old objects stay until the topic is Synced again, and what the new snapshot lacks then leaves the cache; nothing is detached for it.
Absence is never an order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from knitter.v1 import monitor_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common import convert
from knitter_common.errors import KnitterError
from knitter_common.model import Network, Node, PortSet

Thing = PortSet | Network | Node


@dataclass(slots=True)
class Topic:
    """`fresh` are the keys seen since a Reset, None when there was none since the last Synced."""

    objects: dict[str, Thing] = field(default_factory=dict)
    revision: int = 0
    fresh: set[str] | None = None


@dataclass(frozen=True, slots=True)
class Unusable:
    """An object that was pushed and that this agent cannot use."""

    key: str
    revision: int
    error: KnitterError


class Pushed:
    """Apply messages in the order they came. `positions` is where a new Watch resumes."""

    def __init__(self) -> None:
        self.epoch = ""
        self._topics: dict[str, Topic] = {}

    @property
    def topics(self) -> Mapping[str, Topic]:
        """All topics this node follows."""
        return self._topics

    @property
    def positions(self) -> Mapping[str, int]:
        """How far each topic is complete; 0 while its snapshot is under way."""
        return {name: 0 if topic.fresh is not None else topic.revision for name, topic in self._topics.items()}

    def find(self, key: str) -> Thing | None:
        """The object with that key ("portset/…", "network/…", "node/…"), in any topic."""
        for topic in self._topics.values():
            if (found := topic.objects.get(key)) is not None:
                return found
        return None

    def apply(self, message: pb.WatchResponse) -> tuple[Unusable, ...]:
        """One message; returns what of it cannot be used."""
        match message.WhichOneof("event"):
            case "reset":
                self._adopt(message.reset.epoch)
                self._topic(message.topic).fresh = set()
            case "changes":
                return tuple(
                    bad
                    for change in message.changes.changes
                    if (bad := self._change(self._topic(message.topic), change)) is not None
                )
            case "synced":
                self._adopt(message.synced.epoch)
                self._synced(self._topic(message.topic), message.synced.revision)
            case "dropped":
                self._topics.pop(message.topic, None)
        return ()

    def _adopt(self, epoch: str) -> None:
        if epoch != self.epoch:
            self.epoch = epoch
            for topic in self._topics.values():
                topic.revision = 0

    def _topic(self, name: str) -> Topic:
        return self._topics.setdefault(name, Topic())

    def _synced(self, topic: Topic, revision: int) -> None:
        if topic.fresh is not None:
            topic.objects = {key: thing for key, thing in topic.objects.items() if key in topic.fresh}
            topic.fresh = None
        topic.revision = max(topic.revision, revision)

    def _change(self, topic: Topic, change: types.Change) -> Unusable | None:
        if topic.fresh is None:
            topic.revision = max(topic.revision, change.revision)
        kind = change.WhichOneof("object")
        if kind == "deleted":
            topic.objects.pop(change.deleted.key, None)
            return None
        if kind is None or kind not in _READ:
            return None  # a kind of a newer monitor
        key, read = _READ[kind]
        message = getattr(change, kind)
        try:
            thing: Thing = read(message)
        except KnitterError as error:
            return Unusable(key(message), change.revision, error)
        topic.objects[key(message)] = thing
        if topic.fresh is not None:
            topic.fresh.add(key(message))
        return None


def _owner_key(message: types.PortSet) -> str:
    return f"portset/{convert.owner_from_proto(message.owner).key}" if message.owner.WhichOneof("kind") else "portset/"


_READ: dict[str, tuple[Any, Any]] = {
    "port_set": (_owner_key, convert.port_set_from_proto),
    "network": (lambda message: f"network/{message.id}", convert.network_from_proto),
    "node": (lambda message: f"node/{message.name}", convert.node_from_proto),
}
