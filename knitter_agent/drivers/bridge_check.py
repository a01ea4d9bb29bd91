"""CHECK of a port of a bridge network: what the kernel has against what was intended, a sentence for every difference."""

import socket
from collections.abc import Iterable, Iterator

from knitter_agent.drivers.bridge_intent import BridgeIntent
from knitter_agent.drivers.protocol import UNCHANGED, Changed
from knitter_agent.netlink import Kernel, Namespace, wire
from knitter_agent.netlink.conversation import Answer, Conversation
from knitter_agent.netlink.shaping import Limit, get_root, parse_rate


def differences(kernel: Kernel, sandbox: Namespace, intent: BridgeIntent, changed: Changed = UNCHANGED) -> list[str]:
    """What differs, from the pod outwards; `changed` says what later plugins made of the interface. Nothing is touched."""
    inner = _link(sandbox.talk.ask(wire.get_link(intent.interface))[0])
    host, bridge, number = (
        answer
        for answer in kernel.talk.ask(wire.get_link(intent.host), wire.get_link(intent.bridge), wire.get_namespace_id(sandbox.fd))
    )
    outer, shared = _link(host), _link(bridge)
    found: list[str] = []
    if inner is None:
        found.append(f"interface {intent.interface}: expected in {sandbox.path}, found none")
    else:
        found += _interface(intent, inner, changed)
        found += _addresses(sandbox, intent, inner.index)
        found += _routes(sandbox, intent, inner.index, changed)
        found += _limit(sandbox.talk, intent, inner.index, intent.egress, "from the pod")
    found += _pair(intent, inner, outer, wire.parse_namespace_id(number.body))
    found += _bridge(kernel, intent, outer, shared)
    if outer is not None:
        found += _limit(kernel.talk, intent, outer.index, intent.ingress, "to the pod")
    return found


def _link(answer: Answer) -> wire.Link | None:
    return wire.parse_link(answer.body) if answer.body else None


def _interface(intent: BridgeIntent, link: wire.Link, changed: Changed) -> Iterator[str]:
    name, mtu, mac = intent.interface, changed.mtu or intent.mtu, changed.mac or intent.mac
    if link.kind != "veth":
        yield f"interface {name}: expected a veth, found a {link.kind or 'device'}"
    if not link.up:
        yield f"interface {name}: expected up, found down"
    if link.mtu != mtu:
        yield f"interface {name}: expected MTU {mtu}, found {link.mtu}"
    if link.mac != mac:
        yield f"interface {name}: expected MAC {mac}, found {link.mac}"


def _addresses(sandbox: Namespace, intent: BridgeIntent, index: int) -> Iterator[str]:
    found = {wire.parse_address(body) for body in sandbox.talk.dump(wire.dump_addresses(index))}
    for address in intent.addresses:
        if address not in found:
            yield f"interface {intent.interface}: expected address {address}, found {_listed(found)}"


def _routes(sandbox: Namespace, intent: BridgeIntent, index: int, changed: Changed) -> Iterator[str]:
    found: list[wire.RouteEntry] = []
    for family, mark in ((socket.AF_INET, "."), (socket.AF_INET6, ":")):
        if any(mark in route.destination for route in intent.routes):
            found += [wire.parse_route(body, index) for body in sandbox.talk.dump(wire.dump_routes(index, family))]
    for route in intent.routes:
        if route.destination in changed.routes:
            continue
        candidates = [entry for entry in found if entry.destination == route.destination]
        if not any(
            entry.gateway == route.gateway and (not route.metric or entry.metric == route.metric) and entry.mtu == route.mtu
            for entry in candidates
        ):
            expected = _route(route.gateway, route.metric, route.mtu)
            shown = _listed(_route(entry.gateway, entry.metric, entry.mtu) for entry in candidates)
            yield f"interface {intent.interface}: expected route {route.destination} {expected}, found {shown}"


def _limit(talk: Conversation, intent: BridgeIntent, index: int, limit: Limit | None, way: str) -> Iterator[str]:
    if limit is None:
        return
    found = parse_rate(talk.ask(get_root(index))[0].body)
    if found != limit.rate:
        shown = f"{found * 8} bit/s" if found else "no limit"
        yield f"interface {intent.interface}: expected at most {limit.rate * 8} bit/s {way}, found {shown}"


def _pair(intent: BridgeIntent, inner: wire.Link | None, outer: wire.Link | None, sandbox_id: int) -> Iterator[str]:
    if outer is None:
        yield f"interface {intent.interface}: expected its other end {intent.host} on the node, found none"
        return
    if not intent.owns_host(outer):
        yield (
            f"interface {intent.interface}: expected link {intent.host} on the node with alias {intent.host_alias!r}, "
            f"found a {outer.kind or 'device'} with alias {outer.alias!r}"
        )
    if inner is not None and not (outer.peer == inner.index and inner.peer == outer.index and outer.peer_nsid == sandbox_id):
        yield (
            f"interface {intent.interface}: expected {intent.host} (index {outer.index}) as its other end, "
            f"found index {inner.peer}, while {intent.host} leads to index {outer.peer} in namespace {outer.peer_nsid}"
        )
    if not outer.up:
        yield f"interface {intent.interface}: expected link {intent.host} on the node up, found it down"
    if outer.mtu != intent.mtu:
        yield f"interface {intent.interface}: expected MTU {intent.mtu} on link {intent.host}, found {outer.mtu}"
    if outer.mac != intent.host_mac:
        yield f"interface {intent.interface}: expected MAC {intent.host_mac} on link {intent.host}, found {outer.mac}"


def _bridge(kernel: Kernel, intent: BridgeIntent, outer: wire.Link | None, bridge: wire.Link | None) -> Iterator[str]:
    if bridge is None:
        yield f"interface {intent.interface}: expected bridge {intent.bridge} on the node, found none"
        return
    if not intent.owns_bridge(bridge) and not (intent.external and bridge.kind == "bridge"):
        yield (
            f"interface {intent.interface}: expected bridge {intent.bridge} with alias {intent.bridge_alias!r}, "
            f"found a {bridge.kind or 'device'} with alias {bridge.alias!r}"
        )
    if not bridge.up:
        yield f"interface {intent.interface}: expected bridge {intent.bridge} up, found it down"
    if outer is not None and outer.master != bridge.index:
        where = f"on the link of index {outer.master}" if outer.master else "on no bridge"
        yield f"interface {intent.interface}: expected link {intent.host} on bridge {intent.bridge}, found it {where}"
    if intent.gateways:
        found = {wire.parse_address(body) for body in kernel.talk.dump(wire.dump_addresses(bridge.index))}
        for gateway in intent.gateways:
            if gateway not in found:
                yield f"interface {intent.interface}: expected gateway {gateway} on bridge {intent.bridge}, found {_listed(found)}"


def _route(gateway: str, metric: int, mtu: int) -> str:
    parts = [f"via {gateway}" if gateway else "on-link"]
    if metric:
        parts.append(f"metric {metric}")
    if mtu:
        parts.append(f"MTU {mtu}")
    return " ".join(parts)


def _listed(found: Iterable[str]) -> str:
    items = sorted(found)
    return ", ".join(items) if items else "none"
