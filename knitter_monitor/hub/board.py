"""The state of one epoch, laid out as topics: what each node and each network has to be told. Pure; time is an argument.

invariant: a port set's key is in exactly the topics of its last fact; leaving one leaves a tombstone there
invariant: needs(node) is node/<node> and network/<id> for each network that a port set of the node has a port on
invariant: a node's key is in network/<id> exactly while a port set of the node has a port on that overlay
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

from knitter_monitor.hub.facts import NETWORK, NODE, Fact, Wire, at, tombstone
from knitter_monitor.hub.topic import Topic


class Board:
    """Made from a whole snapshot; then changed by `apply`, in order of revision."""

    def __init__(self, epoch: str, snapshot: Iterable[Fact], revision: int) -> None:
        """`revision` is the snapshot's; who holds that much needs nothing of it again."""
        self.epoch = epoch
        self.revision = 0
        self._floor = 0
        self._topics: dict[str, Topic] = {}
        self._facts: dict[str, Fact] = {}
        self._nodes: dict[str, Fact] = {}
        self._needs: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._overlays: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._touched: set[str] = set()
        self._moved: set[str] = set()
        for fact in sorted(snapshot, key=lambda fact: fact.revision):
            self.apply(fact, 0.0)
        self._floor = self.revision = max(revision, self.revision)
        for topic in self._topics.values():
            topic.floor = self._floor
        self.take_touched()

    def topic(self, name: str) -> Topic:
        """A topic; one that holds nothing is made."""
        if name not in self._topics:
            self._topics[name] = Topic(name, self._floor)
        return self._topics[name]

    def needs(self, node: str) -> frozenset[str]:
        """The topics a node follows now."""
        return frozenset((NODE + node, *(NETWORK + network for network in self._needs.get(node, ()))))

    def take_touched(self) -> tuple[set[str], set[str]]:
        """The topics that changed, and the nodes whose needs may have changed, since the last call."""
        touched, moved = self._touched, self._moved
        self._touched, self._moved = set(), set()
        return touched, moved

    def apply(self, fact: Fact, now: float) -> None:
        """One change. What is known already (a feed that was resumed) changes nothing."""
        self.revision = max(self.revision, fact.revision)
        if fact.key.startswith(NODE):
            self._node(fact, now)
            return
        before = self._facts.get(fact.key)
        if not fact.shown if before is None else before.revision >= fact.revision:
            return
        topics = fact.topics
        for name in topics:
            self._put(name, fact.key, fact.revision, fact.seen_in(name))
        if before is not None:
            for name in before.topics - topics:
                self._delete(name, fact, before, now)
        if fact.shown:
            self._facts[fact.key] = fact
        else:
            del self._facts[fact.key]
        self._count(before, fact, now)

    def sweep(self, before: float, most: int, followed: Collection[str] = ()) -> int:
        """Forgets old tombstones, and topics that hold nothing and that nobody follows. Returns how many tombstones."""
        count = 0
        for name, topic in list(self._topics.items()):
            count += topic.sweep(before, most)
            if not len(topic) and name not in followed:
                self._floor = max(self._floor, topic.floor)  # the topic may come again: who resumes must not miss a deletion
                del self._topics[name]
        return count

    def _node(self, fact: Fact, now: float) -> None:
        name = fact.key.removeprefix(NODE)
        before = self._nodes.get(name)
        if before is not None and before.revision >= fact.revision:
            return
        for network in self._overlays.get(name, ()):
            if not fact.deleted:
                self._put(NETWORK + network, fact.key, fact.revision, fact.wire)
            elif before is not None:
                self._delete(NETWORK + network, fact, before, now)
        if fact.deleted:
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = fact

    def _count(self, before: Fact | None, after: Fact, now: float) -> None:
        """Who needs what now; first what comes, then what goes, so that nothing is dropped and added again."""
        if before is not None and (before.node, before.networks, before.overlays) == (after.node, after.networks, after.overlays):
            return
        for fact, step in ((after, 1), (before, -1)):
            if fact is None or not fact.node:
                continue
            if _tally(self._needs, fact.node, fact.networks, step):
                self._moved.add(fact.node)
            for network in _tally(self._overlays, fact.node, fact.overlays, step):
                self._carry(fact.node, network, after.revision, now, carries=step > 0)

    def _carry(self, name: str, network: str, revision: int, now: float, *, carries: bool) -> None:
        """A node begins or ceases to carry an overlay, by a change at `revision`."""
        node = self._nodes.get(name)
        if node is None:
            return
        if carries:
            told = max(revision, node.revision)
            self._put(NETWORK + network, node.key, told, at(told, node.wire))
        else:
            self._bury(NETWORK + network, node.key, revision, tombstone(node.key, revision, node.wire), now)

    def _put(self, name: str, key: str, revision: int, wire: Wire) -> None:
        self.topic(name).put(key, revision, wire)
        self._touched.add(name)

    def _delete(self, name: str, cause: Fact, last: Fact, now: float) -> None:
        wire = cause.wire if cause.deleted else tombstone(last.key, cause.revision, last.wire)
        self._bury(name, last.key, cause.revision, wire, now)

    def _bury(self, name: str, key: str, revision: int, wire: Wire, now: float) -> None:
        if self.topic(name).delete(key, revision, wire, now):
            self._touched.add(name)


def _tally(counts: defaultdict[str, Counter[str]], node: str, networks: Iterable[str], step: int) -> list[str]:
    """Counts up or down; returns those that came to be or ceased to be."""
    turned = []
    counter = counts[node]
    for network in networks:
        counter[network] += step
        if step > 0 and counter[network] == 1:
            turned.append(network)
        elif counter[network] == 0:
            del counter[network]
            turned.append(network)
    if not counter:
        del counts[node]
    return turned
