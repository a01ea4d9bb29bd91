"""Addresses as text ↔ whole numbers, the quick way, in the canonical form of `ipaddress`."""

from ipaddress import IPv6Address
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton


def to_number(text: str) -> int:
    """A canonical address without prefix length."""
    return int.from_bytes(inet_pton(AF_INET6 if ":" in text else AF_INET, text), "big")


def to_text(version: int, number: int) -> str:
    """The canonical text."""
    if version == 4:
        return inet_ntop(AF_INET, number.to_bytes(4, "big"))
    if number >> 48:
        return inet_ntop(AF_INET6, number.to_bytes(16, "big"))
    return str(IPv6Address(number))  # inet_ntop writes those with dots
