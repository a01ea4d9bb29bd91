"""Addresses, CIDRs and MACs as people write them → the canonical form of `ipaddress`.

Every function raises ValueError with a sentence that holds the value and the way out; the caller puts the place in front.
"""

import ipaddress
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from knitter_common.names import shown

Address = IPv4Address | IPv6Address
Cidr = IPv4Network | IPv6Network

_V4_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")
_MAC = re.compile(r"[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}\Z")

# What no network can have: RFC 1122 3.2.1.3, RFC 5771; RFC 4291 2.4.
_UNUSABLE: tuple[tuple[Cidr, str], ...] = (
    (ipaddress.ip_network("0.0.0.0/8"), "means this host"),
    (ipaddress.ip_network("127.0.0.0/8"), "is loopback"),
    (ipaddress.ip_network("224.0.0.0/4"), "is multicast"),
    (ipaddress.ip_network("::/127"), "is loopback"),
    (_V4_MAPPED, "is IPv4 in the clothes of IPv6"),
    (ipaddress.ip_network("fe80::/10"), "is link-local, made by the kernel"),
    (ipaddress.ip_network("ff00::/8"), "is multicast"),
)


def address(text: str) -> Address:
    """An address without a prefix length."""
    if "/" in text:
        raise ValueError(f"{shown(text)} has a prefix length; write the address alone: {text.partition('/')[0]}")
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is no IPv4 or IPv6 address{_suggested(text, ipaddress.ip_address)}") from None
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            raise ValueError(f"{shown(text)} has a zone; write it without: {text.partition('%')[0]}")
        if found.ipv4_mapped is not None:
            raise ValueError(f"{shown(text)} is an IPv4 address; write {found.ipv4_mapped}")
    return found


def host_address(text: str) -> Address:
    """An address that an interface can have: not loopback, multicast, unspecified or link-local."""
    found = address(text)
    for network, what in _UNUSABLE:
        if found in network:
            raise ValueError(f"{shown(text)} {what}; no interface of a pod can have it")
    if found == _BROADCAST:
        raise ValueError(f"{shown(text)} is the broadcast address; no interface can have it")
    return found


_BROADCAST = IPv4Address("255.255.255.255")


def cidr(text: str) -> Cidr:
    """An address with a prefix length and no host bits."""
    base, slash, length = text.partition("/")
    if not slash:
        found = address(text)
        raise ValueError(f"{shown(text)} has no prefix length; write for example {_example(found)}")
    if not (length.isascii() and length.isdigit()):
        raise ValueError(f"{shown(text)} is no CIDR; the prefix length is a number: 10.1.0.0/24, 2001:db8::/64")
    if _is_mapped(base):
        raise ValueError(f"{shown(text)} is IPv4 in the clothes of IPv6; choose an IPv4 CIDR, for example 10.1.0.0/24")
    found = address(base)
    if int(length) > found.max_prefixlen:
        raise ValueError(f"{shown(text)} is no CIDR; the prefix length of IPv{found.version} is at most {found.max_prefixlen}")
    network = ipaddress.ip_network((found, int(length)), strict=False)
    if network.network_address != found:
        raise ValueError(f"{shown(text)} has host bits set; write {network}")
    return network


def subnet_cidr(text: str) -> Cidr:
    """A CIDR that a network's subnet can have."""
    network = cidr(text)
    for unusable, what in _UNUSABLE:
        if network.version == unusable.version and network.overlaps(unusable):
            raise ValueError(f"{shown(text)} holds {unusable}, which {what}; choose another CIDR")
    return network


def wanted(text: str) -> str:
    """An address that an interface shall have, with or without a prefix length, in canonical form."""
    base, slash, length = text.partition("/")
    found = host_address(base)
    if not slash:
        return str(found)
    if not (length.isascii() and length.isdigit()) or not 0 < int(length) <= found.max_prefixlen:
        raise ValueError(f"{shown(text)}: the prefix length of IPv{found.version} is a number from 1 to {found.max_prefixlen}")
    return f"{found}/{int(length)}"


def mac(text: str) -> str:
    """A MAC that an interface can have, lower case with colons."""
    lower = text.lower()
    if not _MAC.match(lower):
        raise ValueError(f"{shown(text)} is no MAC; write six octets: 02:00:00:00:00:01")
    canonical = lower.replace("-", ":")
    if int(canonical[:2], 16) & 1:
        raise ValueError(f"{shown(text)} is a multicast MAC; the first octet must be even")
    if canonical == "00:00:00:00:00:00":
        raise ValueError(f"{shown(text)} is no interface's MAC; write for example 02:00:00:00:00:01")
    return canonical


def _is_mapped(text: str) -> bool:
    try:
        return IPv6Address(text).ipv4_mapped is not None
    except ValueError:
        return False


def _suggested(text: str, parser: object) -> str:
    assert callable(parser)
    for attempt in (text.strip(), _LEADING_ZEROS.sub("", text.strip())):
        try:
            return f"; write {parser(attempt)}"
        except ValueError:
            continue
    return ""


def _example(found: Address) -> str:
    length = 24 if found.version == 4 else 64
    return str(ipaddress.ip_network((found, length), strict=False))
