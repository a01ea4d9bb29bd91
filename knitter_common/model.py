"""The words of the domain as frozen dataclasses: what protos/knitter/v1/types.proto says, for use inside the components.

Generated messages stay at the edges (`knitter_common.convert`). Shapes and units are those of types.proto: addresses and CIDRs are
text in the canonical form of `ipaddress`, MACs lower case with colons, revisions whole numbers with 0 for "not stored yet".
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ADMIN = "admin"
MAX_PORTS = 32  # interfaces of one port set
MAX_ADDRESSES = 48  # addresses of one port set

ROLES = ("std", "control", "media", "oam", "eio")


class NetworkType(enum.IntEnum):
    """How a network carries its packets; values are the contract's."""

    BRIDGE = 1
    VXLAN = 2
    MACVLAN = 3
    IPVLAN = 4
    VLAN = 5
    HOST_DEVICE = 6
    SRIOV = 7


class NicType(enum.IntEnum):
    """What kind of device a pod asks for."""

    NORMAL = 1
    DIRECT = 2
    PHYSICAL = 3


class ObjectState(enum.IntEnum):
    """Where an object is in its life."""

    ACTIVE = 1
    DELETING = 2


class PortSetState(enum.IntEnum):
    """Where a port set is in its life."""

    RESERVED = 1
    LENT = 2
    FAILED = 3
    KEPT = 4


@dataclass(frozen=True, slots=True)
class PodOwner:
    """A Kubernetes pod; another UID is another owner."""

    namespace: str
    name: str
    uid: str

    @property
    def key(self) -> str:
        """Unique among owners of all kinds."""
        return f"pod/{self.namespace}/{self.name}/{self.uid}"


@dataclass(frozen=True, slots=True)
class SandboxOwner:
    """One invocation of the plugin: CNI specification 1.1.0, section 2: "network name, CNI_CONTAINERID and CNI_IFNAME"."""

    node: str
    container_id: str
    cni_network: str
    interface: str

    @property
    def key(self) -> str:
        """Unique among owners of all kinds."""
        return f"sandbox/{self.node}/{self.container_id}/{self.cni_network}/{self.interface}"


@dataclass(frozen=True, slots=True)
class NamedOwner:
    """A service, a person, a virtual machine."""

    tenant: str
    name: str

    @property
    def key(self) -> str:
        """Unique among owners of all kinds."""
        return f"named/{self.tenant}/{self.name}"


Owner = PodOwner | SandboxOwner | NamedOwner


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    """One requirement on one label; `operator` is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must hold; empty matches everything."""

    match_labels: Mapping[str, str] = field(default_factory=dict)
    match_expressions: tuple[LabelRequirement, ...] = ()


@dataclass(frozen=True, slots=True)
class Usability:
    """Who may use a network or a pool; None leaves that side open."""

    namespaces: LabelSelector | None = None
    pods: LabelSelector | None = None
    nodes: LabelSelector | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """A range of addresses, both ends included."""

    start: str
    end: str
    usable_by: Usability | None = None


