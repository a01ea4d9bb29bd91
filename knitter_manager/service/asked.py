"""What a request says, judged before anything is looked up: a field that is forgotten or garbled is told as such, and not taken for
something that is not there."""

from functools import lru_cache

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common import convert
from knitter_common.addresses import wanted as wanted_address
from knitter_common.errors import Invalid
from knitter_common.model import ROLES, Allocation, Bind, NamedOwner, Node, Owner, PodOwner, PortSet, SandboxOwner, Wish
from knitter_common.names import dns_label, dns_subdomain, nearest, network_reference, shown
from knitter_common.objects.fields import checked, labels, refuse, source
from knitter_common.serve.pages import after_token
from knitter_manager import keys
from knitter_manager.allocation.planner import place_of

MOST_METADATA = 64 * 1024  # bytes of an allocation that carries metadata or cni_args: a set travels in many messages

# Names come again and again on the path of every allocation; a refused one is not kept.
_label = lru_cache(8192)(dns_label)
_subdomain = lru_cache(8192)(dns_subdomain)


def tenant(text: str) -> str:
    """A tenant's name, "" where it may be left out. Raises Invalid(FIELD_INVALID), as all of this file."""
    return checked("tenant", _label, text) if text else ""


def name(text: str) -> str:
    """The name of a network, a tenant or an IP group."""
    return checked("name", _label, text)


def dotted_name(text: str) -> str:
    """The name of a node or a claim."""
    return checked("name", _subdomain, text)


def node(text: str) -> str:
    """A node's name, "" where it may be left out."""
    return checked("node", _subdomain, text) if text else ""


def network(text: str) -> str:
    """ "name" or "tenant/name", "" where it may be left out."""
    return checked("network", network_reference, text) if text else ""


def its_network(text: str) -> str:
    """As `network`, where it must not be left out."""
    return checked("network", network_reference, text)


def declarer(text: str) -> str:
    """Who asks for a change: a source, or "" for api."""
    return source("source", text)


def allocation(message: pb.Allocation) -> Allocation:
    """What an owner wants, as far as it can be judged without knowing any network."""
    wanted = convert.allocation_from_proto(message)
    _owner(wanted.owner, wanted.node)
    if wanted.tenant:
        checked("tenant", _label, wanted.tenant)
    if wanted.binding is not None and not wanted.binding.container_id:
        refuse("binding.container_id", "is empty; say which sandbox, or leave the binding out")
    if wanted.labels:
        labels("labels", dict(wanted.labels))
    large = False
    for at, wish in enumerate(wanted.wishes):
        if wish.roles:
            _roles(wish, at)
        large = large or wish.metadata is not None or wish.cni_args is not None
    if large and (size := message.ByteSize()) > MOST_METADATA:
        said = f"wishes: {size} bytes with their metadata and cni_args are too many; at most {MOST_METADATA}"
        raise Invalid("LIMIT_EXCEEDED", said, field="wishes", limit=MOST_METADATA)
    return wanted


def bind(message: pb.Bind) -> Bind:
    """A sandbox takes a set."""
    asked = convert.bind_from_proto(message)
    _owner(asked.owner, asked.node)
    return asked


def position(request: pb.ChangesRequest) -> pb.ChangesRequest:
    """Where a client's feed resumes."""
    if request.after_revision < 0:
        said = f"{request.after_revision} is no revision; send that of the last Synced, or 0"
        refuse("after_revision", said, request.after_revision)
    return request


def _owner(owner: Owner, node_name: str) -> None:
    """Names that tenants, nodes and topics are made of, and that a sandbox is on the node it says."""
    if node_name:
        checked("node", _subdomain, node_name)
    match owner:
        case SandboxOwner():
            checked("owner.sandbox.node", _subdomain, owner.node)
            if node_name and node_name != owner.node:
                refuse("node", f"{node_name!r} is not {owner.node!r}, where the sandbox is; leave it out, or send that", node_name)
        case PodOwner():
            checked("owner.pod.namespace", _label, owner.namespace)
        case NamedOwner():
            checked("owner.named.tenant", _label, owner.tenant)


def _roles(wish: Wish, at: int) -> None:
    for index, role in enumerate(wish.roles):
        place = f"{place_of(wish, at)}: roles[{index}]"
        if role not in ROLES:
            raise Invalid("WISH_INVALID", f"{place}: {shown(role)} is no network plane; {nearest(role, ROLES)}", role=shown(role))
        if role in wish.roles[:index]:
            raise Invalid("WISH_INVALID", f"{place}: {role!r} is there already; a plane comes once", role=role)


def told(request: pb.ReconcileRequest) -> tuple[Node, list[PortSet]]:
    """What a node says of itself, and of the sets that run on it."""
    node = convert.node_from_proto(request.node)
    checked("node.name", _subdomain, node.name)
    if request.revision < 0:
        refuse("revision", f"{request.revision} is no revision; send the highest one seen, or 0", request.revision)
    in_use = []
    for at, message in enumerate(request.in_use):
        try:
            in_use.append(_running(message, node.name))
        except Invalid as error:
            place = f"in_use[{at}]."
            metadata = {**error.metadata, "field": place + error.metadata.get("field", "")}
            raise Invalid(error.reason, place + error.message, **metadata) from error
    return node, in_use


def _running(message: types.PortSet, node_name: str) -> PortSet:
    """A set that runs on that node."""
    port_set = convert.port_set_from_proto(message)
    owner = port_set.owner
    if isinstance(owner, SandboxOwner) and owner.node != node_name:
        refuse("owner.sandbox.node", f"{owner.node!r} is not {node_name!r}; a node tells of its own sandboxes only", owner.node)
    for index, port in enumerate(port_set.ports):
        for which, one in enumerate(port.addresses):
            checked(f"ports[{index}].addresses[{which}].cidr", _with_length, one.cidr)
    return port_set


def _with_length(text: str) -> str:
    if "/" not in text:
        raise ValueError(f"{shown(text)} has no prefix length; send the address as it was granted")
    return wanted_address(text)


def path_token(text: str) -> str:
    """The page_token of a list of networks: "tenant/name", as for the next ones that of the last key told."""
    return after_token(text, text.count("/") == 1)


def name_token(text: str) -> str:
    """Of a list by name."""
    return after_token(text, "/" not in text)


def group_token(text: str) -> str:
    """Of a list of IP groups."""
    return after_token(text, text.startswith(keys.GROUP) and text.count("/") == 3)


def claim_token(text: str) -> str:
    """Of a list of claims."""
    return after_token(text, text.startswith(keys.CLAIM) and text.count("/") == 2)


def set_token(text: str) -> str:
    """Of a list of port sets."""
    kind, _, rest = text.partition("/")
    return after_token(text, rest.count("/") == {"pod": 2, "sandbox": 3, "named": 1}.get(kind, -1))
