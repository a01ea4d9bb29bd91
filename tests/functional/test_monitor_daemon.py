"""The monitor as a process beside a real manager: folders reach the manager, and what the manager holds reaches the nodes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness.daemons import Daemons
from harness.monitor import eventually
from harness.monitor_stack import Stack, declare, replace_file

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.errors import KnitterError


@pytest.fixture
async def stack(daemons: Daemons, tmp_path: Path) -> AsyncIterator[Stack]:
    made = Stack(daemons, tmp_path)
    yield made
    await made.close()


async def test_a_change_in_the_folder_reaches_the_nodes_that_need_it(stack: Stack) -> None:
    replace_file(stack.folder / "a.yaml", declare("blue", "10.1.0.0/24"))
    replace_file(stack.folder / "b.yaml", declare("red", "10.2.0.0/24"))
    await stack.start_manager()
    await stack.start_monitor()
    blue = await stack.until_network("blue", bool)
    assert blue is not None
    assert blue.source == "files:test"
    await stack.until_network("red", bool)
    first, second = stack.watch("n1"), stack.watch("n2")
    port_set = await stack.allocate("n1", "c1", "blue")
    topic = f"network/{blue.id}"
    await first.until(lambda state: topic in state.topics and state.topics[topic].synced)
    assert first.state.topics[topic].objects[f"network/{blue.id}"].network.mtu == 0
    replace_file(stack.folder / "a.yaml", declare("blue", "10.1.0.0/24", mtu=1400))
    await first.until(lambda state: state.topics[topic].objects[f"network/{blue.id}"].network.mtu == 1400)
    assert len(first.state.topics["node/n1"].objects) == 1
    await stack.release(port_set)
    await first.until(lambda state: topic not in state.topics and len(state.topics["node/n1"].removed) == 1)
    await second.until(lambda state: state.topics["node/n2"].synced)
    assert set(second.state.topics) == {"node/n2"}


async def test_what_vanished_goes_when_nothing_uses_it(stack: Stack) -> None:
    replace_file(stack.folder / "a.yaml", declare("blue", "10.1.0.0/24"))
    replace_file(stack.folder / "b.yaml", declare("red", "10.2.0.0/24"))
    await stack.start_manager()
    await stack.start_monitor()
    await stack.until_network("red", bool)
    port_set = await stack.allocate("n1", "c1", "red")
    (stack.folder / "b.yaml").unlink()
    (problem,) = await stack.until_problems(bool)
    assert (problem.reason, problem.place, problem.object) == ("OBJECT_IN_USE", "b.yaml", "Network admin/red")
    await stack.release(port_set)
    await stack.until_network("red", lambda found: found is None)
    await stack.until_problems(lambda problems: not problems)
    (stack.folder / "a.yaml").unlink()
    problems = await stack.until_problems(bool)
    assert [problem.reason for problem in problems] == ["SOURCE_INCOMPLETE"]
    assert await stack.network("blue")


async def test_a_bad_file_beside_good_ones_is_told_and_stops_nobody(stack: Stack) -> None:
    replace_file(stack.folder / "a.yaml", declare("blue", "10.1.0.0/24") + "---\n" + declare("bad", "10.3.0.7/24"))
    replace_file(stack.folder / "b.yaml", "{ no yaml")
    replace_file(stack.folder / "c.yaml", declare("red", "10.2.0.0/24"))
    await stack.start_manager()
    await stack.start_monitor()
    await stack.until_network("blue", bool)
    await stack.until_network("red", bool)
    problems = await stack.until_problems(lambda problems: len(problems) == 2)
    assert [problem.place.split(",")[0] for problem in problems] == ["a.yaml", "b.yaml"]
    assert "10.3.0.0/24" in problems[0].message, "the right CIDR is suggested"
    replace_file(stack.folder / "a.yaml", declare("blue", "10.1.0.0/24") + "---\n" + declare("bad", "10.3.0.0/24"))
    replace_file(stack.folder / "b.yaml", "")
    await stack.until_network("bad", bool)
    await stack.until_problems(lambda problems: not problems)


async def test_objects_of_other_sources_are_left_alone_and_told(stack: Stack) -> None:
    await stack.start_manager()
    network = types.Network(tenant="admin", name="blue", subnets=[types.Subnet(cidr="10.1.0.0/24")])
    await stack.manager("CreateNetwork", pb.CreateNetworkRequest(network=network))
    replace_file(stack.folder / "a.yaml", declare("blue", "10.1.0.0/24", mtu=1400))
    await stack.start_monitor()
    (problem,) = await stack.until_problems(bool)
    assert problem.reason == "SOURCE_FOREIGN"
    await stack.manager("DeleteNetwork", pb.DeleteNetworkRequest(tenant="admin", name="blue"))
    await stack.until_network("blue", lambda found: found and found.mtu == 1400)
    await stack.until_problems(lambda problems: not problems)
    with pytest.raises(KnitterError) as caught:
        await stack.manager("DeleteNetwork", pb.DeleteNetworkRequest(tenant="admin", name="blue"))
    assert caught.value.reason == "SOURCE_FOREIGN"


async def test_it_serves_once_the_manager_is_known_and_applies_when_it_comes(stack: Stack) -> None:
    replace_file(stack.folder / "a.yaml", declare("blue", "10.1.0.0/24"))
    monitor = asyncio.create_task(stack.start_monitor())
    done, _ = await asyncio.wait((monitor,), timeout=1.5)
    assert not done, "without a manager it does not serve"
    await stack.start_manager()
    await monitor
    await stack.until_network("blue", bool)


async def test_a_manager_killed_and_restarted_is_followed_on_without_a_reset(stack: Stack) -> None:
    replace_file(stack.folder / "a.yaml", declare("blue", "10.1.0.0/24"))
    manager = await stack.start_manager()
    await stack.start_monitor()
    await stack.until_network("blue", bool)
    node = stack.watch("n1")
    await stack.allocate("n1", "c1", "blue")
    await node.until(lambda state: len(state.topics) == 2 and all(topic.synced for topic in state.topics.values()))
    await asyncio.to_thread(manager.kill)
    replace_file(stack.folder / "b.yaml", declare("red", "10.2.0.0/24"))
    await stack.start_manager()
    await stack.until_network("red", bool)
    await stack.allocate("n1", "c2", "blue")
    await node.until(lambda state: len(state.topics["node/n1"].objects) == 2)
    assert (node.cuts, [topic.resets for topic in node.state.topics.values()]) == ([], [1, 1])


async def test_a_monitor_killed_and_restarted_loses_nothing(stack: Stack) -> None:
    replace_file(stack.folder / "a.yaml", declare("blue", "10.1.0.0/24"))
    await stack.start_manager()
    monitor = await stack.start_monitor()
    before = await stack.until_network("blue", bool)
    assert before is not None
    node = stack.watch("n1")
    kept, gone = [await stack.allocate("n1", name, "blue") for name in ("c1", "c2")]
    await node.until(lambda state: len(state.topics) == 2 and len(state.topics["node/n1"].objects) == 2)
    await asyncio.to_thread(monitor.kill)
    await stack.release(gone)
    await stack.start_monitor()
    await node.until(lambda state: len(state.topics["node/n1"].objects) == 1 and state.topics["node/n1"].synced)
    (change,) = node.state.topics["node/n1"].objects.values()
    assert change.port_set.owner == kept.owner
    await stack.until_problems(lambda problems: not problems)
    after = await stack.network("blue")
    assert after is not None
    assert after.revision == before.revision, "applying the same again changes nothing"


async def test_another_store_is_another_epoch_everything_begins_anew(stack: Stack) -> None:
    replace_file(stack.folder / "a.yaml", declare("blue", "10.1.0.0/24"))
    manager = await stack.start_manager()
    await stack.start_monitor()
    await stack.until_network("blue", bool)
    node = stack.watch("n1")
    await stack.allocate("n1", "c1", "blue")
    await node.until(lambda state: len(state.topics) == 2 and all(topic.synced for topic in state.topics.values()))
    epoch = node.state.epoch
    assert epoch
    await asyncio.to_thread(manager.terminate)
    stack.manager_config["store"] = {"kind": "sqlite", "path": str(stack.home / "another.db")}
    await stack.start_manager()
    await node.until(lambda state: state.epoch != epoch and state.topics["node/n1"].synced)
    assert not node.state.topics["node/n1"].objects
    assert not node.state.topics["node/n1"].removed, "absence is never an order"
    await stack.until_network("blue", bool)
    await stack.allocate("n1", "c3", "blue")
    await node.until(lambda state: len(state.topics["node/n1"].objects) == 1)


async def test_it_ends_gracefully_while_nodes_watch(stack: Stack) -> None:
    await stack.start_manager()
    monitor = await stack.start_monitor()
    node = stack.watch("n1")
    await node.until(lambda state: state.topics and state.topics["node/n1"].synced)
    assert await asyncio.to_thread(monitor.terminate, 5.0) == 0
    await eventually(lambda: "SHUTTING_DOWN" in node.cuts)
