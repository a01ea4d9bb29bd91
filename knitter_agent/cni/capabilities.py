"""Capabilities: what the runtime asks for one attachment in `runtimeConfig`, and who takes it.

CNI specification 1.1.0, section 3, "Deriving runtimeConfig". The runtime hands us what our configuration's `capabilities`
declare. We take what is ours, for the primary interface alone, and hand a delegate what it declares itself, as the runtime would.
What is asked for and taken by nobody is an error: dropping it would leave a pod without what its author counts on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from knitter_common.errors import Invalid

ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
OURS = ("ips", "mac", "bandwidth")  # of the primary interface, where Knitter makes it

# Of the well-known ones (CNI's CONVENTIONS.md) those that change what a pod can do; `dns` and `cgroupPath` only inform.
_NEEDED = (*OURS, "portMappings", "ipRanges", "infinibandGUID", "deviceID", "aliases")


def handed_on(plugin: Mapping[str, Any], runtime: Mapping[str, Any]) -> dict[str, Any]:
    """A delegate's configuration with its `runtimeConfig` in the place of its `capabilities`."""
    declared = plugin.get("capabilities")
    conf = {key: value for key, value in plugin.items() if key != "capabilities"}
    if isinstance(declared, Mapping):
        asked = {key: value for key, value in runtime.items() if declared.get(key) is True}
        if asked:
            conf["runtimeConfig"] = asked
    return conf


def require_taken(runtime: Mapping[str, Any], delegates: Sequence[Mapping[str, Any]], primary_is_ours: bool) -> None:
    """Raises Invalid(CNI_FIELD_UNSUPPORTED) for a capability that is asked for and that nobody takes."""
    taken = {key for conf in delegates for key in conf.get("runtimeConfig", ())} | set(OURS if primary_is_ours else ())
    for key in _NEEDED:
        if runtime.get(key) and key not in taken:
            who = "Knitter does not do that" if primary_is_ours else "what makes the primary interface does not declare it"
            said = f"runtimeConfig.{key} is asked for, but {who}; declare the capability at the plugin that does, not here"
            raise Invalid("CNI_FIELD_UNSUPPORTED", said, field=f"runtimeConfig.{key}")
