"""CheckState and the nodes: a real manager behind gRPC, whose agents' lines are real and whose journals the test writes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from harness.manager import serving
from harness.rules import Manager, named_owner, pod_owner, refusal, wish

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_agent.manager_client import ManagerClient
from knitter_common.convert import owner_from_proto
from knitter_common.errors import KnitterError, from_status
from knitter_common.managers import Backoff, Managers
from knitter_manager import keys
from knitter_manager.store import Store
from knitter_manager.store.memory import MemoryStore


class Node:
    """A node's line to the manager. `journal` is what it says is in use."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.journal = name, list[types.PortSet]()
        self.looks = 0
        self.client = ManagerClient(Managers([address]), self._told, Backoff(first=0.01, most=0.05), node=name, in_use=self._in_use)

    async def _told(self, managers: Managers) -> None:
        request = pb.ReconcileRequest(node=types.Node(name=self.name), in_use=self.journal)
        await managers.call(lambda manager: manager.Reconcile, request)

    def _in_use(self) -> Sequence[types.PortSet]:
        self.looks += 1
        return self.journal


class Site:
    """A manager and its nodes."""

    def __init__(self, stub: Any, address: str, store: Store) -> None:
        self.manager, self.stub, self.address, self.store = Manager(stub), stub, address, store
        self.nodes: dict[str, Node] = {}

    async def node(self, name: str) -> Node:
        """One whose line is open, as the manager says."""
        node = self.nodes[name] = Node(name, self.address)
        node.client.start()
        await self.until(name, True)
        return node

    async def until(self, name: str, connected: bool) -> None:
        """Until the manager has noticed."""
        async with asyncio.timeout(10):
            while {one.node: one.connected for one in await self.usage()}.get(name, False) is not connected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def usage(self) -> Any:
        """Of the nodes."""
        return (await self.stub.ListNodeUsage(pb.ListNodeUsageRequest())).nodes

    async def check(self) -> tuple[list[pb.Finding], pb.CheckSummary]:
        """With the nodes."""
        findings: list[pb.Finding] = []
        async for response in self.stub.CheckState(pb.CheckStateRequest(nodes=True)):
            findings += response.findings
        return findings, response.summary

    async def sandbox(self, container: str, node: str = "n1", network: str = "control") -> types.PortSet:
        """A set in use."""
        owner = types.Owner(sandbox=types.SandboxOwner(node=node, container_id=container, cni_network="k", interface="eth0"))
        return await self.manager.allocate(owner, wish(network), node=node, tenant="t1", sandbox=container)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    store = MemoryStore()
    async with serving(store, rest="0s") as (stub, _):
        address = (await stub.GetStatus(pb.GetStatusRequest())).name
        made = Site(stub, address, store)
        await made.manager.network("control", "10.1.0.0/16")
        yield made
        for node in made.nodes.values():
            await node.client.close()


async def test_equal_journals_are_no_difference(site: Site) -> None:
    node = await site.node("n1")
    node.journal = [await site.sandbox(f"c{number}") for number in range(450)]  # three messages
    await site.node("n2")
    await site.manager.pod("later", wish("control"), node="n1")  # pushed perhaps, and used by no sandbox
    await site.manager.allocate(named_owner("vm"), wish("control"), node="n2")
    findings, summary = await site.check()
    assert findings == []
    assert (list(summary.asked), list(summary.not_asked)) == (["n1", "n2"], [])
    assert node.looks == 1


async def test_each_difference_is_named_and_a_passing_one_is_not(site: Site) -> None:
    node = await site.node("n1")
    kept, lost, moved = [await site.sandbox(name) for name in ("kept", "lost", "moved")]
    bound = await site.manager.pod("web-0", wish("control"), node="n1", sandbox="c9")
    other = types.PortSet()
    other.CopyFrom(moved)
    other.ports[0].addresses[0].cidr = "10.1.9.9/16"
    unknown = types.PortSet()
    unknown.CopyFrom(kept)
    unknown.owner.sandbox.container_id = "unknown"
    passing = await site.sandbox("passing")
    looks = iter(([kept, other, unknown], [kept, other, unknown, passing]))
    node.client._in_use = lambda: next(looks)
    findings, summary = await site.check()
    assert list(summary.asked) == ["n1"]
    told = {(pb.FindingKind.Name(one.kind).removeprefix("FINDING_KIND_"), one.node): one.message for one in findings}
    assert {kind for kind, _ in told} == {"NOT_IN_JOURNAL", "NOT_IN_STORE", "JOURNAL_DIFFERS"}
    missing = [one for one in findings if one.kind == pb.FINDING_KIND_NOT_IN_JOURNAL]
    assert sorted(one.message.partition(" has ")[0] for one in missing) == ["pod t1/web-0", "sandbox lost on n1"]
    assert {one.revision for one in missing} == {bound.revision, lost.revision}
    assert "sandbox unknown on n1 runs on n1 with 10.1.0.1; the store has no set of it" in told["NOT_IN_STORE", "n1"]
    assert "eth_control is 10.1.9.9/16 with MAC" in told["JOURNAL_DIFFERS", "n1"]
    assert len(findings) == 4


