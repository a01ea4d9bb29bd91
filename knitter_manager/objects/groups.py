"""IP groups: addresses of one network that are set aside as a whole for a set of pods (knitter-behaviour: "IP group").

The group's own record is what sets its addresses aside; who uses one of them is said by the address's record, as for every other
address. So a group of any size is made, changed and deleted in one commit, and what goes out twice is refused by the store.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from knitter_common.convert import ip_group_to_proto
from knitter_common.errors import Denied, Exhausted, Exists, Invalid, NotFound, Refused
from knitter_common.model import ADMIN, IPGroup, IPGroupAddress, ObjectState
from knitter_common.names import nearest
from knitter_common.objects.validate import validate_ip_group
from knitter_manager import keys, numbers
from knitter_manager.allocation.plan import Plan
from knitter_manager.allocation.planner import Planner
from knitter_manager.ipam.ranges import handed_out, holds
from knitter_manager.ipam.space import Space, take_any
from knitter_manager.objects.book import API, Book, check_change
from knitter_manager.objects.holders import Holders
from knitter_manager.state import GroupEntry, NetworkEntry
from knitter_manager.store.protocol import Store

_TOLD = ("ips", "size", "pod_selector")  # what a declaration says beside its names


class Groups:
    """`new_id` makes an id that was never used; `clock` is monotonic and `rest` the default rest, both in seconds."""

    def __init__(
        self, book: Book, store: Store, planner: Planner, new_id: Callable[[], str], clock: Callable[[], float], rest: float
    ) -> None:
        self._book, self._holders, self._planner, self._new_id = book, Holders(store), planner, new_id
        self._clock, self._rest = clock, rest

    # -- reading -----------------------------------------------------------------------------------------------------------

    async def get(self, tenant: str, network: str, name: str) -> IPGroup:
        """With the user of each address. Raises NotFound(NETWORK_NOT_FOUND | OBJECT_NOT_FOUND), Unavailable."""
        return await self.shown(self._find(tenant or ADMIN, network, name)[1])

    async def shown(self, group: GroupEntry) -> IPGroup:
        """The group with the user of each address. Raises Unavailable."""
        return (await self.all_shown([group]))[0]

    async def all_shown(self, groups: Sequence[GroupEntry]) -> list[IPGroup]:
        """The groups, each address with its user as the store has it now. Raises Unavailable."""
        found = [(self._book.cluster.networks[group.key.split("/")[1]], group.group) for group in groups]
        used = [
            keys.address(entry.network.id, one.address)
            for entry, group in found
            for one in group.addresses
            if _is_held(entry, one.address)
        ]
        users = await self._holders.owners(used)
        told = []
        for entry, group in found:
            addresses = []
            for one in group.addresses:
                owner = users.get(keys.address(entry.network.id, one.address), "")
                addresses.append(IPGroupAddress(one.address, keys.owner_of(owner) if owner else None))
            told.append(replace(group, addresses=tuple(addresses)))
        return told

    def _find(self, tenant: str, network: str, name: str) -> tuple[NetworkEntry, GroupEntry]:
        entry = self._book.cluster.names.find(tenant, network, "network")
        group = entry.groups.get(keys.group(entry.network.id, tenant, name))
        if group is None:
            others = [other.group.name for other in entry.groups.values() if other.group.tenant == tenant]
            way = nearest(name, others) if others else "it has none there yet"
            said = f"tenant {tenant} has no IP group {name!r} on network {entry.network.path}; {way}"
            raise NotFound("OBJECT_NOT_FOUND", said, ip_group=name, network=entry.network.path)
        return entry, group

    # -- changing ----------------------------------------------------------------------------------------------------------

    async def create(self, wanted: IPGroup) -> IPGroup:
        """The new group, or the one that is there in the same shape; all of its addresses or none.

        Raises Exists(OBJECT_EXISTS), Denied(TENANT_DENIED), Refused(ADDRESS_TAKEN), Invalid(ADDRESS_UNUSABLE),
        Exhausted(POOL_EXHAUSTED).
        """
        asked = validate_ip_group(wanted)
        return await self._book.change(lambda: self._create(asked))

    async def _create(self, asked: IPGroup) -> IPGroup:
        entry = self._book.cluster.names.find(asked.tenant, asked.network, "network")
        _refuse_foreign(entry, asked)
        key = keys.group(entry.network.id, asked.tenant, asked.name)
        present = entry.groups.get(key)
        if present is not None:
            other = differences(present.group, asked)
            if not other:
                return await self.shown(present)
            said = f"{_said(present.group)} exists with another {' and '.join(other)}; update it, or choose another name"
            raise Exists("OBJECT_EXISTS", said, ip_group=asked.name, network=entry.network.path, fields=",".join(other))
        plan = Plan()
        try:
            if entry.network.state is ObjectState.DELETING:
                said = f"network {entry.network.path} is being deleted"
                raise Refused("OBJECT_DELETING", said, network=entry.network.path)
            self._planner.ensure_tenant(plan, asked.tenant)
            made = replace(asked, id=self._new_id(), create_time=self._book.wall(), source=asked.source or API)
            addresses = await self._chosen(plan, entry, asked, ())
            await self._store(plan, entry, key, made, addresses, 0)
        finally:
            plan.undo()
        return await self.shown(entry.groups[key])

    async def update(self, wanted: IPGroup) -> IPGroup:
        """The group as it is now. Raises Refused(OBJECT_IN_USE) naming who uses what would be lost; then nothing is changed."""
        asked = validate_ip_group(wanted)
        return await self._book.change(lambda: self._update(asked))

    async def _update(self, asked: IPGroup) -> IPGroup:
        entry, present = self._find(asked.tenant, asked.network, asked.name)
        current = present.group
        check_change(_said(current), current, asked.revision, asked.source)
        before = tuple([one.address for one in current.addresses])
        plan = Plan()
        try:
            addresses = await self._chosen(plan, entry, asked, before)
            if differences(current, asked) or addresses != before:
                after = replace(asked, id=current.id, create_time=current.create_time, source=current.source)
                await self._store(plan, entry, present.key, after, addresses, current.revision)
        finally:
            plan.undo()
        return await self.shown(entry.groups[present.key])

    async def delete(self, tenant: str, network: str, name: str, revision: int, source: str) -> None:
        """Missing is success. Raises Refused(OBJECT_IN_USE) while an address of it is used."""
        await self._book.change(lambda: self._delete(tenant or ADMIN, network, name, revision, source))

    async def dissolve(self, group: GroupEntry) -> None:
        """The group is gone, with its tenant or its network; who uses an address of it keeps that. Missing is success."""

        async def step() -> None:
            entry = self._book.cluster.networks.get(group.key.split("/")[1])
            present = entry.groups.get(group.key) if entry is not None else None
            if present is not None:
                await self._book.commit({present.key: present.group.revision}, {}, [present.key])

        await self._book.change(step)

    async def _delete(self, tenant: str, network: str, name: str, revision: int, source: str) -> None:
        try:
            entry, present = self._find(tenant, network, name)
        except NotFound:
            return
        check_change(_said(present.group), present.group, revision, source)
        plan = Plan()
        try:
            await self._remove(plan, entry, present.group, [one.address for one in present.group.addresses])
            plan.conditions[present.key] = present.group.revision
            await self._book.commit(plan.conditions, {}, [present.key])
        finally:
            plan.undo()

    async def _store(
        self, plan: Plan, entry: NetworkEntry, key: str, group: IPGroup, addresses: Iterable[str], before: int
    ) -> None:
        plan.read(entry)
        stored = replace(
            group, network=entry.network.path, addresses=tuple([IPGroupAddress(text) for text in addresses]), revision=0
        )
        plan.conditions[key] = before
        plan.puts[key] = ip_group_to_proto(stored).SerializeToString()
        await self._book.commit(plan.conditions, plan.puts)

    # -- which addresses ---------------------------------------------------------------------------------------------------
    # What comes in and what goes out is held until the commit is done, so that nobody takes it meanwhile.

    async def _chosen(self, plan: Plan, entry: NetworkEntry, asked: IPGroup, before: Sequence[str]) -> tuple[str, ...]:
        """The group's addresses as they shall be, in order, those of `before` that stay and new ones."""
        if asked.size:
            return await self._counted(plan, entry, asked, before)
        listed = set(asked.ips)
        await self._remove(plan, entry, asked, [text for text in before if text not in listed])
        present = set(before)
        for at, text in enumerate(asked.ips):
            space, number = _place(entry, text, f"ips[{at}]")
            if text not in present:
                await self._take(plan, entry, space, number, f"ips[{at}]")
        return asked.ips

    async def _take(self, plan: Plan, entry: NetworkEntry, space: Space, number: int, field: str) -> None:
        text, path = numbers.to_text(space.version, number), entry.network.path
        pool = space.group_of(number)
        if pool is not None:
            other = next((one.group for one in entry.groups.values() if any(mine is pool for _, mine in one.pools)), None)
            said = f"{field}: {text} of network {path} is one of {_said(other) if other else 'another IP group'}"
            raise Refused("ADDRESS_TAKEN", said, address=text, network=path, field=field)
        taken = space.take_exactly(number)
        if taken is None:
            holder = await self._holders.said(keys.address(entry.network.id, text))
            said = f"{field}: {text} of network {path} is held by {holder}"
            raise Refused("ADDRESS_TAKEN", said, address=text, network=path, holder=holder, field=field)
        plan.taken.append((space, taken))

    async def _counted(self, plan: Plan, entry: NetworkEntry, asked: IPGroup, before: Sequence[str]) -> tuple[str, ...]:
        versions = sorted({space.version for space in entry.spaces})
        if not versions:
            said = f"size: network {entry.network.path} has no subnet, so no address to set aside"
            raise Invalid("FIELD_INVALID", said, field="size", value=asked.size)
        chosen: list[str] = []
        for version in versions:
            have = [text for text in before if (":" in text) == (version == 6)]
            if len(have) > asked.size:
                have = await self._shrunk(plan, entry, asked, have)
            chosen += have
            chosen += self._more(plan, entry, version, asked.size - len(have))
        return tuple(chosen)

    async def _shrunk(self, plan: Plan, entry: NetworkEntry, asked: IPGroup, have: list[str]) -> list[str]:
        """Without the last unused ones."""
        unused = [text for text in reversed(have) if not _is_held(entry, text)][: len(have) - asked.size]
        if len(have) - len(unused) > asked.size:
            used = [text for text in have if _is_held(entry, text)]
            holder = await self._holders.said(keys.address(entry.network.id, used[-1]))
            said = f"size: {_said(asked)} cannot shrink to {asked.size}: {len(used)} are used, {used[-1]} by {holder}"
            raise Refused("OBJECT_IN_USE", said, ip_group=asked.name, address=used[-1], owner=holder)
        await self._remove(plan, entry, asked, unused)
        return [text for text in have if text not in unused]

    def _more(self, plan: Plan, entry: NetworkEntry, version: int, count: int) -> list[str]:
        """Any addresses of that family, from pools that are everybody's if there are such."""
        rest = self._rest if entry.network.rest is None else entry.network.rest
        found: list[str] = []
        choices = [(space, _everybodys(space)) for space in entry.spaces if space.version == version]
        while len(found) < count and (taken := take_any(choices, self._clock(), rest)) is not None:
            plan.taken.append(taken)
            found.append(numbers.to_text(version, taken[1].address))
        if len(found) < count:
            path = entry.network.path
            said = f"size: network {path} has {len(found)} free IPv{version} addresses, and {count} are wanted"
            raise Exhausted("POOL_EXHAUSTED", said, network=path, family=f"IPv{version}")
        return found

    async def _remove(self, plan: Plan, entry: NetworkEntry, group: IPGroup, addresses: Iterable[str]) -> None:
        """Raises Refused(OBJECT_IN_USE) for the first that is used."""
        for text in addresses:
            at = entry.space_of(text)
            taken = at[0].take_exactly(at[1]) if at is not None else None
            if at is not None and taken is None:
                holder = await self._holders.said(keys.address(entry.network.id, text))
                said = f"{_said(group)}: {text} is used by {holder}"
                raise Refused("OBJECT_IN_USE", said, ip_group=group.name, address=text, owner=holder)
            if at is not None and taken is not None:
                plan.taken.append((at[0], taken))


