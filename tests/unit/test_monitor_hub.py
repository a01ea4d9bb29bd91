"""The hub: what a node is sent, from which position, and what it never is."""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from harness.monitor import NodeState, deleted, network, node, port_set, released

from knitter.v1 import monitor_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.errors import Unavailable
from knitter_monitor.hub.facts import read
from knitter_monitor.hub.hub import Hub
from knitter_monitor.hub.watcher import Watcher


@dataclass
class Limits:
    message_changes: int = 500
    message_bytes: int = 262_144
    tombstone_age: float = 3600.0
    tombstones_per_topic: int = 1000


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _hub(clock: Callable[[], float], *changes: types.Change, limits: Limits | None = None) -> Hub:
    hub = Hub(limits or Limits(), clock)
    hub.replace("e1", [read(change) for change in changes], 10)
    return hub


def _apply(hub: Hub, *changes: types.Change) -> None:
    hub.apply([read(change) for change in changes])


def _drain(hub: Hub, watcher: Watcher) -> Iterator[pb.WatchResponse]:
    while (message := watcher.next(hub.board)) is not None:
        yield message


def _connect(hub: Hub, name: str, state: NodeState) -> Watcher:
    state.begin()
    watcher = hub.connect(name, state.epoch, {position.topic: position.revision for position in state.positions()})
    state.take_all(_drain(hub, watcher))
    return watcher


def _kinds(messages: list[pb.WatchResponse]) -> list[tuple[str, str]]:
    return [(message.topic, str(message.WhichOneof("event"))) for message in messages]


def test_a_new_node_gets_reset_changes_synced_for_each_topic_it_needs(clock: Clock) -> None:
    hub = _hub(clock, network(1, "x"), network(2, "y"), port_set(3, "p", "n1", "x"), port_set(4, "q", "n2", "y"))
    messages = list(_drain(hub, hub.connect("n1", "", {})))
    for topic in ("node/n1", "network/x"):
        assert [kind for name, kind in _kinds(messages) if name == topic] == ["reset", "changes", "synced"]
    assert {topic for topic, _ in _kinds(messages)} == {"node/n1", "network/x"}, "a node only receives what it needs"
    state = NodeState()
    state.take_all(messages)
    assert state.keys("node/n1") == {"portset/pod/t1/p/u"}
    assert state.topics["node/n1"].position == 10


def test_a_node_without_port_sets_is_synced_at_once(clock: Clock) -> None:
    hub = _hub(clock)
    assert _kinds(list(_drain(hub, hub.connect("n1", "", {})))) == [("node/n1", "reset"), ("node/n1", "synced")]


def test_topics_are_added_and_dropped_as_port_sets_need(clock: Clock) -> None:
    hub = _hub(clock, network(1, "x"))
    state = NodeState()
    watcher = _connect(hub, "n1", state)
    _apply(hub, port_set(11, "p", "n1", "x"))
    state.take_all(_drain(hub, watcher))
    assert state.keys("network/x") == {"network/x"}
    assert state.topics["network/x"].synced
    _apply(hub, released(12, "p"))
    messages = list(_drain(hub, watcher))
    state.take_all(messages)
    assert ("network/x", "dropped") in _kinds(messages)
    assert set(state.topics) == {"node/n1"}
    assert state.topics["node/n1"].removed == ["portset/pod/t1/p/u"]


def test_a_topic_needed_by_two_sets_stays_until_the_last_is_gone(clock: Clock) -> None:
    hub = _hub(clock, network(1, "x"), port_set(2, "p", "n1", "x", "x"), port_set(3, "q", "n1", "x"))
    state = NodeState()
    watcher = _connect(hub, "n1", state)
    _apply(hub, released(11, "p"))
    state.take_all(_drain(hub, watcher))
    assert "network/x" in state.topics
    _apply(hub, released(12, "q"))
    state.take_all(_drain(hub, watcher))
    assert "network/x" not in state.topics


