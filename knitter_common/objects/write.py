"""Objects → the form that `read` reads: plain dictionaries for JSON, and YAML. What the manager set stands below `status`."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from knitter_common.model import (
    Dns,
    IPClaim,
    IPGroup,
    LabelSelector,
    NamedOwner,
    Network,
    NetworkType,
    ObjectState,
    Owner,
    PodOwner,
    Pool,
    PortAddress,
    Quota,
    Route,
    Subnet,
    Tenant,
    Usability,
)
from knitter_common.objects.read import API_VERSION, Object
from knitter_common.objects.validate import type_name

_dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def dump(objects: Iterable[Object]) -> str:
    """YAML, one document each. `read.load_text` gives the same objects, apart from what the manager sets."""
    written = (to_dict(thing) for thing in objects)
    return str(yaml.dump_all(written, Dumper=_dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120))


def to_dict(thing: Object) -> dict[str, Any]:
    """apiVersion, kind, metadata, spec and, where the manager set anything, status. Defaults are left out."""
    match thing:
        case Network():
            return _object("Network", thing.tenant, thing.name, _network(thing), _network_status(thing))
        case Tenant():
            return _object("Tenant", "", thing.name, _tenant(thing), _tenant_status(thing), thing.labels)
        case IPGroup():
            return _object("IPGroup", thing.tenant, thing.name, _ip_group(thing), _ip_group_status(thing))
        case IPClaim():
            return _object("IPClaim", thing.tenant, thing.name, _ip_claim(thing), _ip_claim_status(thing))


def time_text(nanoseconds: int) -> str:
    """ "2026-11-23T22:10:00Z"; "" for 0."""
    if not nanoseconds:
        return ""
    return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span_text(seconds: float) -> str:
    """ "30s", "0.25s"."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def owner_text(owner: Owner) -> str:
    """For people: "pod t1/web-0", "sandbox 3f2a… on n1", "t1/vm-7"."""
    match owner:
        case PodOwner():
            return f"pod {owner.namespace}/{owner.name}"
        case NamedOwner():
            return f"{owner.tenant}/{owner.name}"
        case _:
            return f"sandbox {owner.container_id[:13]} on {owner.node}"


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is empty, zero, false or None; a time of 0 seconds is none of these."""
    return {key: value for key, value in values.items() if value not in ("", 0, False, None) and value != [] and value != {}}


def _object(
    kind: str, tenant: str, name: str, spec: dict[str, Any], status: dict[str, Any], labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    metadata = _filled({"name": name, "namespace": tenant, "labels": dict(labels or {})})
    made: dict[str, Any] = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    if status:
        made["status"] = status
    return made


def _network(network: Network) -> dict[str, Any]:
    return {"type": type_name(network.type)} | _filled(
        {
            "description": network.description,
            "public": network.public,
            "exportedTo": list(network.exported_to),
            "physicalNetwork": network.physical_network,
            "segmentationId": network.segmentation_id,
            "vlanTransparent": network.vlan_transparent,
            "external": network.external,
            "mtu": network.mtu,
            "subnets": [_subnet(subnet) for subnet in network.subnets],
            "externalGateway": network.external_gateway,
            "masquerade": network.masquerade,
            "routes": [_route(route) for route in network.routes],
            "dns": None if network.dns is None else _dns(network.dns),
            "rest": None if network.rest is None else span_text(network.rest),
            "usableBy": None if network.usable_by is None else _usability(network.usable_by),
        }
    )


def _subnet(subnet: Subnet) -> dict[str, Any]:
    return _filled(
        {
            "cidr": subnet.cidr,
            "gateway": subnet.gateway,
            "pools": [_pool(pool) for pool in subnet.pools],
            "exclude": list(subnet.exclude),
        }
    )


def _pool(pool: Pool) -> dict[str, Any]:
    usable_by = None if pool.usable_by is None else _usability(pool.usable_by)
    return _filled({"start": pool.start, "end": pool.end, "usableBy": usable_by})


def _route(route: Route) -> dict[str, Any]:
    return _filled({"destination": route.destination, "gateway": route.gateway, "metric": route.metric, "mtu": route.mtu})


def _dns(dns: Dns) -> dict[str, Any]:
    return _filled(
        {
            "nameservers": list(dns.nameservers),
            "domain": dns.domain,
            "search": list(dns.search),
            "options": list(dns.options),
        }
    )


def _usability(usability: Usability) -> dict[str, Any]:
    sides = {"namespaces": usability.namespaces, "pods": usability.pods, "nodes": usability.nodes}
    return {key: _selector(side) for key, side in sides.items() if side is not None}


def _selector(selector: LabelSelector) -> dict[str, Any]:
    return _filled(
        {
            "matchLabels": dict(selector.match_labels),
            "matchExpressions": [
                _filled({"key": entry.key, "operator": entry.operator, "values": list(entry.values)})
                for entry in selector.match_expressions
            ],
        }
    )


def _quota(quota: Quota) -> dict[str, Any]:
    return _filled({"networks": quota.networks, "ports": quota.ports, "addresses": quota.addresses})


def _tenant(tenant: Tenant) -> dict[str, Any]:
    return _filled(
        {
            "description": tenant.description,
            "quota": _quota(tenant.quota),
            "allowedTypes": [type_name(entry) for entry in tenant.allowed_types],
            "allowedPhysicalNetworks": list(tenant.allowed_physical_networks),
        }
    )


def _ip_group(group: IPGroup) -> dict[str, Any]:
    spec = _filled({"network": group.network, "ips": list(group.ips), "size": group.size})
    if group.pod_selector is not None:
        spec["podSelector"] = _selector(group.pod_selector)  # an empty one is not the same as none
    return spec


def _ip_claim(claim: IPClaim) -> dict[str, Any]:
    return _filled(
        {
            "network": claim.network,
            "interface": claim.interface,
            "wantedAddresses": list(claim.wanted_addresses),
            "mac": claim.mac,
        }
    )


def _stored(state: ObjectState | None, thing: Object) -> dict[str, Any]:
    """What the manager sets in every object; {} for one that is not stored."""
    if not thing.revision:
        return {}
    return _filled(
        {
            "state": state.name if state else "",
            "revision": thing.revision,
            "createTime": time_text(thing.create_time),
            "source": thing.source,
        }
    )


def _network_status(network: Network) -> dict[str, Any]:
    return _filled({"id": network.id}) | _stored(network.state, network)


def _tenant_status(tenant: Tenant) -> dict[str, Any]:
    ending = {"deleteTime": time_text(tenant.delete_time), "inTheWay": tenant.in_the_way}
    return _filled({"used": _quota(tenant.used), **ending}) | _stored(tenant.state, tenant)


def _ip_group_status(group: IPGroup) -> dict[str, Any]:
    addresses = [
        _filled({"address": entry.address, "usedBy": owner_text(entry.used_by) if entry.used_by else ""})
        for entry in group.addresses
    ]
    return _filled({"id": group.id, "addresses": addresses}) | _stored(None, group)


def _ip_claim_status(claim: IPClaim) -> dict[str, Any]:
    used_by = owner_text(claim.used_by) if claim.used_by else ""
    return _filled({"addresses": [_address(entry) for entry in claim.addresses], "usedBy": used_by}) | _stored(None, claim)


def _address(address: PortAddress) -> dict[str, Any]:
    return _filled({"cidr": address.cidr, "gateway": address.gateway})


def network_type(text: str) -> NetworkType | None:
    """The type of that name, or None."""
    return next((entry for entry in NetworkType if type_name(entry) == text), None)
