"""The node does not forward between networks of different tenants, whatever it forwards otherwise."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.bridges import BridgeNode, bridge_node, network_id, port, v4, v6
from harness.netns import ip, ping

from knitter_agent.drivers.bridge import BridgeDriver
from knitter_agent.drivers.protocol import Wiring
from knitter_agent.netlink import sysctl
from knitter_common.model import Network, Port, Subnet

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture
def node() -> Iterator[BridgeNode]:
    """One that forwards both families, with a driver of its own."""
    with bridge_node() as made:
        made.driver = BridgeDriver()
        sysctl.ensure("ipv4/ip_forward", "1")
        sysctl.ensure("ipv6/conf/all/forwarding", "1")
        yield made
        assert made.links() <= {"up0"}
        assert nft() == ""


def nft(*arguments: str) -> str:
    """What nft prints, of all rules if nothing else is asked."""
    return subprocess.run(["nft", *(arguments or ("list", "ruleset"))], capture_output=True, text=True, check=True).stdout


def of(tenant: str, letter: str, number: int = 10, **changes: object) -> Port:
    """A port on the tenant's network of that letter."""
    return port(number, letter, network=f"{tenant}/{letter}", **changes)


def network(tenant: str, letter: str, **fields: object) -> Network:
    """As a monitor pushes it, of the same shape as the ports' network."""
    subnets = Subnet(f"10.{ord(letter)}.1.0/24", v4(1, letter)), Subnet(f"2001:db8:{ord(letter):x}::/64", v6(1, letter))
    return Network(tenant, letter, id=network_id(letter), subnets=subnets, mtu=1400, **fields)  # type: ignore[arg-type]


def reaches(sandbox: str, letter: str, number: int = 10) -> bool:
    """Whether a ping gets there, the same in both families."""
    answers = []
    for target in (v4(number, letter), v6(number, letter)):
        try:
            ping(sandbox, target, timeout=0.4)
            answers.append(True)
        except (TimeoutError, OSError):
            answers.append(False)
    assert len(set(answers)) == 1, answers
    return answers[0]


def test_between_tenants_nothing_passes_and_all_else_does(node: BridgeNode) -> None:
    first, one = node.pod(of("t1", "a"))
    second, two = node.pod(of("t1", "b"))
    other, three = node.pod(of("t2", "c"))
    near, four = node.pod(of("t1", "a", 11))
    assert reaches(first, "a", 11)
    assert reaches(near, "a")
    assert reaches(first, "b")  # one tenant's
    assert reaches(second, "a")
    for sandbox, letter in ((first, "c"), (second, "c"), (other, "a"), (other, "b")):
        assert not reaches(sandbox, letter)
    node.detach(three)
    assert nft() == ""  # with one tenant left there is nothing to keep apart
    _, three = node.pod(of("t2", "c"))
    assert not reaches(first, "c")
    node.detach(one, two, three, four)


def test_a_public_network_is_reached_and_reaches_nobody(node: BridgeNode) -> None:
    inner, one = node.pod(of("t1", "a"))
    shared, two = node.pod(of("admin", "p", public=True))
    guest, three = node.pod(of("admin", "p", 11, public=True))
    assert reaches(inner, "p")  # and the answer comes back
    assert reaches(shared, "p", 11)
    assert not reaches(shared, "a")
    assert not reaches(guest, "a")
    node.detach(one, two, three)


def test_so_does_the_default_network_which_everybody_is_on(node: BridgeNode) -> None:
    inner, one = node.pod(of("t1", "a"))
    anybody, two = node.pod(of("admin", "d", default_network=True))
    two = node.driver.follow(two, network("admin", "d"))
    assert reaches(inner, "d")
    assert not reaches(anybody, "a")
    node.driver.settle(node.kernel, [(two, two)])
    assert not reaches(anybody, "a")
    node.detach(one, two)


