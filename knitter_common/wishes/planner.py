"""From annotations, or the CNI configuration, to wishes: one per interface, each with its name.

Pure: no I/O, no clock, no randomness. Which tenant a bare network name belongs to, and with Kubernetes what a
NetworkAttachmentDefinition says, is the caller's to resolve (`names_definition` tells which wishes name one).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from knitter_common import strict_json
from knitter_common.model import MAX_PORTS, Wish
from knitter_common.names import INTERFACE_LENGTH, network_reference
from knitter_common.place import Json, Place, kind
from knitter_common.wishes import npwg
from knitter_common.wishes.combine import combine
from knitter_common.wishes.knitter import KNITTER_KEY, NPWG_KEY, read_ports

PRIMARY = "eth0"  # the interface that runtimes ask for
CONFIG_KEY = "networks"
_ANNOTATION, _CONFIG = "ANNOTATION_INVALID", "CNI_CONFIG_INVALID"


def from_annotations(annotations: Mapping[str, str], primary: str = PRIMARY) -> tuple[Wish, ...]:
    """The wishes of both annotations, Knitter's first; none where both are absent or empty.

    `primary` is CNI_IFNAME: no interface gets that name unless it asks for it. Raises Invalid(ANNOTATION_INVALID |
    CNI_FIELD_UNSUPPORTED | LIMIT_EXCEEDED) whose message begins with the annotation's key and the place.
    """
    ours, theirs = Place(KNITTER_KEY, "", _ANNOTATION), Place(NPWG_KEY, "", _ANNOTATION)
    knitter = _knitter_text(ours.text(annotations.get(KNITTER_KEY, "")), ours)
    others = npwg.read_text(theirs.text(annotations.get(NPWG_KEY, "")), theirs)
    return _named(knitter, others, primary, _ANNOTATION)


def from_config(networks: Json, primary: str = PRIMARY) -> tuple[Wish, ...]:
    """The wishes of the CNI configuration's key `networks`: either grammar, as a JSON value or as a text.

    Raises Invalid(CNI_CONFIG_INVALID | CNI_FIELD_UNSUPPORTED | LIMIT_EXCEEDED).
    """
    place = Place(CONFIG_KEY, "", _CONFIG)
    if networks is None:
        return ()
    if isinstance(networks, str):
        if networks.lstrip().startswith("{"):
            return _named(_knitter_text(networks, place), (), primary, _CONFIG)
        return _named((), npwg.read_text(networks, place), primary, _CONFIG)
    value = strict_json.plain(networks, place)
    if isinstance(value, dict):
        return _named(combine(read_ports(value, place)), (), primary, _CONFIG)
    if isinstance(value, list):
        return _named((), npwg.read_list(value, place), primary, _CONFIG)
    raise place.error(f'must be {{"ports": [...]}}, a list, or a text such as "net-a, tenant/net-b@eth1", not {kind(value)}', value)


def with_primary(
    wishes: Sequence[Wish], ifname: str, default_network: str | None = None, delegated: bool = False
) -> tuple[Wish, ...]:
    """The wishes with the one for the primary interface first.

    In order: `delegated` (a delegate or an earlier plugin makes `ifname`): none is added, and none may claim the name; a port of
    Knitter's annotation that claims `ifname`; else `default_network`, where None or "" means the manager's. Raises Invalid where
    another grammar's wish claims `ifname`: the specification of that grammar adds to the primary interface, never replaces it.
    """
    claiming = next((wish for wish in wishes if wish.interface == ifname), None)
    if claiming is not None and (delegated or not _is_knitters(claiming)):
        place = Place.of(claiming.place, _CONFIG if claiming.place.startswith(f"{CONFIG_KEY}: [") else _ANNOTATION)
        maker = "is made by another plugin" if delegated else "is the primary interface, on the default network"
        raise place.error(f"the interface {ifname!r} {maker}; choose another name", ifname)
    if delegated:
        return tuple(wishes)
    rest = tuple(wish for wish in wishes if wish is not claiming)
    if claiming is not None:
        return (replace(claiming, primary=True), *rest)
    network = Place("defaultNetwork", "", _CONFIG).checked(network_reference, default_network) if default_network else ""
    primary = Wish(network=network, interface=ifname, roles=("std",), primary=True, place="defaultNetwork")
    _count((primary, *rest), _ANNOTATION)
    return (primary, *rest)


def plan(
    annotations: Mapping[str, str] | None,
    networks: Json,
    ifname: str,
    default_network: str | None = None,
    delegated: bool = False,
) -> tuple[Wish, ...]:
    """All wishes of one sandbox without Kubernetes: those of the annotations if they have any, else those of the configuration's
    `networks`, and the primary one first."""
    wishes = from_annotations(annotations, ifname) if annotations else ()
    return with_primary(wishes or from_config(networks, ifname), ifname, default_network, delegated)


def names_definition(wish: Wish) -> bool:
    """With Kubernetes: its network names a NetworkAttachmentDefinition, "namespace/name" or a name in the pod's namespace."""
    return wish.place.startswith(NPWG_KEY)


def _knitter_text(text: str, place: Place) -> tuple[Wish, ...]:
    if text.strip() in ("", '""'):
        return ()
    return combine(read_ports(strict_json.read(text, place), place))


def _is_knitters(wish: Wish) -> bool:
    return wish.place.startswith(f"{KNITTER_KEY}: ports[")


def _named(knitter: Sequence[Wish], others: Sequence[Wish], primary: str, reason: str) -> tuple[Wish, ...]:
    """Every wish with an interface name: the one it asks for, else `eth_<network>` (Knitter's) or `net<n>` (NPWG), made unique."""
    wishes = (*knitter, *others)
    _count(wishes, reason)
    taken: dict[str, Wish] = {}
    for wish in wishes:
        if wish.interface and taken.setdefault(wish.interface, wish) is not wish:
            said = f"the interface {wish.interface!r} is that of {taken[wish.interface].place!r} too; rename one"
            raise Place.of(wish.place, reason).error(said, wish.interface)
    names = {primary, *taken}
    ours = tuple(wish if wish.interface else _with(wish, _free(_from_network(wish.network), names), names) for wish in knitter)
    theirs = tuple(
        wish if wish.interface else _with(wish, _free(_from_position(index), names), names) for index, wish in enumerate(others, 1)
    )
    return (*ours, *theirs)


def _with(wish: Wish, name: str, names: set[str]) -> Wish:
    names.add(name)
    return replace(wish, interface=name)


def _free(candidates: Iterable[str], names: set[str]) -> str:
    return next(name for name in candidates if name not in names)


def _from_network(network: str) -> Iterator[str]:
    base = f"eth_{network.rpartition('/')[2]}"
    yield base[:INTERFACE_LENGTH]
    for number in range(2, MAX_PORTS + 3):
        tail = f"_{number}"
        yield base[: INTERFACE_LENGTH - len(tail)] + tail


def _from_position(index: int) -> Iterator[str]:
    for number in range(index, index + 2 * MAX_PORTS + 2):
        yield f"net{number}"


def _count(wishes: Sequence[Wish], reason: str) -> None:
    if len(wishes) > MAX_PORTS:
        said = f"{len(wishes)} interfaces are too many; a pod has at most {MAX_PORTS}"
        raise Place.of(wishes[MAX_PORTS].place, reason).error(said, len(wishes), "LIMIT_EXCEEDED")
