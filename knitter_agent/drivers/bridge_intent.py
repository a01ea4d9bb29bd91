"""What a port of a bridge network is to become in the kernel: every name and value, pure and fit for the journal.

Names: the bridge `kbr` + network id, 15 characters in all; the veth's end on the node `kv` + 12 hex digits of
sha256(attachment + "/" + interface). Both carry an ifalias by which they are known as ours.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import Any, Self

from knitter_agent.drivers.limits import planned_limits
from knitter_agent.drivers.protocol import Wiring
from knitter_agent.drivers.routes import onlink, planned_routes
from knitter_agent.drivers.ruleset import Realm
from knitter_agent.netlink.shaping import Limit
from knitter_agent.netlink.wire import Link
from knitter_common.errors import Invalid
from knitter_common.model import Network, NetworkType, Port

NAME_LENGTH = 15  # bytes of a link's name (IFNAMSIZ without its zero)
ALIAS_LENGTH = 255  # bytes of an ifalias (IFALIASZ without its zero)
SOMEBODY = "?"  # tenants that are not known yet: a port only tells that there are some
DEFAULT_MTU = 1500  # bytes; what a new veth and a new bridge have


@dataclass(frozen=True, slots=True)
class IntendedRoute:
    """A route; `gateway` "" means on-link, metric and mtu 0 the kernel's default."""

    destination: str
    gateway: str = ""
    metric: int = 0
    mtu: int = 0
    onlink: bool = False


@dataclass(frozen=True, slots=True)
class BridgeIntent:
    """One port. `link_local` "" means that the interface has no IPv6.

    `gateways` (CIDRs that the bridge itself carries), `masquerade`, `bridge_mtu` and who may use it (`tenant`, `public`,
    `exported_to`) are the network's on this node, and follow it; `everybodys` says that it is the default network. With IPv6
    gateways comes a link-local address, from which the node solicits neighbours for what it forwards (RFC 4861 7.2.2): without one
    it reaches only pods that have spoken lately.

    `ingress` limits what goes towards the pod, `egress` what comes from it.
    """

    bridge: str
    bridge_alias: str
    bridge_mac: str
    external: bool
    gateways: tuple[str, ...]
    masquerade: bool
    bridge_mtu: int
    tenant: str
    public: bool
    everybodys: bool
    exported_to: tuple[str, ...]
    host: str
    host_alias: str
    host_mac: str
    interface: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    link_local: str
    routes: tuple[IntendedRoute, ...]
    ingress: Limit | None = None
    egress: Limit | None = None

    @classmethod
    def plan(cls, port: Port, attachment: str) -> Self:
        """The intent for a port. Raises Invalid(FIELD_INVALID) where an address, MAC or route is wrong."""
        try:
            return cls._plan(port, attachment)
        except ValueError as error:
            raise Invalid(
                "FIELD_INVALID",
                f"interface {port.interface} of network {port.network}: {error}",
                interface=port.interface,
                network=port.network,
            ) from error

    @classmethod
    def _plan(cls, port: Port, attachment: str) -> Self:
        interfaces = [ip_interface(address.cidr) for address in port.addresses]
        addresses, subnets = tuple(map(str, interfaces)), [interface.network for interface in interfaces]
        gateways = _gateways(
            port.network_id,
            [
                (address.gateway, subnet.prefixlen)
                for address, subnet in zip(port.addresses, subnets, strict=True)
                if port.node_gateway and address.gateway
            ],
        )
        routes = tuple(
            IntendedRoute(
                route.destination, _hop(route.gateway, route.destination), route.metric, route.mtu, onlink(route, subnets)
            )
            for route in planned_routes(port)
        )
        with_ipv6 = any(":" in address for address in addresses)
        mtu = port.mtu or DEFAULT_MTU
        ingress, egress = planned_limits(port.bandwidth, mtu)
        host = "kv" + _digest(f"{attachment}/{port.interface}")[:12]
        bridge = port.physical_network if port.external else f"kbr{port.network_id}"[:NAME_LENGTH]
        return cls(
            bridge=bridge,
            bridge_alias=f"knitter:{port.network_id}",
            bridge_mac=_bridge_mac(port.network_id),
            external=port.external,
            gateways=gateways,
            masquerade=port.masquerade and bool(gateways),
            bridge_mtu=port.mtu or DEFAULT_MTU,
            tenant=port.network.partition("/")[0],
            public=port.public,
            everybodys=port.default_network,
            exported_to=(SOMEBODY,) if port.exported else (),
            host=host,
            host_alias=f"knitter:{attachment}/{port.interface}"[:ALIAS_LENGTH],
            host_mac=_derived_mac(f"host/{host}"),
            interface=port.interface,
            mac=_mac(port.mac),
            mtu=mtu,
            addresses=addresses,
            link_local=_link_local(port.mac) if with_ipv6 else "",
            routes=routes,
            ingress=ingress,
            egress=egress,
        )

    def follow(self, network: Network) -> Self:
        """The same port, with what is the network's own on the node as the network is now. The gateways of the port's own subnets
        stay: pods count on them, and the manager takes none away. On a bridge that is somebody else's nothing is the network's."""
        if self.external:
            return self
        served = {_subnet(address) for address in self.addresses}
        own = [gateway for gateway in self.gateways if _subnet(gateway) in served]
        carried = [] if network.external_gateway else [subnet for subnet in network.subnets if subnet.gateway]
        gateways = _gateways(
            network.id,
            [
                *((gateway.partition("/")[0], _subnet(gateway).prefixlen) for gateway in own),
                *((subnet.gateway, _subnet(subnet.cidr).prefixlen) for subnet in carried),
            ],
        )
        return replace(
            self,
            gateways=gateways,
            masquerade=network.masquerade and bool(gateways),
            bridge_mtu=network.mtu or DEFAULT_MTU,
            tenant=network.tenant,
            public=network.public,
            exported_to=network.exported_to,
        )

    @classmethod
    def of(cls, wiring: Wiring) -> Self:
        """The intent that a wiring holds."""
        facts: Mapping[str, Any] = wiring.facts
        values = {
            **facts,
            "gateways": tuple(facts["gateways"]),
            "addresses": tuple(facts["addresses"]),
            "exported_to": tuple(facts["exported_to"]),
            "routes": tuple(IntendedRoute(**route) for route in facts["routes"]),
        }
        values |= {way: Limit(*facts[way]) for way in ("ingress", "egress") if facts.get(way)}
        return cls(**values)

    def wiring(self) -> Wiring:
        """The intent as plain values, for the journal."""
        facts: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        facts |= {
            "gateways": list(self.gateways),
            "addresses": list(self.addresses),
            "exported_to": list(self.exported_to),
            "routes": [{name: getattr(route, name) for name in route.__slots__} for route in self.routes],
        }
        facts |= {way: [limit.rate, limit.burst] for way in ("ingress", "egress") if (limit := facts[way])}
        return Wiring(NetworkType.BRIDGE, self.interface, facts)

    def owns_bridge(self, link: Link) -> bool:
        """Whether the link of the bridge's name is Knitter's of this network; without an alias yet it is known by its MAC."""
        if self.external or link.kind != "bridge":
            return False
        return link.alias == self.bridge_alias or (not link.alias and link.mac == self.bridge_mac)

    def owns_host(self, link: Link) -> bool:
        """Whether a link with the name of the pair's end on the node is that end; without an alias yet it is known by its MAC."""
        return link.kind == "veth" and (link.alias == self.host_alias or (not link.alias and link.mac == self.host_mac))

    @property
    def realm(self) -> Realm:
        """Who may use the network."""
        return Realm(self.tenant, self.public or self.everybodys, frozenset(self.exported_to))

    @property
    def with_ipv6(self) -> bool:
        """Whether the sandbox's end has IPv6 addresses."""
        return bool(self.link_local)


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _derived_mac(value: str) -> str:
    return f"02:{bytes.fromhex(_digest(value)[:10]).hex(':')}"


