"""Networks, tenants, IP groups, claims and nodes ↔ messages."""

from knitter.v1 import types_pb2 as types
from knitter_common.convert.enums import network_type, number, object_state
from knitter_common.convert.owners import (
    label_selector_from_proto,
    label_selector_to_proto,
    owner_from_proto,
    owner_to_proto,
    usability_from_proto,
    usability_to_proto,
)
from knitter_common.convert.sets import port_address_from_proto, port_address_to_proto
from knitter_common.convert.values import span_from_proto, span_to_proto, time_from_proto, time_to_proto
from knitter_common.convert.wires import dns_from_proto, dns_to_proto, route_from_proto, route_to_proto
from knitter_common.model import IPClaim, IPGroup, IPGroupAddress, Network, Node, Pool, Quota, Subnet, Tenant


def pool_to_proto(pool: Pool) -> types.Pool:
    """A range of addresses."""
    usable_by = None if pool.usable_by is None else usability_to_proto(pool.usable_by)
    return types.Pool(start=pool.start, end=pool.end, usable_by=usable_by)


def pool_from_proto(message: types.Pool) -> Pool:
    """A range of addresses."""
    usable_by = usability_from_proto(message.usable_by) if message.HasField("usable_by") else None
    return Pool(start=message.start, end=message.end, usable_by=usable_by)


def subnet_to_proto(subnet: Subnet) -> types.Subnet:
    """One subnet of a network."""
    return types.Subnet(
        cidr=subnet.cidr, gateway=subnet.gateway, pools=[pool_to_proto(pool) for pool in subnet.pools], exclude=subnet.exclude
    )


def subnet_from_proto(message: types.Subnet) -> Subnet:
    """One subnet of a network."""
    return Subnet(
        cidr=message.cidr,
        gateway=message.gateway,
        pools=tuple(pool_from_proto(pool) for pool in message.pools),
        exclude=tuple(message.exclude),
    )


def network_to_proto(network: Network) -> types.Network:
    """A network's whole shape."""
    return types.Network(
        id=network.id,
        tenant=network.tenant,
        name=network.name,
        type=number(network.type),
        public=network.public,
        exported_to=network.exported_to,
        mtu=network.mtu,
        subnets=[subnet_to_proto(subnet) for subnet in network.subnets],
        routes=[route_to_proto(route) for route in network.routes],
        dns=None if network.dns is None else dns_to_proto(network.dns),
        physical_network=network.physical_network,
        segmentation_id=network.segmentation_id,
        vlan_transparent=network.vlan_transparent,
        external=network.external,
        description=network.description,
        rest=span_to_proto(network.rest),
        external_gateway=network.external_gateway,
        masquerade=network.masquerade,
        usable_by=None if network.usable_by is None else usability_to_proto(network.usable_by),
        state=number(network.state),
        create_time=time_to_proto(network.create_time),
        revision=network.revision,
        source=network.source,
    )


def network_from_proto(message: types.Network) -> Network:
    """A network's whole shape."""
    return Network(
        id=message.id,
        tenant=message.tenant,
        name=message.name,
        type=network_type(message.type, "network.type"),
        public=message.public,
        exported_to=tuple(message.exported_to),
        mtu=message.mtu,
        subnets=tuple(subnet_from_proto(subnet) for subnet in message.subnets),
        routes=tuple(route_from_proto(route) for route in message.routes),
        dns=dns_from_proto(message.dns) if message.HasField("dns") else None,
        physical_network=message.physical_network,
        segmentation_id=message.segmentation_id,
        vlan_transparent=message.vlan_transparent,
        external=message.external,
        description=message.description,
        rest=span_from_proto(message.rest) if message.HasField("rest") else None,
        external_gateway=message.external_gateway,
        masquerade=message.masquerade,
        usable_by=usability_from_proto(message.usable_by) if message.HasField("usable_by") else None,
        state=object_state(message.state, "network.state"),
        create_time=time_from_proto(message.create_time),
        revision=message.revision,
        source=message.source,
    )


def quota_to_proto(quota: Quota) -> types.Quota:
    """How much a tenant may hold, or holds."""
    return types.Quota(networks=quota.networks, ports=quota.ports, addresses=quota.addresses)


def quota_from_proto(message: types.Quota) -> Quota:
    """How much a tenant may hold, or holds."""
    return Quota(networks=message.networks, ports=message.ports, addresses=message.addresses)


