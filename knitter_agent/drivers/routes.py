"""Which routes a port has in its sandbox; pure. The CNI result tells the same ones that a driver makes."""

from collections.abc import Sequence, Set
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from knitter_common.model import Port, Route

DEFAULTS = {4: "0.0.0.0/0", 6: "::/0"}
SPARE_METRIC = 4096  # worse than what the kernel takes by itself: 0 for IPv4, 1024 for IPv6


def planned_routes(port: Port) -> tuple[Route, ...]:
    """The port's routes, each with its next hop filled in ("" then means on-link), and for a primary interface a default route per
    family whose subnet has a gateway, unless the port's own routes have one. Every destination once and in canonical form."""
    return _planned(tuple(address.gateway for address in port.addresses if address.gateway), tuple(port.routes), port.primary)


@lru_cache(1024)
def _planned(own: tuple[str, ...], given: tuple[Route, ...], primary: bool) -> tuple[Route, ...]:
    """`own` are the gateways of the port's addresses. The ports of a network have all of this in common."""
    gateways: dict[int, str] = {}
    for gateway in own:
        gateways.setdefault(ip_address(gateway).version, gateway)
    routes: dict[tuple[str, int], Route] = {}
    for route in given:
        network = ip_network(route.destination, strict=False)
        hop = route.gateway or gateways.get(network.version, "")
        routes.setdefault((str(network), route.metric), Route(str(network), hop, route.metric, route.mtu))
    if primary:
        named = {destination for destination, _ in routes}
        for version, gateway in sorted(gateways.items()):
            if DEFAULTS[version] not in named:
                routes[DEFAULTS[version], 0] = Route(DEFAULTS[version], gateway)
    return tuple(routes.values())


def settle_defaults(ports: Sequence[Port]) -> tuple[Port, ...]:
    """The ports of one sandbox such that their default routes do not clash, for planning and for the result alike.

    A default route that a port was given (a wish's default route) beats the one that the primary interface would have by itself;
    the latter stays as a spare with a worse metric. To be called once, before the ports are planned one by one.
    """
    given = {route.destination for port in ports if not port.primary for route in port.routes} & set(DEFAULTS.values())
    return tuple(_with_spare_defaults(port, given) if port.primary and given else port for port in ports)


def _with_spare_defaults(port: Port, given: Set[str]) -> Port:
    clashing = (route for route in planned_routes(port) if route.destination in given and not route.metric)
    own = [replace(route, metric=SPARE_METRIC) for route in clashing]
    replaced = {spare.destination for spare in own}
    kept = [route for route in port.routes if route.metric or route.destination not in replaced]
    return replace(port, routes=(*kept, *own))


def onlink(route: Route, subnets: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Whether the next hop lies in none of the port's subnets, so that the kernel must be told that the link leads to it."""
    return bool(route.gateway) and _outside(route.gateway, tuple(subnets))


@lru_cache(1024)
def _outside(gateway: str, subnets: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    hop = ip_address(gateway)
    if hop.version == 6 and hop.is_link_local:
        return False
    return not any(hop.version == subnet.version and hop in subnet for subnet in subnets)
