"""What a table shows of each kind: pure functions from objects to rows. `wide` adds columns; AGE stays the last."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from knitter_common.model import (
    IPClaim,
    IPGroup,
    Network,
    Node,
    ObjectState,
    Port,
    PortSet,
    PortSetState,
    Quota,
)
from knitter_common.objects import type_name
from knitter_ctl import owners
from knitter_ctl.ages import age
from knitter_ctl.kinds import IP_CLAIM, IP_GROUP, NETWORK, NODE, PORT_SET, TENANT, Kind
from knitter_ctl.table import Cell, Row

_STATE_STYLES = {"bound": "good", "reserved": "", "lent": "warn", "failed": "bad", "kept": "kept"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `show` takes the object and the time (nanoseconds since 1970)."""

    title: str
    show: Callable[[Any, int], str | Cell]
    wide: bool = False


def header(kind: Kind, wide: bool) -> list[str]:
    """The titles."""
    return [column.title for column in COLUMNS[kind] if wide or not column.wide]


def row(kind: Kind, entry: Any, now: int, wide: bool) -> Row:
    """The fields of one object."""
    return [column.show(entry, now) for column in COLUMNS[kind] if wide or not column.wide]


def subnet_list(network: Network) -> str:
    """The CIDRs, comma separated."""
    return ",".join(subnet.cidr for subnet in network.subnets)


def state_of_set(found: PortSet) -> str:
    """ "bound" for a reserved set that a sandbox uses, else the state's name."""
    if found.state is PortSetState.RESERVED and found.binding is not None:
        return "bound"
    return found.state.name.lower()


def network_name(port: Port, tenant: str) -> str:
    """Without the tenant where it is the set's own."""
    owner, _, name = port.network.rpartition("/")
    return name if owner == tenant else port.network


def interfaces(found: PortSet) -> str:
    """ "eth0=control:10.1.0.9,2001:db8::9 eth1=…"; the reason when planning failed."""
    if found.error is not None:
        return f"error {found.error.reason}"
    return " ".join(_interface(port, found.tenant) for port in found.ports)


def quota(used: Quota, limit: Quota, field: str) -> str:
    """ "3/10"; "3" when the limit is the default that the manager does not tell."""
    most = getattr(limit, field)
    return f"{getattr(used, field)}/{most}" if most else str(getattr(used, field))


def _interface(port: Port, tenant: str) -> str:
    addresses = ",".join(address.cidr.partition("/")[0] for address in port.addresses)
    named = f"{port.interface}={network_name(port, tenant)}"
    return f"{named}:{addresses}" if addresses else named


def _state(state: ObjectState) -> Cell:
    return Cell(state.name.lower(), "good" if state is ObjectState.ACTIVE else "warn")


def _set_state(found: PortSet) -> Cell:
    state = state_of_set(found)
    return Cell(state, _STATE_STYLES.get(state, ""))


def _node_state(node: Node) -> Cell:
    return Cell("gone", "bad") if node.gone else Cell("known", "good")


def _labels(labels: Any) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _group_use(group: IPGroup) -> str:
    return f"{sum(entry.used_by is not None for entry in group.addresses)}/{len(group.addresses)}"


def _claim_addresses(claim: IPClaim) -> str:
    return ",".join(address.cidr for address in claim.addresses)


def _network_visibility(network: Network) -> str:
    if network.public:
        return "public"
    return f"exported:{','.join(network.exported_to)}" if network.exported_to else "private"


def _age(entry: Any, now: int) -> str:
    return age(entry.create_time, now)


_AGE = Column("AGE", _age)
_SOURCE = Column("SOURCE", lambda entry, _: entry.source, wide=True)
_REVISION = Column("REVISION", lambda entry, _: str(entry.revision), wide=True)

COLUMNS: dict[Kind, Sequence[Column]] = {
    NETWORK: (
        Column("TENANT", lambda it, _: it.tenant),
        Column("NAME", lambda it, _: it.name),
        Column("TYPE", lambda it, _: type_name(it.type)),
        Column("SUBNETS", lambda it, _: subnet_list(it)),
        Column("SHARED", lambda it, _: _network_visibility(it)),
        Column("STATE", lambda it, _: _state(it.state)),
        Column("MTU", lambda it, _: str(it.mtu or ""), wide=True),
        Column("SEGMENT", lambda it, _: str(it.segmentation_id or ""), wide=True),
        Column("PHYSICAL", lambda it, _: it.physical_network, wide=True),
        Column("ID", lambda it, _: it.id, wide=True),
        _SOURCE,
        _REVISION,
        _AGE,
    ),
    PORT_SET: (
        Column("OWNER", lambda it, _: owners.short(it.owner)),
        Column("TENANT", lambda it, _: it.tenant, wide=True),
        Column("NODE", lambda it, _: it.node),
        Column("STATE", lambda it, _: _set_state(it)),
        Column("INTERFACES", lambda it, _: interfaces(it)),
        Column("MACS", lambda it, _: ",".join(port.mac for port in it.ports), wide=True),
        Column("CONTAINER", lambda it, _: it.binding.container_id[:12] if it.binding else "", wide=True),
        Column("STICKY", lambda it, _: "yes" if it.sticky else "no", wide=True),
        _REVISION,
        _AGE,
    ),
    NODE: (
        Column("NAME", lambda it, _: it.name),
        Column("STATE", lambda it, _: _node_state(it)),
        Column("UNDERLAY", lambda it, _: it.underlay_address),
        Column("VERSION", lambda it, _: it.agent_version),
        Column("LAST-SEEN", lambda it, now: age(it.last_seen, now)),
        Column("LABELS", lambda it, _: _labels(it.labels), wide=True),
        _REVISION,
        _AGE,
    ),
    TENANT: (
        Column("NAME", lambda it, _: it.name),
        Column("STATE", lambda it, _: _state(it.state)),
        Column("NETWORKS", lambda it, _: quota(it.used, it.quota, "networks")),
        Column("PORTS", lambda it, _: quota(it.used, it.quota, "ports")),
        Column("ADDRESSES", lambda it, _: quota(it.used, it.quota, "addresses")),
        Column("TYPES", lambda it, _: ",".join(type_name(kind) for kind in it.allowed_types), wide=True),
        Column("LABELS", lambda it, _: _labels(it.labels), wide=True),
        _SOURCE,
        _REVISION,
        _AGE,
    ),
    IP_GROUP: (
        Column("TENANT", lambda it, _: it.tenant),
        Column("NETWORK", lambda it, _: it.network),
        Column("NAME", lambda it, _: it.name),
        Column("USED", lambda it, _: _group_use(it)),
        Column("ADDRESSES", lambda it, _: ",".join(entry.address for entry in it.addresses), wide=True),
        _SOURCE,
        _REVISION,
        _AGE,
    ),
    IP_CLAIM: (
        Column("TENANT", lambda it, _: it.tenant),
        Column("NAME", lambda it, _: it.name),
        Column("NETWORK", lambda it, _: it.network),
        Column("ADDRESSES", lambda it, _: _claim_addresses(it)),
        Column("USED-BY", lambda it, _: owners.short(it.used_by) if it.used_by else ""),
        Column("MAC", lambda it, _: it.mac, wide=True),
        _SOURCE,
        _REVISION,
        _AGE,
    ),
}
