"""Addresses and MAC for one port: wanted ones, those of an IP group, or any."""

from collections.abc import Collection, Iterator, Sequence

from knitter_common.addresses import mac as checked_mac
from knitter_common.addresses import wanted as checked_wanted
from knitter_common.errors import Exhausted, Invalid, KnitterError, NotFound, Refused
from knitter_common.model import ADMIN, PortAddress, Wish
from knitter_common.names import nearest, shown
from knitter_manager import keys, numbers
from knitter_manager.allocation.asker import Asker, usable_pools
from knitter_manager.allocation.held import HeldBy
from knitter_manager.allocation.owned import OWN_MAC
from knitter_manager.allocation.plan import Plan
from knitter_manager.ipam.mac import port_identity
from knitter_manager.ipam.pool import Pool
from knitter_manager.ipam.space import Space, Taken, take_any
from knitter_manager.labels import matches
from knitter_manager.state import GroupEntry, NetworkEntry


class PortAddresses:
    """Takes addresses of one network for one port into a plan. `place` is where the wish was written, for errors. `rest` is
    the default rest and `now` the monotonic clock, in seconds."""

    def __init__(self, plan: Plan, entry: NetworkEntry, owner_key: str, place: str, asker: Asker, now: float, rest: float) -> None:
        self._plan, self._entry, self._owner, self._place, self._asker, self._now = plan, entry, owner_key, place, asker, now
        self._holder = owner_key.encode()
        self._rest = rest if entry.network.rest is None else entry.network.rest

    @property
    def _path(self) -> str:
        return self._entry.network.path

    def take(self, wish: Wish, kept: Collection[str], group: GroupEntry | None) -> tuple[PortAddress, ...]:
        """One address of each family that the network has, or those that are wanted; `kept` are the owner's already and stay
        where they still fit. Raises KnitterError or HeldBy."""
        if not wish.addresses and not kept:
            return tuple([port_address(*self._any(spaces, version, group)) for version, spaces in self._entry.families])
        found: list[tuple[Space, int]] = []
        for text in wish.addresses:
            asked = self._asked(text)
            if asked in found:
                raise Invalid("WISH_INVALID", f"{self._place}: address {text} is wanted twice; name it once", address=text)
            self._take_wanted(*asked, kept, group)
            found.append(asked)
        families = {space.version for space, _ in found}
        found += self._staying(kept, group, families)
        families.update(space.version for space, _ in found)
        for version, spaces in self._entry.families:
            if version not in families:
                found.append(self._any(spaces, version, group))
        found.sort(key=lambda item: item[0].version)
        return tuple([port_address(space, number) for space, number in found])

    def _staying(self, kept: Collection[str], group: GroupEntry | None, wanted: Collection[int]) -> list[tuple[Space, int]]:
        """What the owner has already, of the families it names no address of, and from where it shall come."""
        stay = []
        for text in kept:
            at = self._entry.space_of(text)
            if at is None or at[0].version in wanted:
                continue
            pools = [pool for _, pool in group.pools] if group is not None and _gives(group, at[0].version) else [None]
            if at[0].group_of(at[1]) in pools:
                stay.append(at)
        return stay

    # -- any -------------------------------------------------------------------------------------------------------------

    def _any(self, spaces: Sequence[Space], version: int, group: GroupEntry | None) -> tuple[Space, int]:
        if group is not None and _gives(group, version):
            return self._of_group(version, group)
        found = take_any([(space, usable_pools(space, self._asker)) for space in spaces], self._now, self._rest)
        if found is not None:
            self._hold(*found)
            return found[0], found[1].address
        cidrs = ", ".join(space.subnet.cidr for space in spaces)
        said = f"{self._place}: network {self._path} has no free IPv{version} address in {cidrs}"
        if not any(usable_pools(space, self._asker) for space in spaces):
            said += "; no pool of it is for this namespace, pod and node"
        raise Exhausted("POOL_EXHAUSTED", said, network=self._path, family=f"IPv{version}")

    def _of_group(self, version: int, group: GroupEntry) -> tuple[Space, int]:
        """The first in the group's order that nobody uses. None rests within its group: who takes it is one of the same pods."""
        for space, pool, number in _in_order(version, group, self._entry):
            taken = None if pool.is_held(number) else space.take_exactly(number)
            if taken is not None:
                self._hold(space, taken)
                return space, number
        name = f"{group.group.tenant}/{group.group.name}"
        said = f"{self._place}: IP group {name} of network {self._path} has no unused IPv{version} address left"
        raise Exhausted("GROUP_EXHAUSTED", said, network=self._path, ip_group=name)

    # -- wanted ----------------------------------------------------------------------------------------------------------

    def _asked(self, text: str) -> tuple[Space, int]:
        try:
            canonical = checked_wanted(text)
        except ValueError as error:
            raise Invalid("WISH_INVALID", f"{self._place}: address {error}", address=text) from None
        address, _, length = canonical.partition("/")
        at = self._entry.space_of(address)
        if at is None:
            cidrs = ", ".join(space.subnet.cidr for space in self._entry.spaces) or "none"
            said = f"{self._place}: {address} is in no subnet of network {self._path} (it has {cidrs})"
            raise Invalid("ADDRESS_UNUSABLE", said, address=address, network=self._path)
        space, _ = at
        if length and int(length) != space.prefix_length:
            said = f"{self._place}: {text} has another prefix length than its subnet {space.subnet.cidr}; write {address}"
            raise Invalid("ADDRESS_UNUSABLE", said, address=address, network=self._path)
        return at

    def _take_wanted(self, space: Space, number: int, kept: Collection[str], group: GroupEntry | None) -> None:
        text, aside = numbers.to_text(space.version, number), space.group_of(number)
        group = group if group is not None and _gives(group, space.version) else None
        pools = [pool for _, pool in group.pools] if group else []
        if aside not in pools and (aside is not None or group is not None):
            raise self._wrong_group(space, number, text, group)
        if text in kept:
            return
        if aside is not None:
            taken = space.take_exactly(number)
        else:
            usable = any(number in space.pools[at] for at in usable_pools(space, self._asker))
            taken = space.take_wanted(number) if usable else None
        if taken is None:
            raise self._refusal(space, number, text)
        self._hold(space, taken)

    def _wrong_group(self, space: Space, number: int, text: str, group: GroupEntry | None) -> KnitterError:
        if group is not None:
            said = f"{self._place}: {text} is not one of IP group {group.group.name} of network {self._path}"
            return Invalid("ADDRESS_UNUSABLE", said, address=text, network=self._path, ip_group=group.group.name)
        pool = space.group_of(number)
        owner = next((one.group for one in self._entry.groups.values() if pool in [mine for _, mine in one.pools]), None)
        name = f"{owner.tenant}/{owner.name}" if owner else "being changed"
        said = f"{self._place}: {text} of network {self._path} is set aside for IP group {name}; name the group, or another address"
        return Refused("ADDRESS_TAKEN", said, address=text, network=self._path, ip_group=name)

    def _refusal(self, space: Space, number: int, address: str) -> HeldBy | Invalid:
        path, place = self._path, self._place
        if space.is_held(number):

            def taken(holder: str) -> KnitterError:
                said = f"{place}: {address} of network {path} is held by {holder}"
                return Refused("ADDRESS_TAKEN", said, address=address, network=path, holder=holder)

            return HeldBy(keys.address(self._entry.network.id, address), taken)
        what = "is the gateway" if address == space.subnet.gateway else "is excluded, or in no pool that it may use"
        said = f"{self._place}: {address} of network {path} {what}"
        return Invalid("ADDRESS_UNUSABLE", said, address=address, network=path)

    def _hold(self, space: Space, taken: Taken) -> None:
        plan = self._plan
        plan.taken.append((space, taken))
        key = f"addr/{self._entry.network.id}/{numbers.to_text(space.version, taken.address)}"
        plan.conditions[key] = taken.mark
        plan.puts[key] = self._holder

    # -- names -----------------------------------------------------------------------------------------------------------

    def identity(self, wish: Wish, interface: str, kept: str, attempt: int) -> tuple[str, str]:
        """(port id, MAC): the wanted MAC, the one the owner has, or a generated one."""
        name, generated = port_identity(self._owner, interface, attempt)
        try:
            text = checked_mac(wish.mac) if wish.mac else kept or generated
        except ValueError as error:
            raise Invalid("WISH_INVALID", f"{self._place}: MAC {error}", mac=wish.mac) from None
        if self._entry.network.type in OWN_MAC:
            return name, text if wish.mac else ""
        if text != kept:
            key = keys.mac(self._entry.segment, text)
            if key in self._plan.puts:
                said = f"{self._place}: MAC {text} is wanted for another interface of the same owner; choose another"
                raise Refused("MAC_TAKEN", said, mac=text, network=self._path)
            self._plan.conditions[key] = 0
            self._plan.puts[key] = self._holder
        return name, text


