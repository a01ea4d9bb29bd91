"""What networks and ports have in common, routes and name resolution, ↔ messages."""

from knitter.v1 import types_pb2 as types
from knitter_common.model import Dns, Route


def route_to_proto(route: Route) -> types.Route:
    """A route inside the pod."""
    return types.Route(destination=route.destination, gateway=route.gateway, metric=route.metric, mtu=route.mtu)


def route_from_proto(message: types.Route) -> Route:
    """A route inside the pod."""
    return Route(destination=message.destination, gateway=message.gateway, metric=message.metric, mtu=message.mtu)


def dns_to_proto(dns: Dns) -> types.Dns:
    """Name resolution."""
    return types.Dns(nameservers=dns.nameservers, domain=dns.domain, search=dns.search, options=dns.options)


def dns_from_proto(message: types.Dns) -> Dns:
    """Name resolution."""
    return Dns(
        nameservers=tuple(message.nameservers),
        domain=message.domain,
        search=tuple(message.search),
        options=tuple(message.options),
    )
