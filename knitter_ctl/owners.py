"""Owners as people write and read them.

    pod/NAMESPACE/NAME/UID    sandbox/NODE/CONTAINER/NETWORK/INTERFACE    named/TENANT/NAME

is an owner's key. Tables show a short form (no UID, the first 12 digits of a container id), which is accepted wherever it names
one set only.
"""

from knitter_common.errors import Invalid
from knitter_common.model import NamedOwner, Owner, PodOwner, SandboxOwner

_CONTAINER = 12  # digits of a container id that a table shows
_FORMS = {"pod": "NAMESPACE/NAME/UID", "sandbox": "NODE/CONTAINER/NETWORK/INTERFACE", "named": "TENANT/NAME"}


def parse(kind: str, text: str) -> Owner:
    """An owner from what stands behind `--pod`, `--sandbox` or `--owner` (kind "named"). Raises Invalid(FIELD_INVALID)."""
    parts = text.split("/")
    if len(parts) != len(_FORMS[kind].split("/")) or not all(parts):
        option = "--owner" if kind == "named" else f"--{kind}"
        raise Invalid("FIELD_INVALID", f"{option} {text!r}: write it as {_FORMS[kind]}", field=option, value=text)
    match kind:
        case "pod":
            return PodOwner(*parts)
        case "sandbox":
            return SandboxOwner(*parts)
        case _:
            return NamedOwner(*parts)


def from_key(key: str) -> Owner | None:
    """The owner with this key; None when it is not a whole key."""
    kind, _, rest = key.partition("/")
    if kind not in _FORMS or len(rest.split("/")) != len(_FORMS[kind].split("/")):
        return None
    return parse(kind, rest)


def one(owner: str, pod: str, sandbox: str) -> Owner:
    """The owner told by exactly one of the three options. Raises Invalid(FIELD_INVALID)."""
    told = [(kind, text) for kind, text in (("named", owner), ("pod", pod), ("sandbox", sandbox)) if text]
    if len(told) != 1:
        raise Invalid("FIELD_INVALID", "name the owner by exactly one of --owner, --pod and --sandbox", field="owner")
    return parse(*told[0])


def short(owner: Owner) -> str:
    """The form that tables show."""
    match owner:
        case PodOwner():
            return f"pod/{owner.namespace}/{owner.name}"
        case SandboxOwner():
            return f"sandbox/{owner.node}/{owner.container_id[:_CONTAINER]}/{owner.cni_network}/{owner.interface}"
        case NamedOwner():
            return owner.key


def matches(owner: Owner, text: str) -> bool:
    """`text` names the owner: its key, its short form, either without the kind, its bare name, a container id or the beginning of
    one (four characters at least)."""
    key, brief = owner.key, short(owner)
    if text in (key, brief, key.partition("/")[2], brief.partition("/")[2]):
        return True
    if isinstance(owner, SandboxOwner):
        return text == owner.container_id or (len(text) >= 4 and owner.container_id.startswith(text))
    return text == owner.name