def test_a_topic_that_goes_and_comes_before_it_is_read_begins_anew(clock: Clock) -> None:
    hub = _hub(clock, network(1, "x"), port_set(2, "p", "n1", "x"))
    state = NodeState()
    watcher = _connect(hub, "n1", state)
    _apply(hub, released(11, "p"))
    _apply(hub, port_set(12, "q", "n1", "x"))
    state.take_all(_drain(hub, watcher))
    assert state.keys("network/x") == {"network/x"}
    assert state.keys("node/n1") == {"portset/pod/t1/q/u"}


def test_a_cut_watch_resumes_with_what_it_missed_and_no_reset(clock: Clock) -> None:
    hub = _hub(clock, network(1, "x"), port_set(2, "p", "n1", "x"), port_set(3, "q", "n1", "x"))
    state = NodeState()
    hub.disconnect(_connect(hub, "n1", state))
    _apply(hub, released(11, "p"), port_set(12, "r", "n1", "x"), network(13, "x", mtu=1400))
    _connect(hub, "n1", state)
    assert state.keys("node/n1") == {"portset/pod/t1/q/u", "portset/pod/t1/r/u"}
    assert state.topics["node/n1"].removed == ["portset/pod/t1/p/u"]
    assert state.topics["network/x"].objects["network/x"].network.mtu == 1400
    assert [topic.resets for topic in state.topics.values()] == [1, 1]
    assert all(topic.synced for topic in state.topics.values())


def test_a_node_that_is_up_to_date_is_only_told_that(clock: Clock) -> None:
    hub = _hub(clock, network(1, "x"), port_set(2, "p", "n1", "x"))
    state = NodeState()
    hub.disconnect(_connect(hub, "n1", state))
    watcher = hub.connect("n1", "e1", {position.topic: position.revision for position in state.positions()})
    assert sorted(_kinds(list(_drain(hub, watcher)))) == [("network/x", "synced"), ("node/n1", "synced")]


def test_topics_that_are_not_needed_any_more_are_dropped_on_resume(clock: Clock) -> None:
    hub = _hub(clock, network(1, "x"))
    watcher = hub.connect("n1", "e1", {"node/n1": 10, "network/x": 10})
    assert ("network/x", "dropped") in _kinds(list(_drain(hub, watcher)))


def test_a_position_older_than_the_tombstones_begins_anew(clock: Clock) -> None:
    hub = _hub(clock, port_set(2, "p", "n1"), port_set(3, "q", "n1"), port_set(4, "s", "n2"))
    state, other = NodeState(), NodeState()
    hub.disconnect(_connect(hub, "n1", state))
    hub.disconnect(_connect(hub, "n2", other))
    _apply(hub, released(11, "p"))
    clock.time += 3599
    assert hub.sweep() == 0
    clock.time += 2
    assert hub.sweep() == 1
    _connect(hub, "n1", state)
    assert state.topics["node/n1"].resets == 2
    assert state.keys("node/n1") == {"portset/pod/t1/q/u"}
    _connect(hub, "n2", other)
    assert other.topics["node/n2"].resets == 1, "another topic's deletions concern nobody else"


def test_too_many_tombstones_are_forgotten_early(clock: Clock) -> None:
    hub = _hub(clock, *(port_set(index, f"p{index}", "n1") for index in range(1, 6)), limits=Limits(tombstones_per_topic=2))
    _apply(hub, *(released(10 + index, f"p{index}") for index in range(1, 6)))
    assert hub.sweep() == 3
    assert ("node/n1", "reset") in _kinds(list(_drain(hub, hub.connect("n1", "e1", {"node/n1": 12}))))
    assert ("node/n1", "reset") not in _kinds(list(_drain(hub, hub.connect("n1", "e1", {"node/n1": 13}))))


def test_a_topic_that_was_forgotten_whole_is_not_resumed_before_its_last_deletion(clock: Clock) -> None:
    hub = _hub(clock, port_set(2, "p", "n1"))
    _apply(hub, released(11, "p"))
    clock.time += 4000
    hub.sweep()
    assert _kinds(list(_drain(hub, hub.connect("n1", "e1", {"node/n1": 10}))))[0] == ("node/n1", "reset")
    assert _kinds(list(_drain(hub, hub.connect("n1", "e1", {"node/n1": 11})))) == [("node/n1", "synced")]


