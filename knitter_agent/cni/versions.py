"""The versions of the specification that the agent speaks, and which verbs each has."""

from knitter_agent.cni.value import shown
from knitter_common.errors import Invalid

SUPPORTED = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
FALLBACK = "1.0.0"  # what an error says when the call told no usable version

_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


def require_version(version: object, verb: str) -> str:
    """The cniVersion of a configuration. Raises Invalid(CNI_VERSION_UNSUPPORTED), also for a verb the version does not have."""
    said = f"cniVersion {shown(version)}" if version is not None else "cniVersion is missing"
    if not isinstance(version, str) or version not in SUPPORTED:
        text = f"{said}: this plugin speaks {', '.join(SUPPORTED)}"
        raise Invalid("CNI_VERSION_UNSUPPORTED", text, field="cniVersion")
    since = _SINCE.get(verb, SUPPORTED[0])
    if SUPPORTED.index(version) < SUPPORTED.index(since):
        raise Invalid("CNI_VERSION_UNSUPPORTED", f"{said}: {verb} exists since {since}", field="cniVersion")
    return version
