"""Plans that change or end a set without planning ports: what it held and does not hold any more rests."""

from collections.abc import Mapping
from dataclasses import replace

from knitter_common.errors import Refused
from knitter_common.model import NamedOwner, PodOwner, Port, PortSet, PortSetState
from knitter_manager import keys
from knitter_manager.allocation.claiming import end_claims
from knitter_manager.allocation.owned import OWN_MAC
from knitter_manager.allocation.plan import Plan
from knitter_manager.records import stored
from knitter_manager.state import Cluster


def own_ports(port_set: PortSet) -> list[Port]:
    """The ports whose addresses are the set's own, not a claim's."""
    claimed = [bool(wish.ip_claim) for wish in port_set.wishes]
    return [port for at, port in enumerate(port_set.ports) if not (at < len(claimed) and claimed[at])]


def rewrite(before: PortSet, after: PortSet) -> Plan:
    """The same ports, otherwise changed."""
    key = keys.port_set(before.owner.key)
    return Plan(conditions={key: before.revision}, puts={key: stored(after)})


def store(plan: Plan, before: PortSet | None, after: PortSet) -> Plan:
    """Stores what was planned, in the place of `before`, which may be of an earlier owner."""
    key = keys.port_set(after.owner.key)
    plan.puts[key] = stored(after)
    if before is None or before.owner == after.owner:
        plan.conditions[key] = before.revision if before else 0
        return plan
    old = keys.port_set(before.owner.key)
    plan.conditions[key] = 0
    plan.conditions[old] = before.revision
    plan.deletes.append(old)
    return plan


def end(cluster: Cluster, before: PortSet) -> Plan:
    """The set is gone; its addresses rest."""
    key = keys.port_set(before.owner.key)
    plan = Plan(conditions={key: before.revision}, deletes=[key])
    let_go(plan, cluster, before, None)
    return plan


def lives(port_set: PortSet) -> bool:
    """A pod, or a sandbox, has it; or a node has not given it back."""
    if port_set.binding is not None or port_set.state is PortSetState.LENT:
        return True
    return port_set.state is PortSetState.RESERVED and not isinstance(port_set.owner, NamedOwner)


def keep(before: PortSet, until: int) -> Plan:
    """The owner is gone, its addresses stay for its return. `until` is in nanoseconds since 1970."""
    return rewrite(before, replace(before, state=PortSetState.KEPT, node="", binding=None, expire_time=until))


def keeps(before: PortSet) -> bool:
    """Whether the set stays when its owner is gone."""
    return before.sticky and isinstance(before.owner, PodOwner) and before.error is None and before.state is not PortSetState.KEPT


def let_go(plan: Plan, cluster: Cluster, before: PortSet | None, after: PortSet | None) -> None:
    """What `before` held and `after` does not: addresses rest, MACs are free, claims are unused. What stays changes its
    owner's name where that is another one."""
    if before is None:
        return
    stay = {(port.network_id, one.cidr) for port in own_ports(after) for one in port.addresses} if after else set()
    macs = {(port.network_id, port.mac) for port in own_ports(after)} if after else set()
    renamed = after.owner.key.encode() if after is not None and after.owner != before.owner else None
    for port in own_ports(before):
        entry = cluster.networks.get(port.network_id)
        for one in port.addresses:
            key = keys.address(port.network_id, one.cidr.partition("/")[0])
            if (port.network_id, one.cidr) not in stay:
                plan.puts[key] = b""
            elif renamed is not None:
                plan.puts[key] = renamed
        if entry is not None and port.mac:
            key = keys.mac(entry.segment, port.mac)
            if (port.network_id, port.mac) not in macs:
                plan.deletes.append(key)
            elif renamed is not None:
                plan.puts[key] = renamed
    end_claims(plan, cluster, before)


def take_exactly(plan: Plan, cluster: Cluster, told: PortSet, before: PortSet | None, macs_held: Mapping[str, int]) -> None:
    """The addresses and MACs of a set that runs already. `macs_held` are records of MACs that name the owner as it is, with their
    revisions; every other MAC must be free. Raises Refused(ADDRESS_TAKEN | OBJECT_IN_USE)."""
    had = {(port.network_id, one.cidr) for port in own_ports(before) for one in port.addresses} if before else set()
    macs = {(port.network_id, port.mac) for port in own_ports(before)} if before else set()
    owner = told.owner.key.encode()
    for port in own_ports(told):
        entry = cluster.networks.get(port.network_id)
        if entry is None:
            raise Refused("OBJECT_IN_USE", f"network {port.network} ({port.network_id}) is not there any more")
        plan.read(entry)
        for one in port.addresses:
            if (port.network_id, one.cidr) in had:
                continue
            text = one.cidr.partition("/")[0]
            at = entry.space_of(text)
            taken = at[0].take_exactly(at[1]) if at is not None else None
            if at is None or taken is None:
                raise Refused("ADDRESS_TAKEN", f"{text} of network {port.network} belongs to another owner", address=text)
            plan.taken.append((at[0], taken))
            plan.conditions[keys.address(port.network_id, text)] = taken.mark
            plan.puts[keys.address(port.network_id, text)] = owner
        if port.mac and port.type not in OWN_MAC and (port.network_id, port.mac) not in macs:
            mac_key = keys.mac(entry.segment, port.mac)
            plan.conditions[mac_key] = macs_held.get(mac_key, 0)
            plan.puts[mac_key] = owner
