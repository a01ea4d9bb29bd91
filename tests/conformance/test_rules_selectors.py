"""The rules of selectors, through the API, on every store: who may use a network or a pool, by labels of the namespace, the pod and
the node; and the order of pools."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness.rules import Manager, manager_on, refusal, told, wish
from harness.stores import KINDS, open_site

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types


@pytest.fixture(params=KINDS)
async def manager(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Manager]:
    """t1 has the label tier=gold, t2 none; node n1 has gpu=a, n2 none."""
    async with open_site(request.param, tmp_path) as site, manager_on(await site.open()) as manager:
        await manager.tenant("t1", labels={"tier": "gold"})
        await manager.node("n1", labels={"gpu": "a"})
        await manager.node("n2")
        yield manager


def having(key: str, operator: str, *values: str) -> types.LabelSelector:
    """One requirement."""
    return types.LabelSelector(match_expressions=[types.LabelRequirement(key=key, operator=operator, values=values)])


GOLD = types.Usability(namespaces=types.LabelSelector(match_labels={"tier": "gold"}))
WEB = types.Usability(pods=types.LabelSelector(match_labels={"app": "web"}))
GPU = types.Usability(nodes=having("gpu", "Exists"))


async def picky(manager: Manager, usable_by: types.Usability) -> None:
    """A public network for some."""
    await manager.network("picky", "10.1.0.0/24", tenant="admin", public=True, usable_by=usable_by)


async def test_a_network_for_namespaces_with_labels(manager: Manager) -> None:
    await picky(manager, GOLD)
    await manager.pod("a", wish("picky"))
    with refusal("TENANT_DENIED", "admin/picky", "tier=gold", "tenant t2 has not"):
        await manager.pod("b", wish("picky"), tenant="t2")
    await manager.tenant("t2", labels={"tier": "gold"})
    await manager.pod("b", wish("picky"), tenant="t2")
    with refusal("TENANT_DENIED", "tenant t3 has not"):
        await manager.claim("c", tenant="t3", network="admin/picky")


async def test_a_network_for_pods_with_labels(manager: Manager) -> None:
    await picky(manager, WEB)
    await manager.pod("a", wish("picky"), labels={"app": "web", "more": "x"})
    for labels in ({}, {"app": "db"}):
        with refusal("TENANT_DENIED", "app=web", "the pod has not"):
            await manager.pod("b", wish("picky"), labels=labels)


async def test_a_network_for_nodes_with_labels(manager: Manager) -> None:
    await picky(manager, GPU)
    await manager.pod("a", wish("picky"), node="n1")
    for node, who in (("n2", "node n2"), ("", "not known yet")):
        with refusal("TENANT_DENIED", who):
            await manager.pod("b", wish("picky"), node=node)
    await manager.stub.UpdateNode(pb.UpdateNodeRequest(node=types.Node(name="n2", labels={"gpu": "b"})))
    await manager.pod("b", wish("picky"), node="n2")


async def test_every_side_that_is_told_must_match(manager: Manager) -> None:
    await picky(manager, types.Usability(namespaces=GOLD.namespaces, pods=WEB.pods, nodes=GPU.nodes))
    await manager.pod("a", wish("picky"), node="n1", labels={"app": "web"})
    for tenant, node, labels in (("t2", "n1", {"app": "web"}), ("t1", "n2", {"app": "web"}), ("t1", "n1", {"app": "db"})):
        with refusal("TENANT_DENIED"):
            await manager.pod("b", wish("picky"), tenant=tenant, node=node, labels=labels)


@pytest.mark.parametrize(
    ("selector", "yes", "no"),
    [
        (having("app", "In", "web", "db"), {"app": "db"}, {"app": "x"}),
        (having("app", "NotIn", "web"), {}, {"app": "web"}),
        (having("app", "Exists"), {"app": ""}, {"other": "x"}),
        (having("app", "DoesNotExist"), {"other": "x"}, {"app": "web"}),
        (types.LabelSelector(), {}, None),
    ],
)
async def test_selectors_are_kubernetes(
    manager: Manager, selector: types.LabelSelector, yes: dict[str, str], no: dict[str, str] | None
) -> None:
    await picky(manager, types.Usability(pods=selector))
    await manager.pod("a", wish("picky"), labels=yes)
    if no is not None:
        with refusal("TENANT_DENIED"):
            await manager.pod("b", wish("picky"), labels=no)


async def test_pools_are_used_in_their_order_and_the_next_when_one_is_full(manager: Manager) -> None:
    pools = [
        types.Pool(start="10.1.0.30", end="10.1.0.31", usable_by=WEB),
        types.Pool(start="10.1.0.20", end="10.1.0.20"),
        types.Pool(start="10.1.0.10", end="10.1.0.10", usable_by=GPU),
    ]
    await manager.network("control", types.Subnet(cidr="10.1.0.0/24", pools=pools))
    web = [told(await manager.pod(f"w{number}", wish("control"), labels={"app": "web"}))[0] for number in range(3)]
    assert web == ["10.1.0.30", "10.1.0.31", "10.1.0.20"]
    for node in ("n2", ""):
        with refusal("POOL_EXHAUSTED", "no free IPv4 address in 10.1.0.0/24"):
            await manager.pod("b", wish("control"), node=node)
    assert told(await manager.pod("b", wish("control"), node="n1")) == ["10.1.0.10"]


async def test_a_pool_that_is_not_for_the_pod_gives_it_nothing(manager: Manager) -> None:
    pools = [types.Pool(start="10.1.0.10", end="10.1.0.19", usable_by=WEB)]
    await manager.network("control", types.Subnet(cidr="10.1.0.0/24", pools=pools))
    with refusal("POOL_EXHAUSTED", "no pool of it is for this namespace, pod and node"):
        await manager.pod("a", wish("control"))
    with refusal("ADDRESS_UNUSABLE", "in no pool that it may use"):
        await manager.pod("a", wish("control", addresses=["10.1.0.11"]))
    assert told(await manager.pod("a", wish("control", addresses=["10.1.0.11"]), labels={"app": "web"})) == ["10.1.0.11"]


async def test_who_has_an_address_keeps_it_when_labels_change(manager: Manager) -> None:
    await picky(manager, GOLD)
    made = await manager.pod("a", wish("picky"))
    await manager.change_tenant("t1", labels={})
    assert await manager.pod("a", wish("picky")) == made
    with refusal("TENANT_DENIED"):
        await manager.pod("b", wish("picky"))