def test_outside_is_reached_as_before(node: BridgeNode) -> None:
    outside = node.sandbox()
    ip(None, "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", Path(outside).name)
    ip(None, "addr", "add", "192.0.2.1/24", "dev", "up0")
    ip(outside, "addr", "add", "192.0.2.2/24", "dev", "eth0")
    ip(None, "link", "set", "up0", "up")
    ip(outside, "link", "set", "eth0", "up")
    ip(outside, "route", "add", v4(0, "b") + "/24", "via", "192.0.2.1")
    hidden, one = node.pod(of("t1", "a", masquerade=True))
    plain, two = node.pod(of("t2", "b"))
    ping(hidden, "192.0.2.2")
    ping(plain, "192.0.2.2")
    ping(outside, v4(10, "b"))
    assert not reaches(hidden, "b")
    assert not reaches(plain, "a")
    node.detach(one)
    ping(plain, "192.0.2.2")
    node.detach(two)


def test_who_may_use_a_network_can_change_while_pods_are_on_it(node: BridgeNode) -> None:
    first, one = node.pod(of("t1", "a"))
    _, two = node.pod(of("t2", "b"))

    def follow(wiring: Wiring, now: Network) -> Wiring:
        after = node.driver.follow(wiring, now)
        node.driver.settle(node.kernel, [(wiring, after)])
        return after

    assert not reaches(first, "b")
    two = follow(two, network("t2", "b", exported_to=("t1",)))
    assert reaches(first, "b")
    two = follow(two, network("t2", "b", exported_to=("t3",)))
    assert not reaches(first, "b")
    one = follow(one, network("t1", "a", masquerade=True))
    assert not reaches(first, "b")
    one = follow(one, network("t1", "a"))
    assert "masquerade" not in nft()
    assert not reaches(first, "b")
    node.detach(one, two)


def test_another_port_forgets_nobody_to_whom_a_network_is_exported(node: BridgeNode) -> None:
    first, one = node.pod(of("t1", "a"))
    _, two = node.pod(of("t2", "b", exported=True))
    assert not reaches(first, "b")  # to whom is not known yet
    two, before = node.driver.follow(two, network("t2", "b", exported_to=("t1",))), two
    node.driver.settle(node.kernel, [(before, two)])
    assert reaches(first, "b")
    _, three = node.pod(of("t2", "b", 11, exported=True))
    assert reaches(first, "b")
    node.detach(one, two, three)


def test_rules_that_somebody_took_away_are_there_again(node: BridgeNode) -> None:
    first, one = node.pod(of("t1", "a"))
    _, two = node.pod(of("t2", "b"))
    nft("flush", "ruleset")
    assert reaches(first, "b")
    mended = node.driver.repair(node.kernel, [one, two])
    assert len(mended.done) == 2
    assert not reaches(first, "b")
    assert node.driver.repair(node.kernel, [one, two]).done == ()
    node.detach(one, two)


def test_what_an_earlier_process_left_is_replaced(node: BridgeNode) -> None:
    first, one = node.pod(of("t1", "a", masquerade=True))
    _, two = node.pod(of("t2", "b"))
    node.driver = BridgeDriver()
    one = node.driver.follow(one, network("t1", "a"))
    node.driver.repair(node.kernel, [one])
    assert "masquerade" not in nft()
    assert not reaches(first, "b")  # not between one repair and the next one either
    node.driver.repair(node.kernel, [two])
    assert not reaches(first, "b")
    node.detach(two)
    assert nft() == ""
    second, two = node.pod(of("t1", "b"))
    assert reaches(first, "b")
    assert reaches(second, "a")
    node.driver = BridgeDriver()
    node.detach(one, two)


def test_tables_of_networks_that_went_with_an_earlier_process_go_too(node: BridgeNode) -> None:
    _, one = node.pod(of("t1", "a"))
    _, two = node.pod(of("t2", "b"))
    node.driver = BridgeDriver()
    node.detach(one, two)


def test_where_there_is_nothing_to_keep_apart_nft_is_not_needed(node: BridgeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", "/nowhere")
    _, one = node.pod(of("t1", "a"))
    _, two = node.pod(of("t1", "b"))
    third = node.sandbox()
    with pytest.raises(Exception, match="nft is not installed on this node"):
        node.attached(third, of("t2", "c"))
    node.detach(one, two, node.plan(of("t2", "c")))
    monkeypatch.setenv("PATH", path)
