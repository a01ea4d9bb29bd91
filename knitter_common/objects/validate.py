"""What can be said of an object without knowing any other: shared by the manager, the files' reader and the command line.

Each function returns the canonical form (addresses as `ipaddress` writes them, MACs in lower case, sets in order, tenant "" as
admin) and raises Invalid(FIELD_INVALID | LIMIT_EXCEEDED) with `field` in its metadata, the value and the way out in its message.
What the manager sets (id, state, used, times, revision) passes through. Equal canonical forms mean equal objects:
validating twice changes nothing.
"""

import dataclasses
import math

from knitter_common.addresses import host_address, mac, wanted
from knitter_common.model import ADMIN, MAX_ADDRESSES, Dns, IPClaim, IPGroup, Network, NetworkType, Node, Quota, Tenant
from knitter_common.names import device, dns_label, dns_subdomain, domain, interface, network_reference, shown
from knitter_common.objects.fields import at_most, checked, description, labels, mtu, number, refuse, source
from knitter_common.objects.selectors import label_selector, usability
from knitter_common.objects.subnets import Checked, routes, subnets

MAX_NETWORKS_QUOTA = 1000
MAX_QUOTA = 2**31 - 1
MAX_GROUP_IPS = 32
MAX_GROUP_SIZE = 1024
MAX_REST = 7 * 24 * 3600.0  # seconds
MIN_IPV6_MTU = 1280  # RFC 8200 5

# Types that are carried by a device of the node, which the network must name.
_ON_A_DEVICE = (NetworkType.MACVLAN, NetworkType.IPVLAN, NetworkType.VLAN, NetworkType.HOST_DEVICE, NetworkType.SRIOV)
# Types whose interfaces bypass the node, so that it cannot translate what they send.
_PAST_THE_NODE = (NetworkType.MACVLAN, NetworkType.IPVLAN, NetworkType.HOST_DEVICE, NetworkType.SRIOV)
_SEGMENTS = {NetworkType.VXLAN: (1, 16_777_215), NetworkType.VLAN: (1, 4094), NetworkType.SRIOV: (1, 4094)}


def type_name(kind: NetworkType) -> str:
    """The name in YAML and on the command line: "host-device"."""
    return kind.name.lower().replace("_", "-")


def validate_network(network: Network) -> Network:
    """The canonical network."""
    tenant = checked("metadata.namespace", dns_label, network.tenant or ADMIN)
    checked("metadata.name", dns_label, network.name)
    if network.public and tenant != ADMIN:
        refuse("public", f"only networks of {ADMIN} are public; use exportedTo for chosen tenants", "true")
    known = subnets(network.subnets)
    _provider(network)
    _ways(network)
    if network.mtu:
        _mtu(network.mtu, known)
    return dataclasses.replace(
        network,
        source=source("source", network.source),
        tenant=tenant,
        exported_to=_exported_to(network.exported_to, tenant),
        subnets=tuple(entry.subnet for entry in known),
        routes=routes(network.routes, known),
        dns=None if network.dns in (None, Dns()) else _dns(network.dns),
        description=description(network.description),
        rest=None if network.rest is None else _rest(network.rest),
        usable_by=usability("usableBy", network.usable_by),
    )


def validate_tenant(tenant: Tenant) -> Tenant:
    """The canonical tenant."""
    checked("metadata.name", dns_label, tenant.name)
    _quota(tenant.quota)
    at_most("allowedPhysicalNetworks", tenant.allowed_physical_networks, 256)
    for index, name in enumerate(tenant.allowed_physical_networks):
        checked(f"allowedPhysicalNetworks[{index}]", device, name)
    return dataclasses.replace(
        tenant,
        source=source("source", tenant.source),
        allowed_types=tuple(sorted(set(tenant.allowed_types))),
        allowed_physical_networks=tuple(sorted(set(tenant.allowed_physical_networks))),
        description=description(tenant.description),
        labels=labels("metadata.labels", dict(tenant.labels)),
    )


def validate_ip_group(group: IPGroup) -> IPGroup:
    """The canonical IP group. Whether its addresses are in the network's CIDR is the manager's to say."""
    if group.ips and group.size:
        refuse("size", f"{group.size} stands beside ips; give the addresses or their number, not both", group.size)
    at_most("ips", group.ips, MAX_GROUP_IPS)
    seen: dict[str, int] = {}
    for index, text in enumerate(group.ips):
        found = str(checked(f"ips[{index}]", host_address, text))
        if seen.setdefault(found, index) != index:
            refuse(f"ips[{index}]", f"{found} is ips[{seen[found]}] again; name each address once", text)
    return dataclasses.replace(
        group,
        source=source("source", group.source),
        tenant=checked("metadata.namespace", dns_label, group.tenant or ADMIN),
        name=checked("metadata.name", dns_label, group.name),
        network=checked("network", network_reference, group.network),
        ips=tuple(seen),
        size=number("size", group.size, 0, MAX_GROUP_SIZE, "number of addresses"),
        pod_selector=None if group.pod_selector is None else label_selector("podSelector", group.pod_selector),
    )


