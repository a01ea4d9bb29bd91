"""Names and labels: what is a legal one, by the rules of DNS, Linux and Kubernetes.

Every function returns its argument, or raises ValueError with a sentence that holds the value and the way out; the caller puts the
place in front.
"""

import difflib
import re
from collections.abc import Iterable

LABEL_LENGTH = 63
SUBDOMAIN_LENGTH = 253
INTERFACE_LENGTH = 15  # IFNAMSIZ is 16 with the closing zero, linux/if.h
_NAMED = 12  # known names that a message lists
_COMPARED = 1000  # known names among which a near one is looked for, in some 10 ms

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\Z")
_LABEL_WORD = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_SOURCE = re.compile(r"(api|crd|files:[A-Za-z0-9][-A-Za-z0-9_.]{0,62})\Z")
_DEVICE = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.:]*)\Z")


def dns_label(text: str) -> str:
    """A DNS label (RFC 1123): names of tenants, networks and groups."""
    if len(text) <= LABEL_LENGTH and _LABEL.match(text):
        return text
    if not text:
        raise ValueError("is empty; give it a name")
    if len(text) > LABEL_LENGTH:
        raise ValueError(f"{shown(text)} is {len(text)} characters long; a name has at most {LABEL_LENGTH}")
    raise ValueError(f"{shown(text)} is no name; use a-z, 0-9 and '-', with a letter or digit first and last")


def dns_subdomain(text: str) -> str:
    """DNS labels with dots between (RFC 1123): names of nodes and claims."""
    if not text:
        raise ValueError("is empty; give it a name")
    if len(text) > SUBDOMAIN_LENGTH:
        raise ValueError(f"{shown(text)} is {len(text)} characters long; a name has at most {SUBDOMAIN_LENGTH}")
    if not all(_LABEL.match(part) for part in text.split(".")):
        raise ValueError(f"{shown(text)} is no name; use a-z, 0-9, '-' and '.', with a letter or digit at each end of a part")
    return text


def domain(text: str) -> str:
    """A domain of resolv.conf: labels of letters, digits, '-' and '_', in any case, perhaps with a dot at the end."""
    parts = text.removesuffix(".").split(".")
    if len(text) > SUBDOMAIN_LENGTH or not all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", part) for part in parts):
        raise ValueError(f"{shown(text)} is no domain; write for example cluster.local")
    return text


def network_reference(text: str) -> str:
    """ "name" or "tenant/name"."""
    if not text:
        raise ValueError("is empty; name a network: 'name' or 'tenant/name'")
    parts = text.split("/")
    if len(parts) > 2:
        raise ValueError(f"{shown(text)} names no network; write 'name' or 'tenant/name'")
    for part in parts:
        try:
            dns_label(part)
        except ValueError as error:
            raise ValueError(f"{shown(text)} names no network; write 'name' or 'tenant/name' ({error})") from None
    return text


def interface(text: str) -> str:
    """A name that Linux takes for an interface (dev_valid_name in net/core/dev.c); ours also has no ':' nor '%'."""
    if not text:
        raise ValueError("is empty; leave it out, or give a name")
    if text in (".", "..") or any(sign in "/:%" or sign.isspace() or not sign.isprintable() for sign in text):
        raise ValueError(f"{shown(text)} is no interface's name; use no '/', ':', '%' or white space")
    if len(text.encode()) > INTERFACE_LENGTH:
        raise ValueError(f"{shown(text)} is {len(text.encode())} bytes long; an interface's name has at most {INTERFACE_LENGTH}")
    if text in ("lo", "all", "default"):
        raise ValueError(f"{shown(text)} is the system's; choose another name")
    return text


def device(text: str) -> str:
    """A physical network or a device of the node."""
    if len(text) > LABEL_LENGTH or not _DEVICE.match(text):
        raise ValueError(f"{shown(text)} names no physical network; use at most {LABEL_LENGTH} of a-z, A-Z, 0-9 and '-_.:'")
    return text


def source(text: str) -> str:
    """Where an object's declaration lives."""
    if not _SOURCE.match(text):
        raise ValueError(f"{shown(text)} is no source; write api, crd or files:<name>")
    return text


def label_key(text: str) -> str:
    """A Kubernetes label's key: a name of at most 63 characters, perhaps with a DNS subdomain and '/' before."""
    prefix, slash, name = text.rpartition("/")
    try:
        if slash:
            dns_subdomain(prefix)
        if not 0 < len(name) <= LABEL_LENGTH or not _LABEL_WORD.match(name):
            raise ValueError
    except ValueError:
        raise ValueError(f"{shown(text)} is no label's key; write for example app or example.org/app") from None
    return text


def label_value(text: str) -> str:
    """A Kubernetes label's value: empty, or at most 63 characters."""
    if text and (len(text) > LABEL_LENGTH or not _LABEL_WORD.match(text)):
        raise ValueError(f"{shown(text)} is no label's value; use at most {LABEL_LENGTH} of A-Z, a-z, 0-9, '-', '_' and '.'")
    return text


def nearest(name: str, known: Iterable[str]) -> str:
    """The way out for an unknown name: " did you mean 'x'?", or the known ones."""
    names = sorted(known)
    close = difflib.get_close_matches(name[:64], names[:_COMPARED], n=1, cutoff=0.5)
    lowered = [entry for entry in names if entry.lower().replace("_", "") == name.lower().replace("_", "").replace("-", "")]
    if lowered or close:
        return f"did you mean {(lowered or close)[0]!r}?"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"known are {', '.join(names[:_NAMED])}{more}"


def shown(value: object, limit: int = 60) -> str:
    """A value for a message: quoted and cut."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
