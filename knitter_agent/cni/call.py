"""One call of the plugin: its environment and standard input, parsed and judged once.

CNI specification 1.1.0, section 2, "Parameters": which variables a verb needs, and what they may hold. A missing or bad one is
error 4 and names the variable.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from knitter_agent.cni.conf import NetConf, parse_conf
from knitter_common.errors import Invalid

# "Must not be empty. Must start with an alphanumeric character, optionally followed by any combination of one or more
# alphanumeric characters, underscore (), dot (.) or hyphen (-)."
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")
_TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_MAX_CONTAINER_ID = 1024
_MAX_IFNAME = 15
_PATH_MAX = 4096  # with the closing zero, linux/limits.h

_REQUIRED: dict[str, tuple[str, ...]] = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
}


@dataclass(frozen=True, slots=True)
class Call:
    """What a runtime asked. Variables that the verb does not need may be ""."""

    verb: str
    request_id: str
    container_id: str
    netns: str
    interface: str
    args: Mapping[str, str]
    environment: Mapping[str, bytes]  # as it came, for delegates
    stdin: bytes
    conf: NetConf

    @property
    def tenant(self) -> str:
        """Whose networks the wishes name; "" leaves it to the manager's default (admin)."""
        return self.args.get("K8S_POD_NAMESPACE", "") or self.conf.tenant

    @property
    def arguments(self) -> str:
        """CNI_ARGS as it came, for delegates."""
        return self.environment.get("CNI_ARGS", b"").decode(errors="replace")

    @property
    def path(self) -> str:
        """CNI_PATH: directories with plugins, separated by colons."""
        return _text(self.environment, "CNI_PATH")


def parse_call(verb: str, environment: Mapping[str, bytes], stdin: bytes, request_id: str) -> Call:
    """Judges environment and configuration. Raises Invalid with the CNI codes 1, 4, 6 and 7."""
    told = _text(environment, "CNI_COMMAND")
    if told not in ("", verb):
        raise _bad("CNI_COMMAND", f"is {told!r}, but the plugin asked for {verb}")
    for name in _REQUIRED[verb]:
        if not environment.get(name):
            raise _bad(name, f"is missing; {verb} needs it")
    container_id, interface = _text(environment, "CNI_CONTAINERID"), _text(environment, "CNI_IFNAME")
    if container_id and (not _CONTAINER_ID.match(container_id) or len(container_id) > _MAX_CONTAINER_ID):
        text = f"{_short(container_id)!r} must be letters, digits, '_', '.', '-', and begin with a letter or digit"
        raise _bad("CNI_CONTAINERID", text)
    if interface and (trouble := interface_trouble(interface)):
        raise _bad("CNI_IFNAME", f"{_short(interface)!r} {trouble}")
    return Call(
        verb,
        request_id,
        container_id,
        _netns(verb, _text(environment, "CNI_NETNS")),
        interface,
        _args(_text(environment, "CNI_ARGS")) if verb in ("ADD", "CHECK") else _args_leniently(environment),
        environment,
        stdin,
        parse_conf(stdin, verb),
    )


def interface_trouble(name: str) -> str:
    """Why Linux (dev_valid_name) and the specification refuse an interface name; "" if they do not."""
    if not name or len(name.encode()) > _MAX_IFNAME:
        return f"must have 1 to {_MAX_IFNAME} bytes"
    if name in (".", "..") or any(letter in "/:" or letter.isspace() or ord(letter) < 32 for letter in name):
        return "must not be . or .. nor hold '/', ':', white space or control characters"
    return ""


def _netns(verb: str, path: str) -> str:
    """An absolute path. DEL does without any, so there it may be what it likes."""
    if verb in ("ADD", "CHECK") and not path.startswith("/"):
        raise _bad("CNI_NETNS", f"{_short(path)!r} is not the absolute path of a network namespace")
    if len(path.encode()) >= _PATH_MAX:
        if verb != "DEL":
            raise _bad("CNI_NETNS", f"{_short(path)!r} is longer than a path can be ({_PATH_MAX} bytes)")
        return ""
    return path


def _args(text: str) -> Mapping[str, str]:
    """CNI_ARGS: "Alphanumeric key-value pairs separated by semicolons". Unknown keys are ignored."""
    args: dict[str, str] = {}
    for pair in filter(None, text.split(";")):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise _bad("CNI_ARGS", f"{_short(pair)!r} is not KEY=VALUE; pairs are separated by ';'")
        args[key] = value
    namespace = args.get("K8S_POD_NAMESPACE", "")
    if namespace and not _TENANT.match(namespace):
        raise _bad("CNI_ARGS", f"K8S_POD_NAMESPACE={_short(namespace)!r} is not the name of a namespace")
    return args


def _args_leniently(environment: Mapping[str, bytes]) -> Mapping[str, str]:
    """For verbs that do nothing with them but tell them: a pod must not be stuck because its ADD was refused for them."""
    try:
        return _args(_text(environment, "CNI_ARGS"))
    except Invalid:
        return {}


def _text(environment: Mapping[str, bytes], name: str) -> str:
    try:
        text = environment.get(name, b"").decode()
    except UnicodeDecodeError as error:
        raise _bad(name, f"is not UTF-8: {error.reason} at byte {error.start}") from error
    if "\0" in text:
        raise _bad(name, "holds a NUL")
    return text


def _bad(variable: str, trouble: str) -> Invalid:
    return Invalid("CNI_ENVIRONMENT_INVALID", f"{variable} {trouble}", field=variable)


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
