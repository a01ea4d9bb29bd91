"""A network configuration as the runtime hands it to the plugin on standard input.

`name`, `type` and `cniVersion` are judged for every verb; our own keys only where they matter (ADD), so that a DEL never fails over
them. Unknown keys are ignored: other tools add theirs.

| key | meaning |
|---|---|
| `tenant` | whose networks bare names mean, without Kubernetes; default admin |
| `defaultNetwork` | the network of the primary interface; default: the manager's |
| `delegate` | another plugin's configuration (or a list `{"plugins": […]}`) that makes the primary interface |
| `networks` | the further interfaces, where no annotation tells them |
| `dns` | told in the result unless the network has its own |
| `runtimeConfig` | `io.kubernetes.cri.pod-annotations`; `ips`, `mac`, `bandwidth` of the primary interface; delegates' |
| `prevResult` | on ADD: the primary interface exists already |
| `cni.dev/valid-attachments` | on GC: what is valid |
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from knitter_agent.cni.capabilities import ANNOTATIONS, handed_on, require_taken
from knitter_agent.cni.result import read
from knitter_agent.cni.value import shown
from knitter_agent.cni.versions import SUPPORTED, require_version
from knitter_common.addresses import mac as parse_mac
from knitter_common.addresses import wanted
from knitter_common.errors import Invalid
from knitter_common.model import Bandwidth, Dns
from knitter_common.names import dns_label
from knitter_common.place import Place
from knitter_common.wishes import read_bandwidth

VALID_ATTACHMENTS = "cni.dev/valid-attachments"

# "Must start with an alphanumeric character, optionally followed by any combination of one or more alphanumeric characters,
# underscore, dot (.) or hyphen (-). Must not contain characters disallowed in file paths."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")
_MAX_NAME = 253


@dataclass(frozen=True, slots=True)
class Primary:
    """What the runtime's capabilities ask for the primary interface."""

    addresses: tuple[str, ...] = ()
    mac: str = ""
    bandwidth: Bandwidth | None = None


@dataclass(frozen=True, slots=True)
class NetConf:
    """A judged configuration. `networks` is the raw value of its key (the wishes' grammar is knitter_common.wishes')."""

    name: str
    type: str
    version: str
    tenant: str = ""
    default_network: str = ""
    delegates: tuple[Mapping[str, Any], ...] = ()
    networks: Any = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    primary: Primary = Primary()
    prev_result: Mapping[str, Any] | None = None
    dns: Dns | None = None
    valid: tuple[tuple[str, str], ...] | None = None  # (container id, interface name)


def parse_conf(stdin: bytes, verb: str) -> NetConf:
    """Raises Invalid: CNI_DECODE_FAILURE with line and column, CNI_CONFIG_INVALID with the key, CNI_VERSION_UNSUPPORTED."""
    raw = _decode(stdin)
    name = _string(raw, "name", required=True)
    if not _NAME.match(name) or len(name) > _MAX_NAME:
        raise _bad("name", f"{name[:80]!r} must be letters, digits, '_', '.', '-', and begin with a letter or digit")
    kind = _string(raw, "type", required=True)
    version = require_version(raw.get("cniVersion"), verb)
    if verb == "DEL":
        return NetConf(name, kind, version, delegates=_delegates_leniently(raw), prev_result=_object_leniently(raw, "prevResult"))
    runtime = _object(raw, "runtimeConfig") or {}
    conf = NetConf(
        name,
        kind,
        version,
        tenant=_checked(dns_label, "tenant", _string(raw, "tenant")),
        default_network=_string(raw, "defaultNetwork"),
        delegates=_delegates(raw),
        networks=raw.get("networks"),
        annotations=_annotations(runtime),
        primary=_primary(runtime),
        prev_result=_prev_result(raw, version),
        dns=_dns(raw),
        valid=_valid(raw) if verb == "GC" else None,
    )
    if verb == "ADD":
        chained = conf.prev_result is not None
        require_taken(runtime, () if chained else conf.delegates, not (chained or conf.delegates))
    return conf


def version_of(stdin: bytes) -> str:
    """The version that an error must be told in, as far as a configuration that was refused says one; else ""."""
    try:
        raw = json.loads(stdin)
    except (ValueError, RecursionError):
        return ""
    version = raw.get("cniVersion") if isinstance(raw, dict) else None
    return version if isinstance(version, str) and version in SUPPORTED else ""


def _decode(stdin: bytes) -> Mapping[str, Any]:
    try:
        raw = json.loads(stdin.decode())
    except json.JSONDecodeError as error:
        text = f"the configuration on standard input is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        raise Invalid("CNI_DECODE_FAILURE", text, line=error.lineno, column=error.colno) from error
    except UnicodeDecodeError as error:
        text = f"the configuration on standard input is not UTF-8: {error.reason} at byte {error.start}"
        raise Invalid("CNI_DECODE_FAILURE", text) from error
    except RecursionError as error:
        raise Invalid("CNI_DECODE_FAILURE", "the configuration on standard input is nested too deeply") from error
    if not isinstance(raw, dict):
        raise Invalid("CNI_DECODE_FAILURE", f"the configuration on standard input must be an object, not {shown(raw)}")
    return raw


def _string(raw: Mapping[str, Any], key: str, required: bool = False) -> str:
    value = raw.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        raise _bad(key, "is missing" if value in (None, "") else f"must be a text, not {shown(value)}")
    return value


