"""Knitter's combine rules: combinable ports that agree in network, nic_type, accelerate and IP group become one interface."""

from collections.abc import Mapping, Sequence
from typing import Any

from knitter_common.model import Wish
from knitter_common.place import Place
from knitter_common.wishes.knitter import KnitterPort, family

_FAST = frozenset({"control", "media", "oam"})
_FIRST_CHOICE = "eth0"


def combine(ports: Sequence[KnitterPort]) -> tuple[Wish, ...]:
    """The interfaces, each where the first of its ports stands; a wish without a name has interface "".

    Raises Invalid with the place: the same plane twice in one combination; `eio` with control, media or oam when accelerated;
    accelerated control, media or oam ports of one network that disagree on `combinable`; two addresses of one family or two values
    for one key of metadata in one combination.
    """
    _agree(ports)
    groups: dict[object, list[KnitterPort]] = {}
    for index, port in enumerate(ports):
        key: object = (port.network, port.nic_type, port.accelerate, port.ip_group) if port.combinable else index
        groups.setdefault(key, []).append(port)
    return tuple(_one(group) for group in groups.values())


def _agree(ports: Sequence[KnitterPort]) -> None:
    first: dict[str, KnitterPort] = {}
    for port in ports:
        if port.accelerate and port.role in _FAST:
            other = first.setdefault(port.network, port)
            if other.combinable != port.combinable:
                mine, others = str(port.combinable).lower(), str(other.combinable).lower()
                raise port.place.at("attributes.combinable").error(
                    f"{mine!r} differs from {others!r} of {other.place.path}; accelerated control, media and oam ports on network "
                    f"{port.network!r} must agree",
                    mine,
                )


def _one(group: Sequence[KnitterPort]) -> Wish:
    first = group[0]
    if len(group) > 1:
        _planes(group)
    names = [port.interface for port in group if port.interface]
    where = ", ".join(port.place.path for port in group)
    return Wish(
        network=first.network,
        interface=_FIRST_CHOICE if _FIRST_CHOICE in names else names[0] if names else "",
        roles=tuple(port.role for port in group),
        nic_type=first.nic_type,
        accelerate=first.accelerate,
        addresses=_addresses(group),
        ip_group=first.ip_group,
        metadata=_metadata(group),
        place=f"{first.place.key}: {where}",
    )


def _planes(group: Sequence[KnitterPort]) -> None:
    seen: dict[str, Place] = {}
    for port in group:
        at = port.place.at("attributes.function")
        other = seen.setdefault(port.role, port.place)
        if other is not port.place:
            raise at.error(f"{port.role!r} is that of {other.path} too, which is combined with it; a plane comes once", port.role)
        if port.accelerate and "eio" in seen and not _FAST.isdisjoint(seen):
            others = ", ".join(sorted(_FAST & set(seen)))
            raise at.error(f"'eio' cannot be combined with {others} when accelerated; set combinable to \"false\"", port.role)


def _addresses(group: Sequence[KnitterPort]) -> tuple[str, ...]:
    found: dict[int, tuple[str, KnitterPort]] = {}
    for port in group:
        for text in port.addresses:
            other, owner = found.setdefault(family(text), (text, port))
            if other != text:
                said = f"{text} and {other} of {owner.place.path} are wanted for one combined interface; write one of them"
                raise port.place.at("attributes.ip_addr").error(said, text)
    return tuple(text for text, _ in found.values())


def _metadata(group: Sequence[KnitterPort]) -> Mapping[str, Any] | None:
    """One port's as it is; those of several are joined."""
    given = [port for port in group if port.metadata is not None]
    if len(given) < 2:
        return given[0].metadata if given else None
    joined: dict[str, Any] = {}
    for port in given:
        assert port.metadata is not None
        for key, value in port.metadata.items():
            if key in joined and joined[key] != value:
                said = "has another value in a port that is combined with this one; write it once"
                raise port.place.at("attributes.metadata").at(key).error(said, value)
            joined[key] = value
    return joined
