"""What `ipam show` shows: messages of views to documents, documents to rows. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from knitter.v1 import manager_pb2 as pb
from knitter_common.convert import owner_from_proto
from knitter_common.model import Port, PortSet
from knitter_ctl import owners
from knitter_ctl.columns import state_of_set
from knitter_ctl.printing import Columns
from knitter_ctl.table import Cell

Told = dict[str, Any]

_LARGE = 10**12  # from here on a count is told by its magnitude
_UNKNOWN = 2**64 - 1  # what the contract says of larger ones
_FULL, _NEARLY = 100, 90  # percent
_STYLES = {"held": "", "resting": "warn", "reserved": "kept", "free": "good", "unusable": "dim"}


# -- networks ----------------------------------------------------------------------------------------------------------------


def network(usage: pb.NetworkUsage) -> Told:
    """A network with its pools."""
    return {
        "network": usage.network,
        "id": usage.network_id,
        "portSets": usage.port_sets,
        "pools": [
            {
                "cidr": pool.cidr, "start": pool.start, "end": pool.end, "size": pool.size, "used": pool.used,
                "reserved": pool.reserved, "resting": pool.resting, "free": pool.free,
            }
            for pool in usage.pools
        ],
    }  # fmt: skip


def pools(networks: Iterable[Told]) -> list[Told]:
    """A row for each pool; one without any for a network that has none."""
    found = []
    for one in networks:
        of = {key: one[key] for key in ("network", "id", "portSets")}
        found += [of | pool for pool in one["pools"]] or [of]
    return found


def count(number: int | None) -> str:
    """A number of addresses: exact, or by its magnitude; "" for none."""
    if number is None:
        return ""
    if number < _LARGE:
        return str(number)
    digits, _, exponent = f"{number:.1e}".partition("e")
    return f"{'≥' if number >= _UNKNOWN else ''}{digits}e{int(exponent)}"


def percent(pool: Mapping[str, Any]) -> str | Cell:
    """How much of a pool nobody can have any more: used, or set aside. 100 % only when that is all."""
    size = pool.get("size", 0)
    if not size:
        return ""
    taken = pool["used"] + pool["reserved"]
    whole = 100 * taken // size
    text = "<1%" if taken and not whole else f"{whole}%"
    return Cell(text, "bad" if whole >= _FULL else "warn" if whole >= _NEARLY else "")


NETWORK_COLUMNS: Columns = {
    "NETWORK": lambda it: it["network"],
    "SETS": lambda it: str(it["portSets"]),
    "CIDR": lambda it: it.get("cidr", ""),
    "POOL": lambda it: f"{it['start']}-{it['end']}" if it.get("start") else "",
    "SIZE": lambda it: count(it.get("size")),
    "USED": lambda it: count(it.get("used")),
    "RESERVED": lambda it: count(it.get("reserved")),
    "RESTING": lambda it: count(it.get("resting")),
    "FREE": lambda it: count(it.get("free")),
    "USE": percent,
}
NETWORK_WIDE: Columns = {**NETWORK_COLUMNS, "ID": lambda it: it["id"]}


# -- tenants and nodes ---------------------------------------------------------------------------------------------------------


def tenant(usage: pb.TenantUsage) -> Told:
    """What a tenant holds, of how much; no quota means as much as it likes."""
    told: Told = {"tenant": usage.tenant, "portSets": usage.port_sets, "used": {}, "quota": {}}
    for what in ("networks", "ports", "addresses"):
        told["used"][what] = getattr(usage.used, what)
        if limit := getattr(usage.quota, what):
            told["quota"][what] = limit
    return told


def _of_quota(it: Told, what: str) -> str | Cell:
    used, limit = it["used"][what], it["quota"].get(what, 0)
    if not limit:
        return str(used)
    return Cell(f"{used}/{limit}", "bad" if used >= limit else "warn" if used * 100 >= limit * _NEARLY else "")


TENANT_COLUMNS: Columns = {
    "TENANT": lambda it: it["tenant"],
    "SETS": lambda it: str(it["portSets"]),
    "NETWORKS": lambda it: _of_quota(it, "networks"),
    "PORTS": lambda it: _of_quota(it, "ports"),
    "ADDRESSES": lambda it: _of_quota(it, "addresses"),
}


def node(usage: pb.NodeUsage) -> Told:
    """What is on a node."""
    return {
        "node": usage.node, "connected": usage.connected, "portSets": usage.port_sets, "ports": usage.ports,
        "addresses": usage.addresses,
    }  # fmt: skip


NODE_COLUMNS: Columns = {
    "NODE": lambda it: it["node"],
    "CONNECTED": lambda it: Cell("yes", "good") if it["connected"] else Cell("no", "warn"),
    "SETS": lambda it: str(it["portSets"]),
    "PORTS": lambda it: str(it["ports"]),
    "ADDRESSES": lambda it: str(it["addresses"]),
}


# -- pods ----------------------------------------------------------------------------------------------------------------------


def pod(found: PortSet, networks: Sequence[str] = ()) -> Told:
    """An owner with its interfaces, those on these networks where some are named."""
    ports = [port for port in found.ports if not networks or port.network in networks]
    return {
        "owner": owners.short(found.owner),
        "tenant": found.tenant,
        "node": found.node,
        "state": state_of_set(found),
        **({"error": found.error.reason} if found.error is not None else {}),
        "interfaces": [_interface(port) for port in ports],
    }


def _interface(port: Port) -> Told:
    return {
        "interface": port.interface,
        "planes": list(port.roles),
        "network": port.network,
        "addresses": [one.cidr for one in port.addresses],
        "mac": port.mac,
    }


def interfaces(pods: Iterable[Told]) -> Iterator[Told]:
    """A row for each interface; one without any for an owner that has none."""
    for one in pods:
        of = {key: one.get(key, "") for key in ("owner", "node", "state", "error")}
        yield from [of | interface for interface in one["interfaces"]] or [of]


POD_COLUMNS: Columns = {
    "OWNER": lambda it: it["owner"],
    "NODE": lambda it: it["node"],
    "STATE": lambda it: Cell(f"{it['state']} {it['error']}".strip(), "bad" if it["error"] else ""),
    "INTERFACE": lambda it: it.get("interface", ""),
    "PLANES": lambda it: ",".join(it.get("planes", ())),
    "NETWORK": lambda it: it.get("network", ""),
    "ADDRESSES": lambda it: ",".join(one.partition("/")[0] for one in it.get("addresses", ())),
}
POD_WIDE: Columns = {**POD_COLUMNS, "MAC": lambda it: it.get("mac", "")}


# -- one address -----------------------------------------------------------------------------------------------------------------


def address(info: pb.AddressInfo) -> Told:
    """What an address is on one network."""
    owner = owners.short(owner_from_proto(info.owner)) if info.HasField("owner") else ""
    told: Told = {
        "network": info.network,
        "address": info.address,
        "state": pb.AddressState.Name(info.state).removeprefix("ADDRESS_STATE_").lower(),
        "owner": owner,
        "node": info.node,
        "interface": info.interface,
        "planes": list(info.roles),
        "ipGroup": info.ip_group,
        "ipClaim": info.ip_claim,
        "orphan": info.orphan,
    }
    return {key: value for key, value in told.items() if value or key in ("network", "address", "state")}


def _address_state(it: Told) -> Cell:
    if it.get("orphan"):
        return Cell("held (orphan)", "bad")
    return Cell(it["state"], _STYLES.get(it["state"], ""))


ADDRESS_COLUMNS: Columns = {
    "NETWORK": lambda it: it["network"],
    "ADDRESS": lambda it: it["address"],
    "STATE": _address_state,
    "OWNER": lambda it: it.get("owner", ""),
    "NODE": lambda it: it.get("node", ""),
    "INTERFACE": lambda it: it.get("interface", ""),
    "PLANES": lambda it: ",".join(it.get("planes", ())),
    "GROUP": lambda it: it.get("ipGroup", ""),
    "CLAIM": lambda it: it.get("ipClaim", ""),
}
