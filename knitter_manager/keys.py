"""The keys of the store (store/protocol.py names the families), and back."""

from knitter_common.model import NamedOwner, Owner, PodOwner, SandboxOwner

PORT_SET = "portset/"
ADDRESS = "addr/"
MAC = "mac/"
NETWORK = "network/"
NETWORK_NAME = "net/"
TENANT = "tenant/"
GROUP = "group/"
CLAIM = "claim/"
NODE = "node/"
META = "meta/"
STAGED = "staged/"  # a copy of a state that is about to replace this one (restore.py)

# What the state is made of; `meta` tells of the store itself. A snapshot with any other is of a newer release.
FAMILIES = frozenset(("portset", "addr", "mac", "network", "net", "tenant", "group", "claim", "node", "vid", "owed"))


def port_set(owner_key: str) -> str:
    """One port set."""
    return PORT_SET + owner_key


def address(network_id: str, text: str) -> str:
    """Who holds an address: the owner's key; an empty value means that the address rests."""
    return f"addr/{network_id}/{text}"


def mac(segment: str, text: str) -> str:
    """Who has a MAC."""
    return f"mac/{segment}/{text}"


def network(network_id: str) -> str:
    """A network's whole shape."""
    return NETWORK + network_id


def network_name(tenant: str, name: str) -> str:
    """The id of the network of that name."""
    return f"net/{tenant}/{name}"


def tenant(name: str) -> str:
    """A tenant."""
    return TENANT + name


def group(network_id: str, tenant_name: str, name: str) -> str:
    """An IP group."""
    return f"group/{network_id}/{tenant_name}/{name}"


def claim(tenant_name: str, name: str) -> str:
    """A claim."""
    return f"claim/{tenant_name}/{name}"


def node(name: str) -> str:
    """A node."""
    return NODE + name


def owed(network_id: str, node: str) -> str:
    """A node that is gone carried the network, and has not said that it does not any more."""
    return f"owed/{network_id}/{node}"


def owed_of(key: str) -> tuple[str, str]:
    """The network's id and the node of such a key."""
    _, network_id, node_name = key.split("/")
    return network_id, node_name


def vid(space: str, number: int) -> str:
    """Which network has a segmentation id: its id; or "rest", since when, and the id of the network that gave it up."""
    return f"vid/{space}/{number:08d}"


def owner_of(owner_key: str) -> Owner:
    """The owner whose `key` this is."""
    kind, *parts = owner_key.split("/")
    match kind:
        case "pod":
            return PodOwner(*parts)
        case "sandbox":
            return SandboxOwner(*parts)
        case "named":
            return NamedOwner(*parts)
    raise ValueError(f"{owner_key!r} is no owner's key")


def known_owner_of(owner_key: str) -> Owner | None:
    """As `owner_of`; None for what is no owner's key."""
    try:
        return owner_of(owner_key)
    except (ValueError, TypeError):
        return None


def said(owner_key: str) -> str:
    """An owner for people: "pod t1/web-0", "sandbox 3f2a on n1", "t1/vm", "claim t1/db"."""
    match owner_key.split("/"):
        case ["pod", namespace, name, _]:
            return f"pod {namespace}/{name}"
        case ["sandbox", node, container_id, _, _]:
            return f"sandbox {container_id[:12]} on {node}"
        case ["named", tenant, name]:
            return f"{tenant}/{name}"
        case [kind, *parts]:
            return " ".join((kind, "/".join(parts)))
    raise AssertionError("a text has a first part")
