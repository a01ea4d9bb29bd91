"""Addresses and MAC for one port."""

from collections.abc import Iterable

from knitter_common.addresses import mac as checked_mac
from knitter_common.addresses import wanted as checked_wanted
from knitter_common.errors import Exhausted, Invalid, KnitterError, Refused
from knitter_common.model import NetworkType, PortAddress, Wish
from knitter_manager import keys, numbers
from knitter_manager.allocation.held import HeldBy
from knitter_manager.allocation.plan import Plan
from knitter_manager.ipam.mac import port_identity
from knitter_manager.ipam.space import Space, Taken
from knitter_manager.state import NetworkEntry

# The device, or its parent, brings the MAC.
_OWN_MAC = (NetworkType.IPVLAN, NetworkType.HOST_DEVICE)


class PortAddresses:
    """Takes addresses of one network for one port into a plan. `place` is where the wish was written, for errors."""

    def __init__(self, plan: Plan, entry: NetworkEntry, owner_key: str, place: str, now: float, rest: float) -> None:
        self._plan, self._entry, self._owner, self._place, self._now = plan, entry, owner_key, place, now
        self._rest = rest if entry.network.rest is None else entry.network.rest

    def take(self, wish: Wish, kept: Iterable[str] = ()) -> tuple[PortAddress, ...]:
        """One address of each family that the network has, or those that are wanted; `kept` are the owner's already and stay."""
        found: list[tuple[Space, int]] = []
        for text in wish.addresses:
            asked = self._asked(text)
            if asked in found:
                raise Invalid("WISH_INVALID", f"{self._place}: address {text} is wanted twice; name it once", address=text)
            self._take_wanted(*asked, kept)
            found.append(asked)
        families = {space.version for space, _ in found}
        wanted = frozenset(families)
        for text in kept:
            at = self._entry.space_of(text)
            if at is not None and at[0].version not in wanted:
                found.append(at)
                families.add(at[0].version)
        for version in (4, 6):
            if version not in families:
                any_one = self._any([space for space in self._entry.spaces if space.version == version])
                found += [any_one] if any_one else []
        found.sort(key=lambda item: item[0].version)
        return tuple(
            PortAddress(f"{numbers.to_text(space.version, number)}/{space.prefix_length}", space.subnet.gateway)
            for space, number in found
        )

    def _any(self, spaces: list[Space]) -> tuple[Space, int] | None:
        if not spaces:
            return None
        for space in spaces:
            taken = space.take(range(len(space.pools)), self._now, self._rest)
            if taken is not None:
                self._hold(space, taken)
                return space, taken.address
        network = self._entry.network
        cidrs = ", ".join(space.subnet.cidr for space in spaces)
        said = f"{self._place}: network {network.path} has no free IPv{spaces[0].version} address in {cidrs}"
        raise Exhausted("POOL_EXHAUSTED", said, network=network.path, family=f"IPv{spaces[0].version}")

    def _asked(self, text: str) -> tuple[Space, int]:
        try:
            canonical = checked_wanted(text)
        except ValueError as error:
            raise Invalid("WISH_INVALID", f"{self._place}: address {error}", address=text) from None
        address, _, length = canonical.partition("/")
        at = self._entry.space_of(address)
        path = self._entry.network.path
        if at is None:
            cidrs = ", ".join(space.subnet.cidr for space in self._entry.spaces) or "none"
            said = f"{self._place}: {address} is in no subnet of network {path} (it has {cidrs})"
            raise Invalid("ADDRESS_UNUSABLE", said, address=address, network=path)
        space, _ = at
        if length and int(length) != space.prefix_length:
            said = f"{self._place}: {text} has another prefix length than its subnet {space.subnet.cidr}; write {address}"
            raise Invalid("ADDRESS_UNUSABLE", said, address=address, network=path)
        return at

    def _take_wanted(self, space: Space, number: int, kept: Iterable[str]) -> None:
        text = numbers.to_text(space.version, number)
        if text not in kept:
            taken = space.take_wanted(number)
            if taken is None:
                raise self._refusal(space, number, text)
            self._hold(space, taken)

    def _refusal(self, space: Space, number: int, address: str) -> HeldBy | Invalid:
        path, place = self._entry.network.path, self._place
        if space.is_held(number):

            def taken(holder: str) -> KnitterError:
                said = f"{place}: {address} of network {path} is held by {holder}"
                return Refused("ADDRESS_TAKEN", said, address=address, network=path, holder=holder)

            return HeldBy(keys.address(self._entry.network.id, address), taken)
        what = "is the gateway" if address == space.subnet.gateway else "is in none of its pools, or excluded"
        said = f"{self._place}: {address} of network {path} {what}"
        return Invalid("ADDRESS_UNUSABLE", said, address=address, network=path)

    def _hold(self, space: Space, taken: Taken) -> None:
        self._plan.taken.append((space, taken))
        text = numbers.to_text(space.version, taken.address)
        key = keys.address(self._entry.network.id, text)
        self._plan.conditions[key] = taken.mark
        self._plan.puts[key] = self._owner.encode()

    def identity(self, wish: Wish, interface: str, kept: str, attempt: int) -> tuple[str, str]:
        """(port id, MAC): the wanted MAC, the one the owner has, or a generated one."""
        name, generated = port_identity(self._owner, interface, attempt)
        network = self._entry.network
        try:
            text = checked_mac(wish.mac) if wish.mac else kept or generated
        except ValueError as error:
            raise Invalid("WISH_INVALID", f"{self._place}: MAC {error}", mac=wish.mac) from None
        if network.type in _OWN_MAC:
            return name, text if wish.mac else ""
        if text != kept:
            key = keys.mac(self._entry.segment, text)
            if key in self._plan.puts:
                said = f"{self._place}: MAC {text} is wanted for another interface of the same owner; choose another"
                raise Refused("MAC_TAKEN", said, mac=text, network=network.path)
            self._plan.conditions[key] = 0
            self._plan.puts[key] = self._owner.encode()
        return name, text