def test_another_epoch_begins_anew(clock: Clock) -> None:
    hub = _hub(clock, port_set(2, "p", "n1"))
    messages = list(_drain(hub, hub.connect("n1", "e0", {"node/n1": 10})))
    assert _kinds(messages) == [("node/n1", "reset"), ("node/n1", "changes"), ("node/n1", "synced")]


def test_a_new_state_is_a_reset_for_everybody_and_no_order_to_detach(clock: Clock) -> None:
    hub = _hub(clock, network(1, "x"), port_set(2, "p", "n1", "x"))
    state = NodeState()
    watcher = _connect(hub, "n1", state)
    hub.replace("e2", [read(port_set(3, "q", "n1"))], 5)
    state.take_all(_drain(hub, watcher))
    assert state.epoch == "e2"
    assert state.keys("node/n1") == {"portset/pod/t1/q/u"}
    assert state.topics["node/n1"].removed == []
    assert "network/x" not in state.topics


def test_a_snapshot_comes_in_parts_that_stay_true_while_it_is_read(clock: Clock) -> None:
    changes = [port_set(index, f"p{index}", "n1") for index in range(1, 10)]
    hub = _hub(clock, *changes, limits=Limits(message_changes=3))
    state = NodeState()
    watcher = hub.connect("n1", "", {})
    for _ in range(3):
        message = watcher.next(hub.board)
        assert message is not None
        state.take(message)
    assert len(state.keys("node/n1")) == 6
    _apply(hub, released(11, "p1"), released(12, "p9"), port_set(13, "p2", "n1", labels={"new": "1"}), port_set(14, "z", "n1"))
    state.take_all(_drain(hub, watcher))
    assert state.topics["node/n1"].synced
    assert state.topics["node/n1"].resets == 1
    assert {key.split("/")[3] for key in state.keys("node/n1")} == {"p2", "p3", "p4", "p5", "p6", "p7", "p8", "z"}


def test_a_reader_that_missed_a_forgotten_deletion_begins_anew_on_the_same_watch(clock: Clock) -> None:
    hub = _hub(clock, port_set(2, "p", "n1"), port_set(3, "q", "n1"))
    state = NodeState()
    watcher = _connect(hub, "n1", state)
    _apply(hub, released(11, "p"))
    clock.time += 4000
    hub.sweep()
    state.take_all(_drain(hub, watcher))
    assert state.topics["node/n1"].resets == 2
    assert state.keys("node/n1") == {"portset/pod/t1/q/u"}


def test_a_reader_that_is_behind_costs_no_memory_and_gets_the_newest_state(clock: Clock) -> None:
    hub = _hub(clock, port_set(1, "p", "n1"))
    state = NodeState()
    watcher = _connect(hub, "n1", state)
    for revision in range(11, 2011):
        _apply(hub, port_set(revision, "p", "n1", labels={"r": str(revision)}))
    assert len(hub.board.topic("node/n1")._log) < 200
    messages = list(_drain(hub, watcher))
    assert len(messages) == 1
    state.take_all(messages)
    assert state.topics["node/n1"].objects["portset/pod/t1/p/u"].revision == 2010


def test_a_set_that_moves_to_another_node_leaves_a_tombstone(clock: Clock) -> None:
    hub = _hub(clock, port_set(1, "p", "n1"))
    first, second = NodeState(), NodeState()
    watchers = _connect(hub, "n1", first), _connect(hub, "n2", second)
    _apply(hub, port_set(11, "p", "n2"))
    first.take_all(_drain(hub, watchers[0]))
    second.take_all(_drain(hub, watchers[1]))
    assert first.topics["node/n1"].removed == ["portset/pod/t1/p/u"]
    assert second.keys("node/n2") == {"portset/pod/t1/p/u"}


