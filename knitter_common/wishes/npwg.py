"""The grammar of the Network Plumbing Working Group's annotation `k8s.v1.cni.cncf.io/networks`, version 1.3 of its specification.

    ns/name@interface, name2                                  the short form (section 4.1.1)
    [{"name":"net-b","ips":["10.2.2.42"],"mac":"02:…"}]       the JSON list form (section 4.1.2)

"All key names that do not include a period character are reserved": unknown ones are refused, those with a period are other
people's and ignored. What is asked for and cannot be done fails, rather than being dropped.
"""

import re

from knitter_common import strict_json
from knitter_common.addresses import address, mac, wanted
from knitter_common.model import MAX_ADDRESSES, Bandwidth, Wish
from knitter_common.names import dns_label, dns_subdomain, interface, shown
from knitter_common.place import Json, Place

_KEYS = (
    "name",
    "namespace",
    "interface",
    "ips",
    "mac",
    "default-route",
    "bandwidth",
    "cni-args",
    "infiniband-guid",
    "ipam-claim-reference",
    "portMappings",
)
_OLD_INTERFACE = ("interface-request", "interfaceRequest")
_UNSUPPORTED = {"infiniband-guid": "no network type here carries InfiniBand", "portMappings": "no network type here maps ports"}
_RATES = {
    "ingressRate": "ingress_rate",
    "ingressBurst": "ingress_burst",
    "egressRate": "egress_rate",
    "egressBurst": "egress_burst",
}
_INFINIBAND_MAC = re.compile(r"[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){19}\Z")


def read_text(text: str, place: Place) -> tuple[Wish, ...]:
    """The wishes of either form; without a name a wish has interface "". Raises Invalid with the place."""
    stripped = text.strip()
    if not stripped:
        return ()
    if stripped[0] in '[{"':
        return read_list(strict_json.read(text, place), place)
    strict_json.bounded(text, place)
    return tuple(_short(part.strip(), place.item(index)) for index, part in enumerate(stripped.split(",")))


def read_list(value: Json, place: Place) -> tuple[Wish, ...]:
    """The wishes of the JSON list form."""
    if isinstance(value, str) and not value.strip():
        return ()
    if isinstance(value, dict):
        raise place.error("must be a list, not an object; write it in square brackets", value)
    return tuple(_entry(entry, place.item(index)) for index, entry in enumerate(place.list(value)))


def _short(text: str, place: Place) -> Wish:
    if not text:
        raise place.error("is empty; remove a comma, or name a network", text)
    reference, at, name = text.partition("@")
    namespace, slash, network = reference.rpartition("/")
    if slash:
        place.checked(dns_label, namespace)
    place.checked(dns_label, network)
    return Wish(
        network=reference,
        interface=place.checked(interface, name) if at else "",
        place=str(place),
    )


def _entry(value: Json, place: Place) -> Wish:
    entry = place.object(value)
    place.known([name for name in entry if "." not in name], (*_KEYS, *_OLD_INTERFACE))
    for name, why in _UNSUPPORTED.items():
        if entry.get(name):
            raise place.at(name).error(f"is not supported: {why}; remove it", entry[name], reason="CNI_FIELD_UNSUPPORTED")
    args = place.at("cni-args")
    claim = _optional(entry, "ipam-claim-reference", place)
    return Wish(
        network=_network(entry, place),
        interface=_interface(entry, place),
        addresses=_ips(entry["ips"], place.at("ips")) if "ips" in entry else (),
        mac=_mac(_optional(entry, "mac", place), place.at("mac")),
        ip_claim=place.at("ipam-claim-reference").checked(dns_subdomain, claim) if claim else "",
        default_routes=_routes(entry.get("default-route", []), place.at("default-route")),
        cni_args=args.object(entry["cni-args"]) if entry.get("cni-args") is not None else None,
        bandwidth=read_bandwidth(entry["bandwidth"], place.at("bandwidth")) if entry.get("bandwidth") is not None else None,
        place=str(place),
    )


def _network(entry: dict[str, Json], place: Place) -> str:
    if "name" not in entry:
        raise place.at("name").error("is missing; name the network")
    name = place.at("name").text(entry["name"])
    place.at("name").checked(dns_label, name)
    namespace = _optional(entry, "namespace", place)
    return f"{place.at('namespace').checked(dns_label, namespace)}/{name}" if namespace else name


def _interface(entry: dict[str, Json], place: Place) -> str:
    """`interface`, or its older names."""
    given = {name: _optional(entry, name, place) for name in ("interface", *_OLD_INTERFACE)}
    told = {name: text for name, text in given.items() if text}
    if len(set(told.values())) > 1:
        raise place.error(f"{' and '.join(told)} differ; write interface alone", list(told.values()))
    return next((place.at(name).checked(interface, text) for name, text in told.items()), "")


def _optional(entry: dict[str, Json], name: str, place: Place) -> str:
    return place.at(name).text(entry[name]) if entry.get(name) is not None else ""


def _ips(value: Json, place: Place) -> tuple[str, ...]:
    texts = place.list(value)
    if not texts:
        raise place.error("is empty; write at least one address, or leave it out", value)
    if len(texts) > MAX_ADDRESSES:
        raise place.error(f"{len(texts)} addresses are too many; a pod has at most {MAX_ADDRESSES}", len(texts), "LIMIT_EXCEEDED")
    found: dict[str, int] = {}
    canonical: list[str] = []
    for index, entry in enumerate(texts):
        at = place.item(index)
        text = at.checked(wanted, at.text(entry))
        other = found.setdefault(text.partition("/")[0], index)
        if other != index:
            raise at.error(f"{text} is {place.item(other).path} again; write each address once", text)
        canonical.append(text)
    return tuple(canonical)


def _mac(text: str, place: Place) -> str:
    if _INFINIBAND_MAC.match(text):
        raise place.error("is an InfiniBand address: not supported; remove it", text, reason="CNI_FIELD_UNSUPPORTED")
    return place.checked(mac, text) if text else ""


def _routes(value: Json, place: Place) -> tuple[str, ...]:
    if value is None:
        return ()
    hops: dict[int, str] = {}
    for index, entry in enumerate(place.list(value)):
        at = place.item(index)
        hop = at.checked(address, at.text(entry))
        if hops.setdefault(hop.version, str(hop)) != str(hop):
            raise at.error(f"{hop} is a second next hop of IPv{hop.version}; write one of each family", str(hop))
    return tuple(hops.values())


def read_bandwidth(value: Json, place: Place) -> Bandwidth:
    """Rates and bursts; CNI's capability `bandwidth` is written in the same way. Raises Invalid with the place."""
    entry = place.object(value)
    place.known(entry, _RATES)
    rates: dict[str, int] = {}
    for name, number in entry.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise place.at(name).error(f"{shown(number)} is no rate; write a whole number of bits, 0 for none", number)
        rates[_RATES[name]] = number
    for side in ("ingress", "egress"):
        if rates.get(f"{side}_burst") and not rates.get(f"{side}_rate"):
            raise place.at(f"{side}Burst").error(f"needs {side}Rate beside it", rates[f"{side}_burst"])
    return Bandwidth(**rates)
