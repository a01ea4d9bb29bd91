"""Networks: made, changed and deleted; nothing that is in use is hurt, and each refusal names who is in the way."""

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace

from knitter_common.errors import Denied, Exhausted, Exists, NotFound, Refused
from knitter_common.model import ADMIN, Network, NetworkType, ObjectState, Subnet, Tenant
from knitter_common.names import nearest
from knitter_common.objects.validate import type_name, validate_network
from knitter_manager import keys, numbers
from knitter_manager.allocation.plan import Plan
from knitter_manager.allocation.planner import Planner
from knitter_manager.ipam.space import Space
from knitter_manager.objects.book import API, Book, check_change
from knitter_manager.objects.segments import Segments, space_of
from knitter_manager.records import message_of, stored_network
from knitter_manager.state import NetworkEntry, TenantEntry
from knitter_manager.state.entries import segment_of

# What the manager sets; never compared.
_OURS = frozenset(("id", "state", "create_time", "revision", "source"))
# What cannot change while a port exists, since ports and nodes were made from it.
_FIXED = ("type", "physical_network", "segmentation_id", "vlan_transparent", "external", "external_gateway")
_NAMED = 3  # owners that a refusal names


class Networks:
    """`new_id` makes an id that was never used; `allowed_types` are those that tenants may create where nothing else is said."""

    def __init__(
        self, book: Book, planner: Planner, segments: Segments, new_id: Callable[[], str], allowed_types: Sequence[NetworkType]
    ) -> None:
        self._book, self._planner, self._segments, self._new_id = book, planner, segments, new_id
        self._allowed_types = tuple(allowed_types)

    def get(self, tenant: str, name: str) -> Network:
        """Raises NotFound(NETWORK_NOT_FOUND)."""
        return self._entry(tenant or ADMIN, name).network

    def _entry(self, tenant: str, name: str) -> NetworkEntry:
        entry = self._book.cluster.names.at(f"{tenant}/{name}")
        if entry is None:
            others = {other.network.name for other in self._book.cluster.names.all() if other.network.tenant == tenant}
            way = nearest(name, others) if others else "it has none yet"
            raise NotFound("NETWORK_NOT_FOUND", f"tenant {tenant} has no network {name!r}; {way}", network=f"{tenant}/{name}")
        return entry

    async def create(self, wanted: Network) -> Network:
        """The new network, or the one that is there in the same shape. Raises Exists(OBJECT_EXISTS) for one in another shape."""
        asked = validate_network(wanted)
        return await self._book.change(lambda: self._create(asked))

    async def _create(self, asked: Network) -> Network:
        cluster = self._book.cluster
        present = cluster.names.at(asked.path)
        if present is not None:
            other = differences(present.network, asked)
            if not other:
                return present.network
            said = f"network {asked.path} exists with another {' and '.join(other)}; update it, or choose another name"
            raise Exists("OBJECT_EXISTS", said, network=asked.path, fields=",".join(other))
        tenant = cluster.tenant(asked.tenant)
        plan = Plan()
        self._planner.ensure_tenant(plan, asked.tenant)
        self._refuse_unless_allowed(tenant.tenant, asked)
        self._charge(tenant)
        network = replace(
            asked,
            id=self._new_id(),
            state=ObjectState.ACTIVE,
            create_time=self._book.wall(),
            revision=0,
            source=asked.source or API,
        )
        number, conditions, puts = self._segments.choose(network)
        network = replace(network, segmentation_id=number)
        plan.conditions |= conditions
        plan.puts |= puts
        self._refuse_overlap(network)
        plan.conditions |= {keys.network(network.id): 0, keys.network_name(network.tenant, network.name): 0}
        plan.puts |= {
            keys.network(network.id): stored_network(network),
            keys.network_name(network.tenant, network.name): network.id.encode(),
        }
        await self._book.commit(plan.conditions, plan.puts)
        return cluster.networks[network.id].network

    def _refuse_unless_allowed(self, tenant: Tenant, asked: Network, current: Network | None = None) -> None:
        """Tenants make what the operator allows them; an overlay's id is the system's to choose. What the network is already it
        may stay. Raises Denied(TENANT_DENIED)."""
        if tenant.name == ADMIN:
            return
        types = tenant.allowed_types or self._allowed_types
        if asked.type not in types and (current is None or asked.type != current.type):
            allowed = ", ".join(type_name(one) for one in types)
            said = f"type: tenant {tenant.name} may not create networks of type {type_name(asked.type)}; allowed are {allowed}"
            raise Denied("TENANT_DENIED", said, field="type", tenant=tenant.name)
        named = current is None or asked.physical_network != current.physical_network
        if named and asked.physical_network and asked.physical_network not in tenant.allowed_physical_networks:
            allowed = ", ".join(tenant.allowed_physical_networks) or "none"
            said = f"physicalNetwork: tenant {tenant.name} may not use {asked.physical_network!r}; allowed are: {allowed}"
            raise Denied("TENANT_DENIED", said, field="physicalNetwork", tenant=tenant.name)
        numbered = current is None or (asked.type, asked.segmentation_id) != (current.type, current.segmentation_id)
        if numbered and asked.type is NetworkType.VXLAN and asked.segmentation_id:
            said = f"segmentationId: the VNI of a network of tenant {tenant.name} is chosen by the system; leave it out"
            raise Denied("TENANT_DENIED", said, field="segmentationId", tenant=tenant.name)

    def _charge(self, tenant: TenantEntry) -> None:
        limit = self._planner.quota_of(tenant).networks
        if limit and tenant.networks >= limit:
            name = tenant.tenant.name
            said = f"tenant {name} has {tenant.networks} of {limit} networks"
            raise Exhausted("QUOTA_EXCEEDED", said, tenant=name, quota="networks", limit=limit, used=tenant.networks)

    async def update(self, wanted: Network) -> Network:
        """The network as it is now. Raises Refused(OBJECT_IN_USE) naming who would be hurt, and nothing is changed."""
        asked = validate_network(wanted)
        return await self._book.change(lambda: self._update(asked))

    async def _update(self, asked: Network) -> Network:
        entry = self._entry(asked.tenant, asked.name)
        current = entry.network
        check_change(f"network {current.path}", current, asked.revision, asked.source)
        if not asked.segmentation_id and asked.type == current.type and asked.physical_network == current.physical_network:
            asked = replace(asked, segmentation_id=current.segmentation_id)
        if not differences(current, asked):
            return current
        network = replace(
            asked,
            id=current.id,
            state=current.state,
            create_time=current.create_time,
            source=current.source,
            revision=0,
        )
        plan = Plan(conditions={keys.network(network.id): current.revision})
        self._refuse_unless_allowed(self._book.cluster.tenant(network.tenant).tenant, network, current)
        self._refuse_harm(entry, network)
        if (space_of(network), network.segmentation_id) != (space_of(current), current.segmentation_id):
            plan.puts |= self._segments.give_up(current)
            number, conditions, puts = self._segments.choose(network)
            network = replace(network, segmentation_id=number)
            plan.conditions |= conditions
            plan.puts |= puts
        self._refuse_overlap(network)
        plan.puts[keys.network(network.id)] = stored_network(network)
        left = {subnet.cidr for subnet in network.subnets}
        marks = _all_marks(entry, [space for space in entry.spaces if space.subnet.cidr not in left])
        await self._book.commit(plan.conditions, plan.puts)
        await self._forget(marks)
        return self._book.cluster.networks[network.id].network

    async def delete(self, tenant: str, name: str, revision: int, source: str) -> None:
        """Missing is success. Raises Refused(OBJECT_IN_USE) while anything uses it."""
        await self._book.change(lambda: self._delete(tenant or ADMIN, name, revision, source))

    async def _delete(self, tenant: str, name: str, revision: int, source: str) -> None:
        entry = self._book.cluster.names.at(f"{tenant}/{name}")
        if entry is None:
            return
        network = entry.network
        check_change(f"network {network.path}", network, revision, source)
        if entry.owners or entry.pending:
            raise in_use(f"network {network.path}", entry.owners, "its ports")
        groups = [group.group.name for group in entry.groups.values()]
        if groups:
            said = f"network {network.path} has IP groups: {', '.join(sorted(groups)[:_NAMED])}; delete them first"
            raise Refused("OBJECT_IN_USE", said, network=network.path)
        marks = _all_marks(entry, entry.spaces)
        deletes = [keys.network(network.id), keys.network_name(network.tenant, network.name)]
        await self._book.commit({keys.network(network.id): network.revision}, self._segments.give_up(network), deletes)
        await self._forget(marks)

    async def _forget(self, marks: Sequence[str]) -> None:
        """Deletes the records of rests in subnets that are not there any more."""
        for begin in range(0, len(marks), 100):
            await self._book.commit({}, {}, marks[begin : begin + 100])

    # -- refusals ----------------------------------------------------------------------------------------------------------

    def _refuse_harm(self, entry: NetworkEntry, after: Network) -> None:
        before, what = entry.network, f"network {entry.network.path}"
        if entry.owners or entry.pending:
            for name in _FIXED:
                if getattr(before, name) != getattr(after, name):
                    raise in_use(what, entry.owners, f"changing {name} would cut off its ports")
        self._refuse_hidden(entry, after)
        cidrs = {subnet.cidr: subnet for subnet in after.subnets}
        for space in entry.spaces:
            subnet = cidrs.get(space.subnet.cidr)
            if subnet is None:
                held = space.held_in(space.first, space.last)
                self._refuse_held(entry, f"removing subnet {space.subnet.cidr}", space.version, held)
                continue
            if space.subnet.gateway and subnet.gateway != space.subnet.gateway:
                held = space.held_in(space.first, space.last)
                self._refuse_held(entry, f"changing the gateway of {space.subnet.cidr}", space.version, held, "cut off {} of {}")
            self._refuse_held(entry, f"the new pools and exclusions of {space.subnet.cidr}", space.version, space.lost_by(subnet))
        self._refuse_groups(entry, cidrs)

    def _refuse_held(
        self, entry: NetworkEntry, what: str, version: int, held: Iterable[int], harm: str = "take {} from {}"
    ) -> None:
        lost = next(iter(held), None)
        if lost is not None:
            text = numbers.to_text(version, lost)
            who = self._holder(entry, text)
            said = f"network {entry.network.path}: {what} would {harm.format(text, who)}"
            raise Refused("OBJECT_IN_USE", said, network=entry.network.path, address=text, owner=who)

    def _refuse_groups(self, entry: NetworkEntry, cidrs: Mapping[str, Subnet]) -> None:
        """An IP group keeps all of its addresses."""
        for space in entry.spaces:
            subnet = cidrs.get(space.subnet.cidr)
            cut = space.aside() if subnet is None else space.cut_by(subnet)
            for number in cut:
                text, pool = numbers.to_text(space.version, number), space.group_of(number)
                group = next(one.group for one in entry.groups.values() if pool in [mine for _, mine in one.pools])
                what = f"IP group {group.tenant}/{group.name}"
                said = f"network {entry.network.path}: {what} would lose {text}; change the group first"
                raise Refused("OBJECT_IN_USE", said, network=entry.network.path, address=text, ip_group=group.name)

    def _holder(self, entry: NetworkEntry, address: str) -> str:
        for owner_key in entry.owners:
            if owner_key in self._book.cluster.claims:
                claim = self._book.cluster.claims[owner_key]
                if any(one.cidr.partition("/")[0] == address for one in claim.addresses):
                    return keys.said(owner_key)
                continue
            message = message_of(self._book.cluster.sets[owner_key])
            if any(one.cidr.partition("/")[0] == address for port in message.ports for one in port.addresses):
                return keys.said(owner_key)
        return "an allocation under way"

    def _refuse_hidden(self, entry: NetworkEntry, after: Network) -> None:
        """A tenant that uses it must not lose sight of it."""
        before = entry.network
        if (before.public and not after.public) or set(before.exported_to) - set(after.exported_to):
            seeing = {after.tenant, ADMIN, *after.exported_to}
            for owner_key in entry.owners:
                tenant = self._tenant_of(owner_key)
                if not after.public and tenant not in seeing:
                    said = f"network {before.path}: tenant {tenant} would not see it any more, and {keys.said(owner_key)} uses it"
                    raise Refused("OBJECT_IN_USE", said, network=before.path, tenant=tenant)

    def _tenant_of(self, owner_key: str) -> str:
        claim = self._book.cluster.claims.get(owner_key)
        return claim.tenant if claim is not None else message_of(self._book.cluster.sets[owner_key]).tenant

    def _refuse_overlap(self, network: Network) -> None:
        """Subnets of different networks on one segment share no address."""
        segment = segment_of(network)
        nets = [ipaddress.ip_network(subnet.cidr) for subnet in network.subnets]
        for other in self._book.cluster.networks.values():
            if other.network.id == network.id or other.segment != segment:
                continue
            for space in other.spaces:
                theirs = ipaddress.ip_network(space.subnet.cidr)
                for at, ours in enumerate(nets):
                    if ours.version == theirs.version and ours.overlaps(theirs):
                        said = f"subnets[{at}].cidr: {ours} overlaps {theirs} of network {other.network.path} on the same segment"
                        raise Refused("SUBNET_OVERLAPS", said, field=f"subnets[{at}].cidr", network=other.network.path)


def differences(current: Network, asked: Network) -> list[str]:
    """The fields in which what is asked for is another network; a segmentation id that is not asked for is the manager's to
    choose."""
    names = [field.name for field in fields(Network) if field.name not in _OURS]
    if not asked.segmentation_id:
        names.remove("segmentation_id")
    return [name for name in names if getattr(current, name) != getattr(asked, name)]


def in_use(what: str, owners: Iterable[str], why: str) -> Refused:
    """The refusal that names up to three of them."""
    known = sorted(owners)
    names = ", ".join(keys.said(owner) for owner in known[:_NAMED]) or "an allocation under way"
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return Refused("OBJECT_IN_USE", f"{what} is used by {names}{more}; {why}", owners=",".join(known[:_NAMED]))


def _all_marks(entry: NetworkEntry, spaces: Iterable[Space]) -> list[str]:
    """The keys of the rests that the store records in these subnets."""
    found = ((space.version, address) for space in spaces for address in space.marks())
    return [keys.address(entry.network.id, numbers.to_text(version, address)) for version, address in found]
