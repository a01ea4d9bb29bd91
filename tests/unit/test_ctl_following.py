"""`knitterctl watch`: the feed's messages become one event a change."""

from typing import Any

from knitter.v1 import manager_pb2 as manager
from knitter.v1 import types_pb2 as types
from knitter_common.convert import ip_claim_to_proto, ip_group_to_proto, network_to_proto, port_set_to_proto
from knitter_common.model import Binding, IPClaim, IPGroup, NamedOwner, Network, PortSet
from knitter_ctl import following
from knitter_ctl.following import Follower
from knitter_ctl.kinds import NETWORK

CONTROL = Network("t1", "control", id="abc", revision=3)
DB = PortSet(NamedOwner("t1", "db"), "t1", revision=4)


def reset(epoch: str = "e1") -> manager.ChangesResponse:
    return manager.ChangesResponse(reset=manager.FeedReset(epoch=epoch))


def synced(revision: int, epoch: str = "e1") -> manager.ChangesResponse:
    return manager.ChangesResponse(synced=manager.FeedSynced(epoch=epoch, revision=revision))


def changes(*each: types.Change) -> manager.ChangesResponse:
    return manager.ChangesResponse(changes=manager.ChangeBatch(changes=each))


def network(revision: int, entry: Network = CONTROL) -> types.Change:
    return types.Change(revision=revision, network=network_to_proto(entry))


def port_set(revision: int, entry: PortSet = DB) -> types.Change:
    return types.Change(revision=revision, port_set=port_set_to_proto(entry))


def deleted(revision: int, key: str) -> types.Change:
    return types.Change(revision=revision, deleted=types.Tombstone(key=key))


def follow(follower: Follower, *messages: manager.ChangesResponse) -> list[tuple[int, str, str]]:
    events = [event for message in messages for event in follower.take(message)]
    return [(event.revision, event.what, event.reference) for event in events]


def test_the_snapshot_is_there_and_what_comes_after_is_a_change() -> None:
    follower = Follower()
    bound = PortSet(DB.owner, "t1", binding=Binding("c1"), revision=6)
    later = changes(port_set(6, bound), deleted(7, "network/abc"))
    assert follow(follower, reset(), changes(network(3)), synced(3), changes(port_set(4)), later) == [
        (3, "there", "network/t1/control"),
        (4, "added", "portset/named/t1/db"),
        (6, "changed", "portset/named/t1/db"),
        (7, "deleted", "network/t1/control"),
    ]
    assert follower.revision == 7


def test_only_the_kinds_asked_for_are_told() -> None:
    follower = Follower(kinds=[NETWORK])
    assert follow(follower, reset(), changes(network(3), port_set(4)), synced(4)) == [(3, "there", "network/t1/control")]


def test_a_tombstone_of_something_unknown_is_told_by_its_key() -> None:
    follower = Follower()
    assert follow(follower, reset(), synced(5), changes(deleted(6, "portset/named/t1/x"))) == [(6, "deleted", "portset/named/t1/x")]


def test_a_deleted_group_and_claim_are_told_by_their_names() -> None:
    group = IPGroup("t2", "ig0", "t1/control", revision=4)
    claim = IPClaim("t2", "vm", "t1/control", revision=5)
    made = types.Change(revision=4, ip_group=ip_group_to_proto(group)), types.Change(revision=5, ip_claim=ip_claim_to_proto(claim))
    held = changes(network(3), *made)
    gone = changes(deleted(6, "group/abc/t2/ig0"), deleted(7, "claim/t2/vm"))
    assert follow(Follower(), reset(), held, synced(5), gone)[-2:] == [
        (6, "deleted", "ipgroup/t2/t1/control/ig0"),
        (7, "deleted", "ipclaim/t2/vm"),
    ]


def test_a_reset_tells_only_what_differs() -> None:
    follower = Follower()
    follow(follower, reset(), changes(network(3), port_set(4)), synced(4))
    renewed = Network("t1", "media", id="def", revision=9)
    assert follow(follower, reset("e2"), changes(network(3), network(9, renewed)), synced(9, "e2")) == [
        (9, "added", "network/t1/media"),
        (9, "deleted", "portset/named/t1/db"),
    ]
    assert (follower.epoch, follower.revision) == ("e2", 9)


def test_an_object_of_a_later_release_is_passed_over() -> None:
    assert follow(Follower(), reset(), changes(types.Change(revision=3)), synced(3)) == []


def test_a_line_tells_revision_event_reference_and_fields() -> None:
    follower = Follower()
    events: list[Any] = [event for message in (reset(), changes(network(3), port_set(4))) for event in follower.take(message)]
    assert following.line(events[0], 0, False) == "       3  there    network/t1/control  type=bridge  shared=private  state=active"
    assert following.line(events[1], 0, False).split() == ["4", "there", "portset/named/t1/db", "state=reserved"]
    told = following.as_json(events[0])
    assert (told["revision"], told["event"], told["object"]["kind"]) == (3, "there", "Network")