@dataclass(frozen=True, slots=True)
class Subnet:
    """`gateway` "" means none; no pools means every usable address."""

    cidr: str
    gateway: str = ""
    pools: tuple[Pool, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """`gateway` "" means the gateway of the port's subnet of the same family; metric and mtu 0 mean the default."""

    destination: str
    gateway: str = ""
    metric: int = 0
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Dns:
    """Name resolution, as in a CNI result."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """A network's whole shape. `rest` is in seconds, None means the manager's setting; `create_time` in nanoseconds since 1970."""

    tenant: str
    name: str
    id: str = ""
    type: NetworkType = NetworkType.BRIDGE
    public: bool = False
    exported_to: tuple[str, ...] = ()
    mtu: int = 0
    subnets: tuple[Subnet, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns | None = None
    physical_network: str = ""
    segmentation_id: int = 0
    vlan_transparent: bool = False
    external: bool = False
    description: str = ""
    rest: float | None = None
    external_gateway: bool = False
    masquerade: bool = False
    usable_by: Usability | None = None
    state: ObjectState = ObjectState.ACTIVE
    create_time: int = 0
    revision: int = 0
    source: str = ""

    @property
    def path(self) -> str:
        """ "tenant/name"."""
        return f"{self.tenant}/{self.name}"


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a tenant may hold, or holds; as a limit 0 means the default."""

    networks: int = 0
    ports: int = 0
    addresses: int = 0


@dataclass(frozen=True, slots=True)
class Tenant:
    """Owner of networks and port sets."""

    name: str
    quota: Quota = Quota()
    allowed_types: tuple[NetworkType, ...] = ()
    allowed_physical_networks: tuple[str, ...] = ()
    description: str = ""
    used: Quota = Quota()
    state: ObjectState = ObjectState.ACTIVE
    create_time: int = 0
    revision: int = 0
    source: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    delete_time: int = 0
    in_the_way: str = ""


@dataclass(frozen=True, slots=True)
class PortAddress:
    """An address with its subnet's prefix length, and that subnet's gateway ("" for none)."""

    cidr: str
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class IPGroupAddress:
    """One address of a group and its user."""

    address: str
    used_by: Owner | None = None


@dataclass(frozen=True, slots=True)
class IPGroup:
    """A named set of addresses of one network, by list (`ips`) or by count (`size`), not both."""

    tenant: str
    name: str
    network: str
    id: str = ""
    ips: tuple[str, ...] = ()
    size: int = 0
    pod_selector: LabelSelector | None = None
    addresses: tuple[IPGroupAddress, ...] = ()
    create_time: int = 0
    revision: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class IPClaim:
    """Addresses with a life of their own."""

    tenant: str
    name: str
    network: str
    interface: str = ""
    wanted_addresses: tuple[str, ...] = ()
    addresses: tuple[PortAddress, ...] = ()
    mac: str = ""
    used_by: Owner | None = None
    create_time: int = 0
    revision: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that runs an agent. Times in nanoseconds since 1970."""

    name: str
    underlay_address: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    agent_version: str = ""
    gone: bool = False
    last_seen: int = 0
    create_time: int = 0
    revision: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Rates in bits per second, bursts in bits; 0 means no limit."""

    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0


@dataclass(frozen=True, slots=True)
class Wish:
    """One interface as it was asked for, before any default. `metadata` and `cni_args` are plain JSON values."""

    network: str = ""
    interface: str = ""
    roles: tuple[str, ...] = ()
    nic_type: NicType = NicType.NORMAL
    accelerate: bool = False
    addresses: tuple[str, ...] = ()
    mac: str = ""
    ip_group: str = ""
    ip_claim: str = ""
    default_routes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None
    cni_args: Mapping[str, Any] | None = None
    primary: bool = False
    place: str = ""
    bandwidth: Bandwidth | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """One interface as it was planned: all that an agent needs to make it."""

    id: str
    network_id: str
    network: str
    interface: str
    mac: str
    addresses: tuple[PortAddress, ...] = ()
    routes: tuple[Route, ...] = ()
    mtu: int = 0
    roles: tuple[str, ...] = ()
    nic_type: NicType = NicType.NORMAL
    accelerate: bool = False
    metadata: Mapping[str, Any] | None = None
    type: NetworkType = NetworkType.BRIDGE
    physical_network: str = ""
    segmentation_id: int = 0
    node_gateway: bool = False
    masquerade: bool = False
    dns: Dns | None = None
    primary: bool = False
    place: str = ""
    bandwidth: Bandwidth | None = None
    ip_group: str = ""
    public: bool = False
    exported: bool = False
    external: bool = False
    default_network: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """The sandbox that uses a set. `time` in nanoseconds since 1970."""

    container_id: str
    netns: str = ""
    time: int = 0


@dataclass(frozen=True, slots=True)
class PlanError:
    """Why planning failed."""

    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PortSet:
    """All interfaces of one owner: the unit of commit, idempotency, binding, push and return."""

    owner: Owner
    tenant: str
    node: str = ""
    wishes: tuple[Wish, ...] = ()
    ports: tuple[Port, ...] = ()
    binding: Binding | None = None
    error: PlanError | None = None
    state: PortSetState = PortSetState.RESERVED
    create_time: int = 0
    revision: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    sticky: bool = False
    expire_time: int = 0


@dataclass(frozen=True, slots=True)
class Allocation:
    """What an owner wants; `replace` brings an existing set to these wishes instead of refusing others."""

    owner: Owner
    tenant: str = ""
    node: str = ""
    wishes: tuple[Wish, ...] = ()
    binding: Binding | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    sticky: bool = False
    replace: bool = False
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Return:
    """A set is given up; `revision` and `container_id` are compared where set."""

    owner: Owner
    revision: int = 0
    container_id: str = ""
    unbind_only: bool = False
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Bind:
    """A sandbox takes a reserved set."""

    owner: Owner
    binding: Binding
    node: str = ""
    request_id: str = ""


def default_tenant(owner: Owner) -> str:
    """The tenant whose networks an owner's wishes name when none is told."""
    match owner:
        case PodOwner():
            return owner.namespace
        case NamedOwner():
            return owner.tenant or ADMIN
        case _:
            return ADMIN