def group_for(entry: NetworkEntry, wish: Wish, asker: Asker, place: str) -> GroupEntry | None:
    """The IP group that a wish takes from: the named one (the tenant's own first, then the operator's), else the first whose
    selector matches the pod. Raises NotFound(OBJECT_NOT_FOUND)."""
    if not entry.groups and not wish.ip_group:
        return None
    tenants = dict.fromkeys((asker.tenant, ADMIN))
    if wish.ip_group:
        for tenant in tenants:
            found = entry.groups.get(keys.group(entry.network.id, tenant, wish.ip_group))
            if found is not None:
                return found
        names = [group.group.name for group in entry.groups.values() if group.group.tenant in tenants]
        way = nearest(wish.ip_group, names) if names else "it has none"
        said = f"{place}: network {entry.network.path} has no IP group {shown(wish.ip_group)} for tenant {asker.tenant}; {way}"
        raise NotFound("OBJECT_NOT_FOUND", said, ip_group=wish.ip_group, network=entry.network.path)
    for tenant in tenants:
        for key in sorted(entry.groups):
            group = entry.groups[key].group
            if group.tenant == tenant and group.pod_selector is not None and matches(group.pod_selector, asker.pod_labels):
                return entry.groups[key]
    return None


def _gives(group: GroupEntry, version: int) -> bool:
    """Whether addresses of that family come from the group: what it has none of comes from the pools, but an empty one gives
    nothing."""
    return not group.pools or any(space.version == version for space, _ in group.pools)


def _in_order(version: int, group: GroupEntry, entry: NetworkEntry) -> Iterator[tuple[Space, Pool, int]]:
    """The group's addresses of one family, in its order."""
    mine = {space: pool for space, pool in group.pools if space.version == version}
    if len(mine) == 1:
        for space, pool in mine.items():
            yield from ((space, pool, number) for number, _ in pool.ranges)
        return
    for one in group.group.addresses:
        at = entry.space_of(one.address)
        if at is not None and at[0] in mine:
            yield at[0], mine[at[0]], at[1]


def port_address(space: Space, number: int) -> PortAddress:
    """The address as a port has it."""
    return PortAddress(f"{numbers.to_text(space.version, number)}/{space.prefix_length}", space.subnet.gateway)