async def test_nodes_that_cannot_be_asked_are_named(site: Site) -> None:
    node = await site.node("n1")
    await site.sandbox("c1")
    await site.node("n2")
    await site.stub.CreateNode(pb.CreateNodeRequest(node=types.Node(name="n3")))
    await site.stub.CreateNode(pb.CreateNodeRequest(node=types.Node(name="n4")))
    await site.stub.UpdateNode(pb.UpdateNodeRequest(node=types.Node(name="n4", gone=True)))
    await node.client.close()
    await site.until("n1", False)
    findings, summary = await site.check()
    assert findings == []
    assert list(summary.asked) == ["n2"]
    assert {one.node: one.why for one in summary.not_asked} == {"n1": "not connected", "n3": "not connected"}


async def test_what_a_node_uses_is_never_freed(site: Site) -> None:
    node = await site.node("n1")
    held = await site.sandbox("c1")
    node.journal = [held]
    await site.store.commit([], {}, [keys.port_set(owner_from_proto(held.owner).key)])  # a defect
    findings, _ = await site.check()
    kinds = sorted(pb.FindingKind.Name(one.kind).removeprefix("FINDING_KIND_") for one in findings)
    assert kinds == ["NOT_IN_STORE", "ORPHAN", "ORPHAN"]
    (info,) = (await site.stub.GetAddress(pb.GetAddressRequest(address="10.1.0.1"))).addresses
    assert (info.orphan, info.owner.sandbox.container_id) == (True, "c1")
    orphans = [one for one in findings if one.repairable]
    assert (info.key, info.revision) in [(one.key, one.revision) for one in orphans]

    async def repaired(force: bool) -> list[KnitterError | None]:
        request = pb.RepairStateRequest(findings=orphans, force=force)
        repairs = (await site.stub.RepairState(request)).repairs
        return [from_status(one.error) if one.HasField("error") else None for one in repairs]

    for refused in await repaired(force=True):
        assert refused is not None
        assert refused.reason == "OBJECT_IN_USE"
        assert "is in use on node n1" in refused.message
    await node.client.close()
    await site.until("n1", False)
    await site.node("n2")  # where it cannot be
    for refused in await repaired(force=False):
        assert refused is not None
        assert refused.reason == "NODES_NOT_ASKED"
        assert "n1 (not connected)" in refused.message
    assert await repaired(force=True) == [None, None]
    assert (await site.check())[0] == []


async def test_a_set_is_ended_by_hand_when_nobody_uses_it(site: Site) -> None:
    used = await site.sandbox("c1")
    with refusal("OBJECT_IN_USE", "sandbox c1 on n1 has 10.1.0.1", "sandbox c1 on node n1 uses them"):
        await site.stub.EndPortSet(pb.EndPortSetRequest(owner=used.owner))
    await site.manager.pod("web-0", wish("control"), sticky=True)
    with refusal("OBJECT_IN_USE", "reserved for it as long as it is there"):
        await site.stub.EndPortSet(pb.EndPortSetRequest(owner=pod_owner("web-0")))
    await site.manager.end_pod("web-0")
    (kept,) = [one for one in await site.manager.sets() if one.state == types.PORT_SET_STATE_KEPT]
    with refusal("REVISION_STALE"):
        await site.stub.EndPortSet(pb.EndPortSetRequest(owner=kept.owner, revision=kept.revision - 1))
    ended = await site.stub.EndPortSet(pb.EndPortSetRequest(owner=kept.owner, revision=kept.revision))
    assert ended.port_set == kept
    await site.manager.allocate(named_owner("vm"), wish("control"))
    assert (await site.stub.EndPortSet(pb.EndPortSetRequest(owner=named_owner("vm")))).HasField("port_set")
    assert not (await site.stub.EndPortSet(pb.EndPortSetRequest(owner=named_owner("vm")))).HasField("port_set")
    assert (await site.stub.EndPortSet(pb.EndPortSetRequest(owner=used.owner, force=True))).port_set == used
    assert await site.manager.sets() == []
    assert (await site.check())[0] == []
