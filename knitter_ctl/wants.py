"""`--network NET[:INTERFACE][=WHAT[,WHAT]]`: one wish as a person types it; WHAT is an address, `group:NAME`, `claim:NAME`,
`mac:MAC` or `plane:PLANE`.
`--label KEY=VALUE`: a label of the pod."""

import ipaddress
from collections.abc import Callable, Iterable

from knitter_common.addresses import mac
from knitter_common.errors import Invalid
from knitter_common.model import ROLES, Wish

_FORM = "NETWORK[:INTERFACE][=WHAT[,WHAT]], where WHAT is an address, group:NAME, claim:NAME, mac:MAC or plane:PLANE"
_KEYS = ("group", "claim", "mac", "plane")


def wish(text: str, position: int) -> Wish:
    """The wish that one `--network` tells; `position` (from 0) is for errors. Raises Invalid(WISH_INVALID)."""
    place = f"--network[{position}]"
    head, given, tail = text.partition("=")
    network, named, interface = head.partition(":")
    if not network or (named and not interface) or (given and not tail):
        raise Invalid("WISH_INVALID", f"{place}: {text!r}: write it as {_FORM}", place=place, value=text)
    told: dict[str, str] = {}
    addresses, planes = [], []
    for entry in tail.split(",") if tail else ():
        key, _, value = entry.strip().partition(":")
        if key not in _KEYS:
            addresses.append(_address(entry, place))
        elif key == "plane" and value:
            planes.append(_checked(_plane, value, place))
        elif not value or key in told:
            said = f"{place}: {text!r} names no {key}, or two; write {key}:{'MAC' if key == 'mac' else 'NAME'}"
            raise Invalid("WISH_INVALID", said, place=place, value=text)
        else:
            told[key] = _checked(mac, value, place) if key == "mac" else value
    return Wish(
        network=network,
        interface=interface,
        roles=tuple(planes),
        addresses=tuple(addresses),
        mac=told.get("mac", ""),
        ip_group=told.get("group", ""),
        ip_claim=told.get("claim", ""),
        place=place,
    )


def labels(texts: Iterable[str]) -> dict[str, str]:
    """What all `--label` tell together. Raises Invalid(FIELD_INVALID)."""
    found: dict[str, str] = {}
    for text in texts:
        key, given, value = text.partition("=")
        if not given or not key:
            raise Invalid("FIELD_INVALID", f"--label: {text!r}: write it as KEY=VALUE", field="--label", value=text)
        found[key] = value
    return found


def _plane(text: str) -> str:
    if text not in ROLES:
        raise ValueError(f"plane {text!r} is none of {', '.join(ROLES)}")
    return text


def _checked(check: Callable[[str], str], text: str, place: str) -> str:
    try:
        return check(text)
    except ValueError as error:
        raise Invalid("WISH_INVALID", f"{place}: {error}", place=place, value=text) from error


def _address(text: str, place: str) -> str:
    try:
        return str(ipaddress.ip_interface(text.strip()) if "/" in text else ipaddress.ip_address(text.strip()))
    except ValueError as error:
        raise Invalid("WISH_INVALID", f"{place}: {text!r} is no IPv4 or IPv6 address", place=place, value=text) from error
