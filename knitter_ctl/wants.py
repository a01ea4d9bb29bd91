"""`--network NET[:INTERFACE][=ADDRESS[,ADDRESS]]`: one wish as a person types it."""

import ipaddress

from knitter_common.errors import Invalid
from knitter_common.model import Wish

_FORM = "NETWORK[:INTERFACE][=ADDRESS[,ADDRESS]]"


def wish(text: str, position: int) -> Wish:
    """The wish that one `--network` tells; `position` (from 0) is for errors. Raises Invalid(WISH_INVALID)."""
    place = f"--network[{position}]"
    head, given, tail = text.partition("=")
    network, named, interface = head.partition(":")
    if not network or (named and not interface) or (given and not tail):
        raise Invalid("WISH_INVALID", f"{place}: {text!r}: write it as {_FORM}", place=place, value=text)
    addresses = tuple(_address(entry, place) for entry in tail.split(",")) if tail else ()
    return Wish(network=network, interface=interface, addresses=addresses, place=place)


def _address(text: str, place: str) -> str:
    try:
        return str(ipaddress.ip_interface(text.strip()) if "/" in text else ipaddress.ip_address(text.strip()))
    except ValueError as error:
        raise Invalid("WISH_INVALID", f"{place}: {text!r} is no IPv4 or IPv6 address", place=place, value=text) from error
