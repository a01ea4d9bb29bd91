"""Names and MACs that follow from an owner and an interface alone."""

from hashlib import sha256


def port_identity(owner_key: str, interface: str, attempt: int = 0) -> tuple[str, str]:
    """(port id, MAC). The id is 12 hexadecimal digits and does not depend on `attempt`; the MAC is locally administered and unicast
    (IEEE 802, 46 bits of the hash). Another attempt gives another MAC, for the rare case that a segment has the first one already.
    """
    digest = sha256(f"{owner_key}/{interface}".encode()).digest()
    name = digest[:6].hex()
    if attempt:
        digest = sha256(f"{attempt}/{owner_key}/{interface}".encode()).digest()
    octets = bytes(((digest[6] & 0xFC) | 0x02,)) + digest[7:12]
    return name, octets.hex(":")
