"""`--network NET[:INTERFACE][=WHAT[,WHAT]]`: one wish as a person types it; WHAT is an address, `group:NAME` or `claim:NAME`.
`--label KEY=VALUE`: a label of the pod."""

import ipaddress
from collections.abc import Iterable

from knitter_common.errors import Invalid
from knitter_common.model import Wish

_FORM = "NETWORK[:INTERFACE][=WHAT[,WHAT]], where WHAT is an address, group:NAME or claim:NAME"
_SOURCES = ("group", "claim")


def wish(text: str, position: int) -> Wish:
    """The wish that one `--network` tells; `position` (from 0) is for errors. Raises Invalid(WISH_INVALID)."""
    place = f"--network[{position}]"
    head, given, tail = text.partition("=")
    network, named, interface = head.partition(":")
    if not network or (named and not interface) or (given and not tail):
        raise Invalid("WISH_INVALID", f"{place}: {text!r}: write it as {_FORM}", place=place, value=text)
    sources: dict[str, str] = {}
    addresses = []
    for entry in tail.split(",") if tail else ():
        source, _, name = entry.strip().partition(":")
        if source not in _SOURCES:
            addresses.append(_address(entry, place))
        elif not name or source in sources:
            said = f"{place}: {text!r} names no {source}, or two; write {source}:NAME"
            raise Invalid("WISH_INVALID", said, place=place, value=text)
        else:
            sources[source] = name
    group, claim = sources.get("group", ""), sources.get("claim", "")
    return Wish(network=network, interface=interface, addresses=tuple(addresses), ip_group=group, ip_claim=claim, place=place)


def labels(texts: Iterable[str]) -> dict[str, str]:
    """What all `--label` tell together. Raises Invalid(FIELD_INVALID)."""
    found: dict[str, str] = {}
    for text in texts:
        key, given, value = text.partition("=")
        if not given or not key:
            raise Invalid("FIELD_INVALID", f"--label: {text!r}: write it as KEY=VALUE", field="--label", value=text)
        found[key] = value
    return found


def _address(text: str, place: str) -> str:
    try:
        return str(ipaddress.ip_interface(text.strip()) if "/" in text else ipaddress.ip_address(text.strip()))
    except ValueError as error:
        raise Invalid("WISH_INVALID", f"{place}: {text!r} is no IPv4 or IPv6 address", place=place, value=text) from error
