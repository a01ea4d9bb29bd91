"""The grammar of Knitter's own annotation `networks`: one port each, before any is combined.

    {"ports":[{"attach_to_network":"control",
               "attributes":{"nic_name":"eth1","function":"control","nic_type":"normal","accelerate":"false",
                             "combinable":"true","ip_addr":"10.1.1.9","ip_group_name":"ig0","metadata":{"k":"v"}}}]}

Every attribute's value is a text, `metadata` an object. "" is as good as left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knitter_common.addresses import address, host_address
from knitter_common.model import ROLES, NicType
from knitter_common.names import dns_label, interface, network_reference
from knitter_common.place import Json, Place

KNITTER_KEY = "networks"
NPWG_KEY = "k8s.v1.cni.cncf.io/networks"
ATTRIBUTES = ("nic_name", "function", "nic_type", "accelerate", "combinable", "ip_addr", "ip_group_name", "metadata")
_NIC_TYPES = {entry.name.lower(): entry for entry in NicType}
_SWITCH = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class KnitterPort:
    """One entry of `ports`. `interface` "" means that it names none."""

    place: Place
    network: str
    interface: str
    role: str
    nic_type: NicType
    accelerate: bool
    combinable: bool
    addresses: tuple[str, ...]
    ip_group: str
    metadata: Mapping[str, Any] | None


def read_ports(value: Json, place: Place) -> tuple[KnitterPort, ...]:
    """The ports of the annotation's JSON value. Raises Invalid with the place."""
    if isinstance(value, list):
        raise place.error(f'must be an object, {{"ports": [...]}}, not a list; a list belongs in the annotation {NPWG_KEY}', value)
    top = place.object(value)
    place.known(top, ("ports",))
    if "ports" not in top:
        raise place.error('"ports" is missing; write {"ports": [{"attach_to_network": "<network>"}]}', "")
    below = place.at("ports")
    return tuple(_port(entry, below.item(index)) for index, entry in enumerate(below.list(top["ports"])))


def _port(value: Json, place: Place) -> KnitterPort:
    entry = place.object(value)
    unknown = next((name for name in entry if name in ATTRIBUTES), None)
    if unknown is not None:
        raise place.error(f"{unknown!r} is an attribute; write it below 'attributes'", unknown)
    place.known(entry, ("attach_to_network", "attributes"))
    at = place.at("attach_to_network")
    if "attach_to_network" not in entry:
        raise at.error("is missing; name the network")
    network = at.checked(network_reference, at.text(entry["attach_to_network"]))
    below = place.at("attributes")
    attributes = below.object(entry.get("attributes", {}))
    below.known(attributes, ATTRIBUTES)
    texts = {name: below.at(name).text(text) for name, text in attributes.items() if name != "metadata"}
    metadata = below.at("metadata").object(attributes["metadata"]) if "metadata" in attributes else None
    return _from_texts(place, network, {name: text for name, text in texts.items() if text}, metadata)


def _from_texts(place: Place, network: str, texts: Mapping[str, str], metadata: Mapping[str, Any] | None) -> KnitterPort:
    below = place.at("attributes")
    role = below.at("function").choice(texts.get("function", "std"), ROLES)
    accelerate = _SWITCH[below.at("accelerate").choice(texts.get("accelerate", "false"), _SWITCH)]
    name, group = texts.get("nic_name", ""), texts.get("ip_group_name", "")
    return KnitterPort(
        place=place,
        network=network,
        interface=below.at("nic_name").checked(interface, name) if name else "",
        role=role,
        nic_type=_NIC_TYPES[below.at("nic_type").choice(texts.get("nic_type", "normal"), _NIC_TYPES)],
        accelerate=accelerate and role != "std",
        combinable=_SWITCH[below.at("combinable").choice(texts.get("combinable", "false"), _SWITCH)],
        addresses=_addresses(texts.get("ip_addr", ""), below.at("ip_addr")),
        ip_group=below.at("ip_group_name").checked(dns_label, group) if group else "",
        metadata=metadata,
    )


def _addresses(text: str, place: Place) -> tuple[str, ...]:
    """One address, or one of each family with a comma between."""
    if not text:
        return ()
    found = [place.checked(host_address, part.strip()) for part in text.split(",", 2)]
    families = [entry.version for entry in found]
    if len(set(families)) != len(families):
        raise place.error(f"{text!r} holds two IPv{families[-1]} addresses; write one, or one of each family", text)
    return tuple(str(entry) for entry in found)


def family(text: str) -> int:
    """4 or 6."""
    return address(text.partition("/")[0]).version
