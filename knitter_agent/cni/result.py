"""CNI results: made from ports, read from others, written in the version asked for.

Inside, a result is a dictionary in the shape of 1.1.0 without `cniVersion`. Differences of the versions:

    1.1.0         interfaces may have mtu, socketPath, pciID; routes may have mtu, advmss, priority, table, scope
    1.0.0         interfaces have name, mac, sandbox; routes have dst and gw
    0.3.1, 0.4.0  as 1.0.0, and each of `ips` has a `version`, "4" or "6"
"""

from collections.abc import Iterable, Mapping
from typing import Any

from knitter_agent.cni.value import shown
from knitter_agent.cni.versions import SUPPORTED
from knitter_agent.drivers import Changed, planned_routes
from knitter_common.errors import Invalid
from knitter_common.model import Dns, Port

Result = dict[str, Any]

_NEW_IN_1_1 = {"interfaces": ("mtu", "socketPath", "pciID"), "routes": ("mtu", "advmss", "priority", "table", "scope")}


def of_port(port: Port, host: Iterable[tuple[str, str]], netns: str, fallback_dns: Dns | None, mtu: int) -> Result:
    """The result of a primary interface. `host` are name and MAC of its interfaces outside the pod, `mtu` is 0 when not known."""
    interfaces: list[dict[str, Any]] = [{"name": name, "mac": mac} for name, mac in host]
    inside: dict[str, Any] = {"name": port.interface, "mac": port.mac, "sandbox": netns}
    if mtu:
        inside["mtu"] = mtu
    ips = []
    for address in port.addresses:
        entry: dict[str, Any] = {"address": address.cidr, "interface": len(interfaces)}
        if address.gateway:
            entry["gateway"] = address.gateway
        ips.append(entry)
    result: Result = {"interfaces": [*interfaces, inside], "ips": ips, "routes": _routes(port), "dns": {}}
    dns = port.dns or fallback_dns
    if dns is not None:
        parts = {"nameservers": list(dns.nameservers), "domain": dns.domain, "search": list(dns.search)}
        result["dns"] = {key: value for key, value in {**parts, "options": list(dns.options)}.items() if value}
    return result


def _routes(port: Port) -> list[dict[str, Any]]:
    routes = []
    for route in planned_routes(port):
        entry: dict[str, Any] = {"dst": route.destination}
        if route.gateway:
            entry["gw"] = route.gateway
        if route.metric:
            entry["priority"] = route.metric
        if route.mtu:
            entry["mtu"] = route.mtu
        routes.append(entry)
    return routes


def written(result: Mapping[str, Any], version: str) -> Result:
    """The result as `version` shapes it, with `cniVersion`."""
    if version == SUPPORTED[-1]:
        return {"cniVersion": version, **result}
    shaped = {"cniVersion": version, **result}
    for key, fields in _NEW_IN_1_1.items():
        if key in shaped:
            shaped[key] = [{name: value for name, value in entry.items() if name not in fields} for entry in shaped[key]]
    if version < "1" and "ips" in shaped:
        shaped["ips"] = [{"version": "6" if ":" in str(entry.get("address", "")) else "4", **entry} for entry in shaped["ips"]]
    return shaped


def read(raw: Mapping[str, Any], fallback_version: str, place: str = "prevResult") -> Result:
    """Someone else's result in our shape; keys we do not know stay. Raises Invalid(CNI_CONFIG_INVALID)."""
    version = raw.get("cniVersion", fallback_version)
    if version not in SUPPORTED:
        field = f"{place}.cniVersion"
        raise Invalid("CNI_CONFIG_INVALID", f"{field} {shown(version)} is none of {', '.join(SUPPORTED)}", field=field)
    result = {key: value for key, value in raw.items() if key != "cniVersion"}
    for key in ("interfaces", "ips", "routes"):
        entries = result.get(key)
        if entries is None:
            result.pop(key, None)
        elif not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise Invalid(
                "CNI_CONFIG_INVALID", f"{place}.{key} must be a list of objects, not {shown(entries)}", field=f"{place}.{key}"
            )
    if version < "1" and "ips" in result:
        result["ips"] = [{name: value for name, value in entry.items() if name != "version"} for entry in result["ips"]]
    return result


def differences(told: Mapping[str, Any], ours: Mapping[str, Any], interface: str) -> list[str]:
    """What a prevResult lacks of our primary interface: itself, its addresses. Other plugins may have added more."""
    if _inside(told, interface) is None:
        return [f"prevResult has no interface {interface}"]
    told_ips = {str(entry.get("address", "")).lower() for entry in told.get("ips", ())}
    lacking = [entry["address"] for entry in ours.get("ips", ()) if entry["address"] not in told_ips]
    return [f"{interface}: prevResult lacks the address {address}" for address in lacking]


def changed_since(told: Mapping[str, Any], ours: Mapping[str, Any], interface: str) -> Changed:
    """What a prevResult says that later plugins made of our primary interface."""
    theirs = _inside(told, interface) or {}
    mtu = theirs.get("mtu")
    told_routes = {str(entry.get("dst", "")).lower() for entry in told.get("routes", ())}
    return Changed(
        mac=str(theirs.get("mac", "")).lower(),
        mtu=mtu if isinstance(mtu, int) else 0,
        routes=frozenset(str(entry["dst"]) for entry in ours.get("routes", ())) - told_routes,
    )


def _inside(result: Mapping[str, Any], interface: str) -> Mapping[str, Any] | None:
    for entry in result.get("interfaces", ()):
        if entry.get("name") == interface and entry.get("sandbox"):
            return entry  # type: ignore[no-any-return]
    return None
