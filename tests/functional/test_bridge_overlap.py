"""ADDs in one thread and undos in another, as in the agent: a bridge comes and goes between them, and nobody loses a port by it."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.bridges import BridgeNode, bridge_node, port

from knitter_agent.drivers import Wiring
from knitter_agent.netlink import Kernel

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")

PODS = 25


@pytest.fixture
def node() -> Iterator[BridgeNode]:
    with bridge_node() as one:
        yield one


@pytest.fixture
def remover() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as thread:  # a thread is born in the namespace of the one that starts it
        yield thread


def test_a_port_that_comes_while_the_last_one_goes_has_its_bridge(node: BridgeNode, remover: ThreadPoolExecutor) -> None:
    with Kernel() as second:
        leaving: Wiring | None = None
        for number in range(PODS):
            sandbox, wiring = node.sandbox(), node.plan(port(10 + number))
            going = remover.submit(node.driver.detach, second, [leaving] if leaving else [])
            node.attach(sandbox, wiring)
            going.result()
            assert node.check(sandbox, wiring) == []
            leaving = wiring
        assert leaving is not None
        node.detach(leaving)
    assert node.links() == set()


def test_a_repair_beside_an_undo_leaves_no_bridge_behind(node: BridgeNode, remover: ThreadPoolExecutor) -> None:
    with Kernel() as second:
        for number in range(PODS):
            _, wiring = node.pod(port(10 + number))
            repairing = remover.submit(node.driver.repair, second, [wiring])
            assert repairing.result().lost == ()
            going = remover.submit(node.driver.detach, second, [wiring])
            node.pod(port(10 + number, "b"))
            going.result()
    assert {name for name in node.links() if name.startswith("kbra")} == set()