def _object(raw: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, dict):
        raise _bad(key, f"must be an object, not {shown(value)}")
    return value


def _object_leniently(raw: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    value = raw.get(key)
    return value if isinstance(value, dict) else None


def _delegates(raw: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The chain behind `delegate`: one configuration, or the plugins of a list; each gets the list's name and version, or ours."""
    delegate = _object(raw, "delegate")
    if delegate is None:
        return ()
    chain = delegate.get("plugins", [delegate])
    if not isinstance(chain, list) or not chain:
        raise _bad("delegate.plugins", f"must be a list of configurations, not {shown(chain)}")
    for index, plugin in enumerate(chain):
        place = f"delegate.plugins[{index}]" if "plugins" in delegate else "delegate"
        if not isinstance(plugin, dict):
            raise _bad(place, f"must be an object, not {shown(plugin)}")
        kind = plugin.get("type")
        if not isinstance(kind, str) or not kind or "/" in kind or kind in (".", ".."):
            raise _bad(f"{place}.type", "is missing" if kind is None else f"{shown(kind)} is not the name of a plugin")
    version = delegate.get("cniVersion", raw["cniVersion"])
    if version not in SUPPORTED:
        raise _bad("delegate.cniVersion", f"{shown(version)} is none of {', '.join(SUPPORTED)}")
    name = delegate.get("name", raw["name"])
    if not isinstance(name, str) or not name:
        raise _bad("delegate.name", f"must be a text, not {shown(name)}")
    runtime = _object_leniently(raw, "runtimeConfig") or {}
    return tuple({**handed_on(plugin, runtime), "cniVersion": version, "name": name} for plugin in chain)


def _delegates_leniently(raw: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    try:
        return _delegates(raw)
    except Invalid:
        return ()


def _annotations(runtime: Mapping[str, Any]) -> Mapping[str, str]:
    value = runtime.get(ANNOTATIONS)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _bad(f"runtimeConfig[{ANNOTATIONS!r}]", f"must be an object of texts, not {shown(value)}")
    return value


def _primary(runtime: Mapping[str, Any]) -> Primary:
    ips, mac = runtime.get("ips"), runtime.get("mac")
    if ips is not None and (not isinstance(ips, list) or not all(isinstance(ip, str) for ip in ips)):
        raise _bad("runtimeConfig.ips", f"must be a list of addresses, not {shown(ips)}")
    if mac is not None and not isinstance(mac, str):
        raise _bad("runtimeConfig.mac", f"must be a text, not {shown(mac)}")
    addresses = tuple(_checked(wanted, f"runtimeConfig.ips[{index}]", text) for index, text in enumerate(ips or ()))
    return Primary(addresses, _checked(parse_mac, "runtimeConfig.mac", mac or ""), _bandwidth(runtime.get("bandwidth")))


def _bandwidth(value: Any) -> Bandwidth | None:
    """containerd writes the keys with a capital letter; the reference plugin, in Go, reads either."""
    if isinstance(value, dict):
        value = {key[:1].lower() + key[1:]: rate for key, rate in value.items()}
    return read_bandwidth(value, Place("runtimeConfig", "bandwidth", "CNI_CONFIG_INVALID")) if value else None


def _prev_result(raw: Mapping[str, Any], version: str) -> Mapping[str, Any] | None:
    """Judged now: when the ADD is done it would be too late to refuse it."""
    result = _object(raw, "prevResult")
    if result is not None:
        read(result, version)
    return result


def _dns(raw: Mapping[str, Any]) -> Dns | None:
    dns = _object(raw, "dns")
    if dns is None:
        return None
    lists: dict[str, tuple[str, ...]] = {}
    for key in ("nameservers", "search", "options"):
        value = dns.get(key) or []
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise _bad(f"dns.{key}", f"must be a list of texts, not {shown(value)}")
        lists[key] = tuple(value)
    domain = dns.get("domain") or ""
    if not isinstance(domain, str):
        raise _bad("dns.domain", f"must be a text, not {shown(domain)}")
    return Dns(domain=domain, **lists)


def _valid(raw: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """An absent list is an error; an empty one means that nothing is valid."""
    value = raw.get(VALID_ATTACHMENTS)
    if not isinstance(value, list):
        raise _bad(VALID_ATTACHMENTS, "is missing; GC needs it" if value is None else f"must be a list, not {shown(value)}")
    pairs = []
    for index, entry in enumerate(value):
        pair = (entry.get("containerID"), entry.get("ifname")) if isinstance(entry, dict) else (None, None)
        if not isinstance(pair[0], str) or not isinstance(pair[1], str):
            raise _bad(f"{VALID_ATTACHMENTS}[{index}]", f"must have containerID and ifname, not {shown(entry)}")
        pairs.append((pair[0], pair[1]))
    return tuple(pairs)


def _checked(parse: Callable[[str], str], key: str, text: str) -> str:
    """`parse(text)`, unless the text is empty; a ValueError becomes Invalid with the key."""
    try:
        return parse(text) if text else ""
    except ValueError as error:
        raise _bad(key, str(error)) from None


def _bad(key: str, trouble: str) -> Invalid:
    return Invalid("CNI_CONFIG_INVALID", f"{key} {trouble}", field=key)