def tenant_to_proto(tenant: Tenant) -> types.Tenant:
    """A tenant; quotas of zeros are left out."""
    return types.Tenant(
        name=tenant.name,
        quota=quota_to_proto(tenant.quota) if tenant.quota != Quota() else None,
        allowed_types=[number(entry) for entry in tenant.allowed_types],
        allowed_physical_networks=tenant.allowed_physical_networks,
        description=tenant.description,
        used=quota_to_proto(tenant.used) if tenant.used != Quota() else None,
        state=number(tenant.state),
        create_time=time_to_proto(tenant.create_time),
        revision=tenant.revision,
        source=tenant.source,
        labels=tenant.labels,
        delete_time=time_to_proto(tenant.delete_time),
        in_the_way=tenant.in_the_way,
    )


def tenant_from_proto(message: types.Tenant) -> Tenant:
    """A tenant."""
    return Tenant(
        name=message.name,
        quota=quota_from_proto(message.quota),
        allowed_types=tuple(
            network_type(entry, f"tenant.allowed_types[{index}]") for index, entry in enumerate(message.allowed_types)
        ),
        allowed_physical_networks=tuple(message.allowed_physical_networks),
        description=message.description,
        used=quota_from_proto(message.used),
        state=object_state(message.state, "tenant.state"),
        create_time=time_from_proto(message.create_time),
        revision=message.revision,
        source=message.source,
        labels=dict(message.labels),
        delete_time=time_from_proto(message.delete_time),
        in_the_way=message.in_the_way,
    )


def ip_group_to_proto(group: IPGroup) -> types.IPGroup:
    """A named set of addresses."""
    return types.IPGroup(
        id=group.id,
        tenant=group.tenant,
        name=group.name,
        network=group.network,
        ips=group.ips,
        size=group.size,
        pod_selector=None if group.pod_selector is None else label_selector_to_proto(group.pod_selector),
        addresses=[
            types.IPGroupAddress(address=entry.address, used_by=None if entry.used_by is None else owner_to_proto(entry.used_by))
            for entry in group.addresses
        ],
        create_time=time_to_proto(group.create_time),
        revision=group.revision,
        source=group.source,
    )


def ip_group_from_proto(message: types.IPGroup) -> IPGroup:
    """A named set of addresses."""
    return IPGroup(
        id=message.id,
        tenant=message.tenant,
        name=message.name,
        network=message.network,
        ips=tuple(message.ips),
        size=message.size,
        pod_selector=label_selector_from_proto(message.pod_selector) if message.HasField("pod_selector") else None,
        addresses=tuple(
            IPGroupAddress(
                address=entry.address,
                used_by=owner_from_proto(entry.used_by, "ip_group.addresses.used_by") if entry.HasField("used_by") else None,
            )
            for entry in message.addresses
        ),
        create_time=time_from_proto(message.create_time),
        revision=message.revision,
        source=message.source,
    )


def ip_claim_to_proto(claim: IPClaim) -> types.IPClaim:
    """Addresses with a life of their own."""
    return types.IPClaim(
        tenant=claim.tenant,
        name=claim.name,
        network=claim.network,
        interface=claim.interface,
        wanted_addresses=claim.wanted_addresses,
        addresses=[port_address_to_proto(address) for address in claim.addresses],
        mac=claim.mac,
        used_by=None if claim.used_by is None else owner_to_proto(claim.used_by),
        create_time=time_to_proto(claim.create_time),
        revision=claim.revision,
        source=claim.source,
    )


def ip_claim_from_proto(message: types.IPClaim) -> IPClaim:
    """Addresses with a life of their own."""
    return IPClaim(
        tenant=message.tenant,
        name=message.name,
        network=message.network,
        interface=message.interface,
        wanted_addresses=tuple(message.wanted_addresses),
        addresses=tuple(port_address_from_proto(address) for address in message.addresses),
        mac=message.mac,
        used_by=owner_from_proto(message.used_by, "ip_claim.used_by") if message.HasField("used_by") else None,
        create_time=time_from_proto(message.create_time),
        revision=message.revision,
        source=message.source,
    )


def node_to_proto(node: Node) -> types.Node:
    """A machine that runs an agent."""
    return types.Node(
        name=node.name,
        underlay_address=node.underlay_address,
        labels=node.labels,
        agent_version=node.agent_version,
        gone=node.gone,
        last_seen=time_to_proto(node.last_seen),
        create_time=time_to_proto(node.create_time),
        revision=node.revision,
        source=node.source,
    )


def node_from_proto(message: types.Node) -> Node:
    """A machine that runs an agent."""
    return Node(
        name=message.name,
        underlay_address=message.underlay_address,
        labels=dict(message.labels),
        agent_version=message.agent_version,
        gone=message.gone,
        last_seen=time_from_proto(message.last_seen),
        create_time=time_from_proto(message.create_time),
        revision=message.revision,
        source=message.source,
    )
