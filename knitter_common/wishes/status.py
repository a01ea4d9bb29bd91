"""What a pod is told of its interfaces: the NPWG network-status annotation, and ours with planes, roles and metadata."""

import json
from collections.abc import Sequence
from typing import Any

from knitter_common.model import Port

NETWORK_STATUS_KEY = "k8s.v1.cni.cncf.io/network-status"
NETWORK_PLANES_KEY = "knitter.io/network-planes"


def network_status(ports: Sequence[Port]) -> str:
    """The value of `k8s.v1.cni.cncf.io/network-status` (NPWG specification 1.3, section 5): one map per interface, the primary's
    with `default`. Equal ports give equal texts."""
    return _text([_status(port) for port in ports])


def network_planes(ports: Sequence[Port]) -> str:
    """The value of `knitter.io/network-planes`: one object per interface with its planes and the metadata as the pod asked."""
    return _text([_planes(port) for port in ports])


def _status(port: Port) -> dict[str, Any]:
    gateways = [address.gateway for address in port.addresses if address.gateway]
    status: dict[str, Any] = {"name": port.network, "interface": port.interface}
    if port.addresses:
        status["ips"] = [address.cidr.partition("/")[0] for address in port.addresses]
    if port.mac:
        status["mac"] = port.mac
    if port.mtu:
        status["mtu"] = port.mtu
    if port.primary:
        status["default"] = True
    status["dns"] = _dns(port)
    if gateways and port.primary:
        status["gateway"] = gateways
    return status


def _dns(port: Port) -> dict[str, Any]:
    """As in a CNI result; {} where the network tells none."""
    if port.dns is None:
        return {}
    told: dict[str, Any] = {
        "nameservers": list(port.dns.nameservers),
        "domain": port.dns.domain,
        "search": list(port.dns.search),
        "options": list(port.dns.options),
    }
    return {key: value for key, value in told.items() if value}


def _planes(port: Port) -> dict[str, Any]:
    planes: dict[str, Any] = {
        "interface": port.interface,
        "network": port.network,
        "roles": list(port.roles),
        "nic_type": port.nic_type.name.lower(),
        "accelerate": port.accelerate,
        "addresses": [address.cidr for address in port.addresses],
        "mac": port.mac,
    }
    if port.mtu:
        planes["mtu"] = port.mtu
    if port.metadata is not None:
        planes["metadata"] = port.metadata
    return planes


def _text(value: list[dict[str, Any]]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