@pytest.mark.parametrize("change", [port_set(11, "p", ""), port_set(11, "p", "n1", state=types.PORT_SET_STATE_KEPT)])
def test_a_set_without_a_node_or_only_kept_is_nobodys(clock: Clock, change: types.Change) -> None:
    hub = _hub(clock, port_set(1, "p", "n1", "x"))
    state = NodeState()
    watcher = _connect(hub, "n1", state)
    _apply(hub, change)
    state.take_all(_drain(hub, watcher))
    assert set(state.topics) == {"node/n1"}
    assert state.keys("node/n1") == set()


def test_who_is_where_is_told_on_overlays_without_what_is_nobodys_business(clock: Clock) -> None:
    nodes = node(2, "n1", "192.0.2.1"), node(3, "n2", "192.0.2.2")
    hub = _hub(clock, network(1, "v"), *nodes, port_set(4, "p", "n1", "v", overlay=True))
    state = NodeState()
    watcher = _connect(hub, "n1", state)
    assert state.keys("network/v") == {"network/v", "node/n1", "portset/pod/t1/p/u"}
    secret = types.Wish(network="v", interface="e", place="secret")
    _apply(hub, port_set(11, "q", "n2", "v", "w", overlay=True, wishes=[secret], labels={"secret": "1"}))
    state.take_all(_drain(hub, watcher))
    shown = state.topics["network/v"].objects["portset/pod/t1/q/u"].port_set
    assert (shown.node, len(shown.ports), len(shown.wishes), len(shown.labels)) == ("n2", 1, 0, 0)
    assert state.topics["network/v"].objects["node/n2"].node.underlay_address == "192.0.2.2"
    _apply(hub, node(12, "n2", "192.0.2.99"))
    state.take_all(_drain(hub, watcher))
    assert state.topics["network/v"].objects["node/n2"].node.underlay_address == "192.0.2.99"
    _apply(hub, released(13, "q"))
    state.take_all(_drain(hub, watcher))
    assert state.keys("network/v") == {"network/v", "node/n1", "portset/pod/t1/p/u"}
    assert "network/w" not in state.topics


def test_a_deleted_node_leaves_the_overlays(clock: Clock) -> None:
    sets = port_set(3, "p", "n1", "v", overlay=True), port_set(4, "q", "n2", "v", overlay=True)
    hub = _hub(clock, node(2, "n2", "192.0.2.2"), *sets)
    state = NodeState()
    watcher = _connect(hub, "n1", state)
    assert "node/n2" in state.keys("network/v")
    _apply(hub, deleted(11, "node/n2"))
    state.take_all(_drain(hub, watcher))
    assert "node/n2" in state.topics["network/v"].removed


def test_a_bridge_networks_topic_holds_the_network_alone(clock: Clock) -> None:
    hub = _hub(clock, network(1, "x"), node(2, "n2", "192.0.2.2"), port_set(3, "p", "n1", "x"), port_set(4, "q", "n2", "x"))
    state = NodeState()
    _connect(hub, "n1", state)
    assert state.keys("network/x") == {"network/x"}


def test_what_is_known_already_changes_nothing(clock: Clock) -> None:
    hub = _hub(clock, port_set(5, "p", "n1"))
    state = NodeState()
    watcher = _connect(hub, "n1", state)
    _apply(hub, port_set(5, "p", "n1"), port_set(4, "p", "n1", "x"))
    assert list(_drain(hub, watcher)) == []


def test_changes_that_no_node_needs_are_silent(clock: Clock) -> None:
    hub = _hub(clock)
    state = NodeState()
    watcher = _connect(hub, "n1", state)
    _apply(hub, types.Change(revision=11, tenant=types.Tenant(name="t1")), deleted(12, "tenant/t1"), released(13, "never-seen"))
    assert list(_drain(hub, watcher)) == []
    assert hub.board.revision == 13


def test_the_newer_watch_of_a_node_takes_over(clock: Clock) -> None:
    hub = _hub(clock, port_set(1, "p", "n1"))
    older = _connect(hub, "n1", NodeState())
    state = NodeState()
    newer = _connect(hub, "n1", state)
    with pytest.raises(Unavailable) as caught:
        older.next(hub.board)
    assert caught.value.reason == "WATCH_TAKEN_OVER"
    assert not hub.disconnect(older)
    _apply(hub, port_set(11, "q", "n1"))
    state.take_all(_drain(hub, newer))
    assert len(state.keys("node/n1")) == 2


