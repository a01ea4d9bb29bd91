"""`describe`: one object as a block of text for people. Pure: objects and what belongs to them in, lines out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from knitter_common.model import IPClaim, IPGroup, LabelSelector, Network, Node, Port, PortSet, Route, Subnet, Tenant, Usability
from knitter_common.objects import time_text, type_name
from knitter_ctl import owners, usage
from knitter_ctl.ages import age
from knitter_ctl.columns import interfaces, quota, state_of_set, subnet_list
from knitter_ctl.table import Row, layout

_SHOWN = 20  # port sets or networks listed below an object; more are counted


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else is told about an object: port sets on it, networks of it, how full its pools are (usage.network); `more` says that
    there are further port sets."""

    port_sets: Sequence[PortSet] = ()
    networks: Sequence[Network] = ()
    pools: Sequence[usage.Told] = ()
    more: bool = False


@dataclass(slots=True)
class _Block:
    """A block being gathered: `Key:  value` pairs aligned, then tables below their titles."""

    pairs: list[Row] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    def pair(self, key: str, value: object) -> None:
        """Left out when there is nothing to tell."""
        text = "yes" if value is True else str(value or "")
        if text:
            self.pairs.append((f"{key}:", text))

    def table(self, title: str, header: Sequence[str], rows: Iterable[Row]) -> None:
        """Left out when it has no rows."""
        body = list(rows)
        if body:
            self.tables += ["", f"{title}:", *layout(header, body, indent="  ")]

    def further(self, count: int, more: bool = False) -> None:
        """Says below a table how many rows are not shown."""
        if count > 0:
            self.tables.append(f"  … and {count}{' or more' if more else ''} others")

    def lines(self) -> list[str]:
        """All of it."""
        return [*layout((), self.pairs), *self.tables]


def describe(entry: Any, around: Surroundings, now: int) -> list[str]:
    """The lines of one object."""
    block = _Block()
    match entry:
        case Network():
            _network(block, entry)
        case PortSet():
            _port_set(block, entry)
        case Node():
            _node(block, entry, now)
        case Tenant():
            _tenant(block, entry)
        case IPGroup():
            _ip_group(block, entry)
        case IPClaim():
            _ip_claim(block, entry)
    _life(block, entry, now)
    _surroundings(block, around, now)
    return block.lines()


def _network(block: _Block, network: Network) -> None:
    block.pair("Network", network.path)
    block.pair("Id", network.id)
    block.pair("Description", network.description)
    block.pair("Type", type_name(network.type))
    block.pair("State", network.state.name.lower())
    block.pair("Public", network.public)
    block.pair("Exported to", ", ".join(network.exported_to))
    block.pair("External", network.external)
    block.pair("Physical network", network.physical_network)
    block.pair("Segmentation id", network.segmentation_id)
    block.pair("VLAN transparent", network.vlan_transparent)
    block.pair("MTU", network.mtu)
    block.pair("Gateway outside", network.external_gateway)
    block.pair("Masquerade", network.masquerade)
    if network.rest is not None:
        block.pair("Rest", f"{network.rest:g}s")
    if network.dns is not None:
        block.pair("DNS", ", ".join(network.dns.nameservers))
        block.pair("DNS domain", network.dns.domain)
        block.pair("DNS search", ", ".join(network.dns.search))
        block.pair("DNS options", ", ".join(network.dns.options))
    block.pair("Usable by", _usability(network.usable_by))
    block.table("Subnets", ("CIDR", "GATEWAY", "POOLS", "EXCLUDED"), (_subnet(subnet) for subnet in network.subnets))
    header = ("DESTINATION", "GATEWAY", "METRIC", "MTU")
    block.table("Routes", header, (_route(route) for route in network.routes))


def _route(route: Route) -> Row:
    return route.destination, route.gateway, str(route.metric or ""), str(route.mtu or "")


def _subnet(subnet: Subnet) -> Row:
    pools = ", ".join(f"{pool.start}-{pool.end}{_for(pool.usable_by)}" for pool in subnet.pools)
    return subnet.cidr, subnet.gateway, pools or "all of it", ", ".join(subnet.exclude)


def _port_set(block: _Block, found: PortSet) -> None:
    block.pair("Owner", found.owner.key)
    block.pair("Tenant", found.tenant)
    block.pair("Node", found.node)
    block.pair("State", state_of_set(found))
    block.pair("Sticky", found.sticky)
    block.pair("Labels", _labels(found.labels))
    if found.binding is not None:
        block.pair("Container", found.binding.container_id)
        block.pair("Netns", found.binding.netns)
        block.pair("Bound", time_text(found.binding.time))
    if found.error is not None:
        block.pair("Error", f"{found.error.reason}: {found.error.message}")
    header = ("NAME", "NETWORK", "TYPE", "ADDRESSES", "GATEWAYS", "MAC", "MTU", "PLANES")
    block.table("Interfaces", header, (_port(port) for port in found.ports))
    routes = [(port.interface, route.destination, route.gateway) for port in found.ports for route in port.routes]
    block.table("Routes", ("INTERFACE", "DESTINATION", "GATEWAY"), routes)
    if not found.ports:
        wishes = [(wish.place, wish.network, wish.interface, ",".join(wish.addresses)) for wish in found.wishes]
        block.table("Wishes", ("PLACE", "NETWORK", "INTERFACE", "ADDRESSES"), wishes)


