"""Ports, sandboxes and a node for the tests of bridge networks.

A network is a letter: network "a" has 10.97.1.0/24 and 2001:db8:61::/64, its gateways are the first addresses.
"""

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

from harness.netns import entered, ip, network_namespace
from knitter_agent.drivers import UNCHANGED, Changed, Driver, HostInterface, Wiring, driver_for
from knitter_agent.netlink import Kernel, Namespace
from knitter_common.model import NetworkType, Port, PortAddress


def network_id(letter: str) -> str:
    """12 letters, as the manager makes them."""
    return letter * 12


def v4(number: int, letter: str = "a") -> str:
    """An IPv4 address of the network."""
    return f"10.{ord(letter)}.1.{number}"


def v6(number: int, letter: str = "a") -> str:
    """An IPv6 address of the network."""
    return f"2001:db8:{ord(letter):x}::{number:x}"


def port(number: int, letter: str = "a", **changes: Any) -> Port:
    """A dual-stack port with the addresses of that number; `changes` are fields of Port."""
    values: dict[str, Any] = {
        "id": f"port{number}",
        "network_id": network_id(letter),
        "network": f"admin/{letter}",
        "interface": "eth0",
        "mac": f"02:00:00:00:{ord(letter):02x}:{number:02x}",
        "mtu": 1400,
        "node_gateway": True,
        "primary": True,
        "addresses": (
            PortAddress(f"{v4(number, letter)}/24", v4(1, letter)),
            PortAddress(f"{v6(number, letter)}/64", v6(1, letter)),
        ),
    }
    return Port(**{**values, **changes})


class BridgeNode:
    """A node: a namespace of its own, in which the calling thread is, with the driver and its Kernel."""

    def __init__(self, path: str, kernel: Kernel, stack: contextlib.ExitStack) -> None:
        self.path = path
        self.kernel = kernel
        self.driver: Driver = driver_for(NetworkType.BRIDGE)
        self._stack = stack

    def sandbox(self) -> str:
        """The path of a new, empty sandbox."""
        return self._stack.enter_context(network_namespace("pod"))

    def plan(self, wanted: Port) -> Wiring:
        """A wiring under an attachment key of its own."""
        return self.driver.plan(wanted, f"knitter/{secrets.token_hex(4)}/eth0")

    def attach(self, sandbox: str, wiring: Wiring) -> tuple[HostInterface, ...]:
        """ADD."""
        with Namespace(sandbox) as opened:
            return self.driver.attach(self.kernel, opened, wiring)

    def attached(self, sandbox: str, wanted: Port) -> Wiring:
        """Plans and attaches."""
        wiring = self.plan(wanted)
        self.attach(sandbox, wiring)
        return wiring

    def pod(self, wanted: Port) -> tuple[str, Wiring]:
        """A new sandbox with that port."""
        sandbox = self.sandbox()
        return sandbox, self.attached(sandbox, wanted)

    def detach(self, *wirings: Wiring) -> None:
        """DEL."""
        self.driver.detach(self.kernel, wirings)

    def check(self, sandbox: str, wiring: Wiring, changed: Changed = UNCHANGED) -> list[str]:
        """CHECK."""
        with Namespace(sandbox) as opened:
            return list(self.driver.check(self.kernel, opened, wiring, changed))

    def links(self) -> set[str]:
        """The names of the node's links but loopback."""
        return {link["ifname"] for link in ip(None, "link")} - {"lo"}


@contextlib.contextmanager
def bridge_node() -> Iterator[BridgeNode]:
    """A node and its sandboxes; all are gone afterwards."""
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(network_namespace("node"))
        stack.enter_context(entered(path))
        yield BridgeNode(path, stack.enter_context(Kernel()), stack)


def addresses(link: dict[str, Any]) -> set[str]:
    """The CIDRs that `ip addr` shows of a link."""
    return {f"{entry['local']}/{entry['prefixlen']}" for entry in link["addr_info"]}