def differences(current: IPGroup, asked: IPGroup) -> list[str]:
    """The fields in which what is asked for is another group of that name."""
    return [name for name in _TOLD if getattr(current, name) != getattr(asked, name)]


def _said(group: IPGroup) -> str:
    return f"IP group {group.tenant}/{group.name}"


def _refuse_foreign(entry: NetworkEntry, asked: IPGroup) -> None:
    """A group takes addresses away from everybody else: on a network that is not the tenant's own only the operator makes one."""
    network = entry.network
    if asked.tenant not in (network.tenant, ADMIN):
        whose = "public" if network.public else f"tenant {network.tenant}'s"
        said = f"network {network.path} is {whose}; an IP group on it is the operator's to make, not tenant {asked.tenant}'s"
        raise Denied("TENANT_DENIED", said, network=network.path, tenant=asked.tenant)


def _place(entry: NetworkEntry, text: str, field: str) -> tuple[Space, int]:
    """Inside a pool or not, but an address that an interface can have. Raises Invalid(ADDRESS_UNUSABLE)."""
    at, path = entry.space_of(text), entry.network.path
    if at is None:
        cidrs = ", ".join(space.subnet.cidr for space in entry.spaces) or "none"
        said = f"{field}: {text} is in no subnet of network {path} (it has {cidrs})"
        raise Invalid("ADDRESS_UNUSABLE", said, address=text, network=path, field=field)
    space, number = at
    if not holds(handed_out(space.subnet), number):
        what = "the gateway" if text == space.subnet.gateway else "excluded, or the subnet's own"
        raise Invalid("ADDRESS_UNUSABLE", f"{field}: {text} of network {path} is {what}", address=text, network=path, field=field)
    return at


def _everybodys(space: Space) -> Sequence[int]:
    """The pools that are everybody's, or all where none is."""
    return [at for at, pool in enumerate(space.subnet.pools) if pool.usable_by is None] or space.all_pools


def _is_held(entry: NetworkEntry, text: str) -> bool:
    at = entry.space_of(text)
    return at is not None and at[0].is_held(at[1])