def _mac(mac: str) -> str:
    packed = bytes.fromhex(mac.replace(":", ""))
    if len(packed) != 6 or packed[0] & 1 or not any(packed):
        raise ValueError(f"{mac!r} is not the MAC of an interface")
    return packed.hex(":")


def _link_local(mac: str) -> str:
    """RFC 4291, appendix A: the modified EUI-64 of the MAC below fe80::/64."""
    packed = bytes.fromhex(mac.replace(":", ""))
    tail = bytes((packed[0] ^ 2,)) + packed[1:3] + b"\xff\xfe" + packed[3:]
    return f"{ip_address(bytes.fromhex('fe80') + bytes(6) + tail)}/64"


# What all ports of a network have in common is worked out once: reading addresses is most of what planning takes.
_remembered = lru_cache(1024)


@_remembered
def _hop(gateway: str, destination: str) -> str:
    if not gateway:
        return ""
    hop = ip_address(gateway)
    if hop.version != ip_network(destination).version:
        raise ValueError(f"route {destination} cannot go through {hop}, which is of the other family")
    return str(hop)


def _gateways(network_id: str, carried: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """What the bridge carries for these gateways and the lengths of their subnets' prefixes."""
    found = dict.fromkeys(f"{_canonical(gateway)}/{length}" for gateway, length in carried)
    if any(":" in gateway for gateway in found):
        found[_link_local(_bridge_mac(network_id))] = None
    return tuple(found)


@_remembered
def _bridge_mac(network_id: str) -> str:
    return _derived_mac(f"bridge/{network_id}")


@_remembered
def _canonical(address: str) -> str:
    return str(ip_address(address))


@_remembered
def _subnet(address: str) -> IPv4Network | IPv6Network:
    return ip_interface(address).network