def _port(port: Port) -> Row:
    return (
        port.interface,
        port.network,
        type_name(port.type),
        ",".join(address.cidr for address in port.addresses),
        ",".join(address.gateway for address in port.addresses if address.gateway),
        port.mac,
        str(port.mtu or ""),
        ",".join(port.roles),
    )


def _node(block: _Block, node: Node, now: int) -> None:
    block.pair("Node", node.name)
    block.pair("State", "gone" if node.gone else "known")
    block.pair("Underlay address", node.underlay_address)
    block.pair("Agent version", node.agent_version)
    block.pair("Labels", _labels(node.labels))
    if node.last_seen:
        block.pair("Last seen", f"{time_text(node.last_seen)} ({age(node.last_seen, now)} ago)")


def _tenant(block: _Block, tenant: Tenant) -> None:
    block.pair("Tenant", tenant.name)
    block.pair("Description", tenant.description)
    block.pair("State", tenant.state.name.lower())
    block.pair("Deleted", time_text(tenant.delete_time))
    block.pair("In the way", tenant.in_the_way)
    block.pair("Labels", _labels(tenant.labels))
    block.pair("Allowed types", ", ".join(type_name(kind) for kind in tenant.allowed_types))
    block.pair("Allowed physical networks", ", ".join(tenant.allowed_physical_networks))
    for name in ("networks", "ports", "addresses"):
        block.pair(f"Used {name}", quota(tenant.used, tenant.quota, name))


def _ip_group(block: _Block, group: IPGroup) -> None:
    block.pair("IP group", group.name)
    block.pair("Tenant", group.tenant)
    block.pair("Network", group.network)
    block.pair("Id", group.id)
    block.pair("Size", group.size)
    if group.pod_selector is not None:
        block.pair("Pods", _selector(group.pod_selector))
    rows = [(entry.address, owners.short(entry.used_by) if entry.used_by else "") for entry in group.addresses]
    block.table("Addresses", ("ADDRESS", "USED-BY"), rows)


def _ip_claim(block: _Block, claim: IPClaim) -> None:
    block.pair("IP claim", claim.name)
    block.pair("Tenant", claim.tenant)
    block.pair("Network", claim.network)
    block.pair("Interface", claim.interface)
    block.pair("Wanted", ", ".join(claim.wanted_addresses))
    block.pair("Addresses", ", ".join(address.cidr for address in claim.addresses))
    block.pair("MAC", claim.mac)
    block.pair("Used by", claim.used_by.key if claim.used_by else "nobody")


def _life(block: _Block, entry: Any, now: int) -> None:
    if entry.create_time:
        block.pair("Created", f"{time_text(entry.create_time)} ({age(entry.create_time, now)} ago)")
    block.pair("Source", getattr(entry, "source", ""))
    block.pair("Revision", entry.revision)


def _surroundings(block: _Block, around: Surroundings, now: int) -> None:
    columns = [title for title in usage.NETWORK_COLUMNS if title not in ("NETWORK", "SETS")]
    block.table("Usage", columns, ([usage.NETWORK_COLUMNS[title](pool) for title in columns] for pool in around.pools))
    networks = around.networks[:_SHOWN]
    block.table("Networks", ("NAME", "TYPE", "SUBNETS"), ((it.name, type_name(it.type), subnet_list(it)) for it in networks))
    block.further(len(around.networks) - len(networks))
    sets = around.port_sets[:_SHOWN]
    rows = [(owners.short(it.owner), it.node, state_of_set(it), interfaces(it), age(it.create_time, now)) for it in sets]
    block.table("Port sets", ("OWNER", "NODE", "STATE", "INTERFACES", "AGE"), rows)
    block.further(len(around.port_sets) - len(sets), around.more)


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _for(usability: Usability | None) -> str:
    return f" ({_usability(usability)})" if usability is not None else ""


def _usability(usability: Usability | None) -> str:
    if usability is None:
        return ""
    sides = (("namespaces", usability.namespaces), ("pods", usability.pods), ("nodes", usability.nodes))
    return "; ".join(f"{name} {_selector(side)}" for name, side in sides if side is not None)


def _selector(selector: LabelSelector) -> str:
    """As kubectl writes one: "tier=gold, rack in (a, b), gpu, !old"."""
    signs = {"In": "{key} in ({values})", "NotIn": "{key} notin ({values})", "Exists": "{key}", "DoesNotExist": "!{key}"}
    said = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    said += [signs[one.operator].format(key=one.key, values=", ".join(one.values)) for one in selector.match_expressions]
    return ", ".join(said) or "all"