async def test_a_client_that_has_seen_more_waits_a_little_and_is_then_sent_away(clock: Clock) -> None:
    hub = _hub(clock)
    with pytest.raises(Unavailable) as caught:
        await hub.catch_up("e1", 12, 0.05)
    assert caught.value.reason == "REPLICA_BEHIND"
    waiting = asyncio.create_task(hub.catch_up("e1", 12, 5))
    await asyncio.sleep(0)
    _apply(hub, port_set(11, "p", "n1"))
    await asyncio.sleep(0)
    assert not waiting.done()
    _apply(hub, port_set(12, "p", "n1"))
    await waiting
    await hub.catch_up("another", 99, 0)


async def test_an_older_epoch_never_takes_the_place_of_a_newer_one(clock: Clock) -> None:
    hub = Hub(Limits(), clock)
    hub.replace("s.2", [], 10)
    for epoch in ("s.2", "s.1", "t.9", "s.x", ""):
        await hub.catch_up(epoch, 5, 0.02)
    with pytest.raises(Unavailable) as caught:
        await hub.catch_up("s.3", 5, 0.02)
    assert caught.value.reason == "REPLICA_BEHIND"


async def test_before_the_first_state_nobody_is_served(clock: Clock) -> None:
    hub = Hub(Limits(), clock)
    assert not hub.ready
    with pytest.raises(Unavailable, match="not yet heard"):
        await hub.catch_up("", 0, 0.02)
    with pytest.raises(Unavailable):
        hub.connect("n1", "", {})
    hub.sweep()


@pytest.mark.parametrize("seed", range(8))
def test_however_slowly_it_reads_a_node_ends_with_what_is_true(clock: Clock, seed: int) -> None:
    dice = random.Random(seed)
    limits = Limits(message_changes=2, tombstone_age=50, tombstones_per_topic=5)
    hub = _hub(clock, limits=limits)
    names, nodes, networks = [f"p{i}" for i in range(12)], ["n1", "n2", "n3"], ["v", "w"]
    truth: dict[str, tuple[str, tuple[str, ...]]] = {}
    state, watcher = NodeState(), None
    revision = 10
    for _ in range(600):
        revision += 1
        match dice.randrange(8):
            case 0 | 1 | 2:
                name, home = dice.choice(names), dice.choice(nodes)
                carried = tuple(dice.sample(networks, dice.randrange(3)))
                truth[name] = (home, carried)
                _apply(hub, port_set(revision, name, home, *carried, overlay=True))
            case 3 | 4:
                name = dice.choice(names)
                truth.pop(name, None)
                _apply(hub, released(revision, name))
            case 5:
                clock.time += dice.randrange(40)
                hub.sweep()
            case 6 if dice.randrange(4) == 0 and watcher is not None:
                hub.disconnect(watcher)
                watcher = None
            case _:
                if watcher is None:
                    state.begin()
                    told = {position.topic: position.revision for position in state.positions()}
                    watcher = hub.connect("n1", state.epoch, told)
                for _ in range(dice.randrange(4)):
                    if (message := watcher.next(hub.board)) is not None:
                        state.take(message)
    watcher = watcher or _connect(hub, "n1", state)
    state.take_all(_drain(hub, watcher))
    mine = {name: carried for name, (home, carried) in truth.items() if home == "n1"}
    assert state.keys("node/n1") == {f"portset/pod/t1/{name}/u" for name in mine}
    needed = {network for carried in mine.values() for network in carried}
    assert set(state.topics) == {"node/n1", *(f"network/{network}" for network in needed)}
    for network_id in needed:
        there = {f"portset/pod/t1/{name}/u" for name, (_, carried) in truth.items() if network_id in carried}
        assert state.keys(f"network/{network_id}") == there
    assert all(topic.synced for topic in state.topics.values())
