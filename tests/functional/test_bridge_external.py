"""A network of type bridge that exists outside Knitter: its ports are on the bridge it names, which stays somebody else's."""

import os
from collections.abc import Iterator

import pytest
from harness.bridges import BridgeNode, bridge_node, port, v4
from harness.netns import ip, ping

from knitter_agent.drivers.bridge import BridgeDriver
from knitter_common.errors import Refused
from knitter_common.model import Network, Port, Subnet

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture
def node() -> Iterator[BridgeNode]:
    """One with a bridge of somebody else, `br-ext`, that carries the gateway."""
    with bridge_node() as made:
        made.driver = BridgeDriver()
        ip(None, "link", "add", "br-ext", "type", "bridge")
        ip(None, "link", "set", "br-ext", "mtu", "1400", "address", "02:00:00:00:00:ee")
        ip(None, "addr", "add", f"{v4(1)}/24", "dev", "br-ext")
        ip(None, "link", "set", "br-ext", "up")
        yield made


def external(number: int, **changes: object) -> Port:
    """A port of the external network; the manager says that no node carries its gateway."""
    values: dict[str, object] = {"external": True, "physical_network": "br-ext", "node_gateway": False}
    return port(number, **{**values, **changes})


def test_ports_are_on_the_bridge_that_is_there(node: BridgeNode) -> None:
    before = ip(None, "link", "show", "br-ext")
    first, one = node.pod(external(10))
    _, two = node.pod(external(11))
    ping(first, v4(11))
    ping(first, v4(1))
    assert len(node.links()) == 3
    assert {link["master"] for link in ip(None, "link") if link["ifname"].startswith("kv")} == {"br-ext"}
    assert node.check(first, one) == []
    node.detach(one, two)
    assert node.links() == {"br-ext"}
    after = ip(None, "link", "show", "br-ext")
    assert [one.get("ifalias") for one in after] == [None]
    assert [after[0][key] for key in ("mtu", "address")] == [before[0][key] for key in ("mtu", "address")]
    assert "UP" in after[0]["flags"]


def test_without_the_bridge_nothing_is_made(node: BridgeNode) -> None:
    sandbox = node.sandbox()
    with pytest.raises(Refused, match="bridge br-none is not on this node"):
        node.attached(sandbox, external(10, physical_network="br-none"))
    with pytest.raises(Refused, match="bridge lo of this node is a device"):
        node.attached(sandbox, external(10, physical_network="lo"))
    assert node.links() == {"br-ext"}


def test_what_changes_of_the_network_leaves_the_bridge_alone(node: BridgeNode) -> None:
    _, one = node.pod(external(10))
    subnet = Subnet(f"{v4(0)}/24", v4(1))
    now = Network("admin", "a", id="a" * 12, subnets=(subnet,), mtu=1300, external=True, physical_network="br-ext")
    after = node.driver.follow(one, now)
    node.driver.settle(node.kernel, [(one, after)])
    (bridge,) = ip(None, "addr", "show", "br-ext")
    assert bridge["mtu"] == 1400
    assert [one["local"] for one in bridge["addr_info"] if one["family"] == "inet"] == [v4(1)]
    node.detach(after)


def test_it_is_not_made_again_when_it_is_gone(node: BridgeNode) -> None:
    sandbox, one = node.pod(external(10))
    ip(None, "link", "del", "br-ext")
    mended = node.driver.repair(node.kernel, [one])
    assert mended.done == ()
    assert "br-ext" in mended.lost[0]
    assert "br-ext" in node.check(sandbox, one)[0]
    ip(None, "link", "add", "br-ext", "type", "bridge")
    ip(None, "link", "set", "br-ext", "up")
    assert len(node.driver.repair(node.kernel, [one]).done) == 1
    assert node.check(sandbox, one) == []
    node.detach(one)