def validate_ip_claim(claim: IPClaim) -> IPClaim:
    """The canonical claim."""
    at_most("wantedAddresses", claim.wanted_addresses, MAX_ADDRESSES)
    seen: dict[str, int] = {}
    for index, text in enumerate(claim.wanted_addresses):
        found = checked(f"wantedAddresses[{index}]", wanted, text)
        if seen.setdefault(found.partition("/")[0], index) != index:
            refuse(f"wantedAddresses[{index}]", f"{found} is named twice; name each address once", text)
    return dataclasses.replace(
        claim,
        source=source("source", claim.source),
        tenant=checked("metadata.namespace", dns_label, claim.tenant or ADMIN),
        name=checked("metadata.name", dns_subdomain, claim.name),
        network=checked("network", network_reference, claim.network),
        interface=checked("interface", interface, claim.interface) if claim.interface else "",
        wanted_addresses=tuple(wanted(text) for text in claim.wanted_addresses),
        mac=checked("mac", mac, claim.mac) if claim.mac else "",
    )


def validate_node(node: Node) -> Node:
    """The canonical node."""
    return dataclasses.replace(
        node,
        source=source("source", node.source),
        name=checked("name", dns_subdomain, node.name),
        underlay_address=str(checked("underlayAddress", host_address, node.underlay_address)) if node.underlay_address else "",
        labels=labels("labels", dict(node.labels)),
    )


def _exported_to(tenants: tuple[str, ...], owner: str) -> tuple[str, ...]:
    at_most("exportedTo", tenants, 1024)
    for index, name in enumerate(tenants):
        checked(f"exportedTo[{index}]", dns_label, name)
        if name == owner:
            refuse(f"exportedTo[{index}]", f"{name!r} owns the network; name other tenants only", name)
    return tuple(sorted(set(tenants)))


def _provider(network: Network) -> None:
    kind, name = network.type, type_name(network.type)
    if network.physical_network:
        checked("physicalNetwork", device, network.physical_network)
        if kind is NetworkType.BRIDGE and not network.external:
            said = f"{network.physical_network!r} is set, and a network of type bridge makes a bridge of its own; remove it"
            refuse("physicalNetwork", f"{said}, or set external to true to use that one", network.physical_network)
    elif kind in _ON_A_DEVICE:
        refuse("physicalNetwork", f"is missing; a network of type {name} names the device that carries it")
    elif kind is NetworkType.BRIDGE and network.external:
        refuse("physicalNetwork", "is missing; an external network of type bridge names the bridge that is on the nodes")
    if network.segmentation_id:
        if kind not in _SEGMENTS:
            usable = ", ".join(type_name(entry) for entry in _SEGMENTS)
            said = f"{network.segmentation_id} is set, and a network of type {name} has none; remove it, or use type {usable}"
            refuse("segmentationId", said, network.segmentation_id)
        number("segmentationId", network.segmentation_id, *_SEGMENTS[kind], "VNI" if kind is NetworkType.VXLAN else "VLAN id")
        if network.vlan_transparent and kind is not NetworkType.VXLAN:
            refuse("vlanTransparent", "excludes a VLAN id; remove segmentationId, or set it to false", "true")


def _ways(network: Network) -> None:
    if network.masquerade and network.external_gateway:
        refuse("masquerade", "the gateway is outside (externalGateway), so no node translates; set one of them to false", "true")
    if network.masquerade and network.external:
        refuse("masquerade", "the network exists outside (external), so no node is its gateway; set one of them to false", "true")
    if network.masquerade and network.type in _PAST_THE_NODE:
        refuse("masquerade", f"interfaces of type {type_name(network.type)} go past the node; use bridge, vxlan or vlan", "true")


def _mtu(value: int, known: tuple[Checked, ...]) -> None:
    mtu("mtu", value)
    if value < MIN_IPV6_MTU and any(entry.cidr.version == 6 for entry in known):
        refuse("mtu", f"{value} is too small for IPv6; it must be at least {MIN_IPV6_MTU} (RFC 8200)", value)


def _dns(dns: Dns) -> Dns:
    for field, values, limit in (("nameservers", dns.nameservers, 16), ("search", dns.search, 32), ("options", dns.options, 32)):
        at_most(f"dns.{field}", values, limit)
    for index, text in enumerate(dns.search):
        checked(f"dns.search[{index}]", domain, text)
    for index, text in enumerate(dns.options):
        if not text or any(sign.isspace() or not sign.isprintable() for sign in text):
            refuse(f"dns.options[{index}]", f"{shown(text)} is no option of resolv.conf; write for example ndots:2", text)
    return Dns(
        nameservers=tuple(
            str(checked(f"dns.nameservers[{index}]", host_address, text)) for index, text in enumerate(dns.nameservers)
        ),
        domain=checked("dns.domain", domain, dns.domain) if dns.domain else "",
        search=dns.search,
        options=dns.options,
    )


def _rest(value: float) -> float:
    if not math.isfinite(value) or not 0 <= value <= MAX_REST:
        refuse("rest", f"{value} seconds is no time to rest; it must be from 0 to {MAX_REST:g} seconds", value)
    return value


def _quota(quota: Quota) -> None:
    number("quota.networks", quota.networks, 0, MAX_NETWORKS_QUOTA, "quota of networks")
    number("quota.ports", quota.ports, 0, MAX_QUOTA, "quota of ports")
    number("quota.addresses", quota.addresses, 0, MAX_QUOTA, "quota of addresses")
