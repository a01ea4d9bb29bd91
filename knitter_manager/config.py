"""The manager's configuration file."""

from dataclasses import dataclass

from knitter_common.model import NetworkType, Quota
from knitter_common.objects.validate import type_name
from knitter_common.serve.logs import LogSettings
from knitter_common.serve.server import ServerSettings
from knitter_common.settings import Seconds, setting
from knitter_manager.allocation.planner import Limits
from knitter_manager.store import StoreSettings


@dataclass(frozen=True)
class QuotaSettings:
    """How much a tenant may hold when it says nothing itself."""

    networks: int = setting("networks of a tenant", 10, low=1, high=1000)
    admin_networks: int = setting("networks of the operator's tenant", 100, low=1, high=1000)
    ports: int = setting("ports of a tenant; 0 for no limit", 0, low=0)
    addresses: int = setting("addresses of a tenant, both families together; 0 for no limit", 0, low=0)


@dataclass(frozen=True)
class SegmentationSettings:
    """Where the ids of overlays and VLANs come from when nobody asks for one. An id that is asked for may lie outside."""

    vni: str = setting("VNIs of overlays, low-high", "5000-14999")
    vlans: dict[str, str] = setting('VLAN ids, low-high, by physical network; "*" stands for all others', {"*": "2-4094"})


@dataclass(frozen=True)
class ManagerSettings:
    """knitter-manager."""

    listen: str = setting("where it serves: host:port, or unix:/path", "127.0.0.1:7470", address="served")
    name: str = setting('the address under which clients and other managers find this one; "" means where it listens', "")
    store: StoreSettings = setting("where the state is kept", StoreSettings())
    default_network: str = setting("the network that a wish without a network means, tenant/name", "admin/default")
    rest: Seconds = setting("how long a released address rests where its network does not say", Seconds(30.0), low=0)
    sticky_ttl: Seconds = setting(
        "how long the addresses of a sticky pod wait for the next pod of that name; 0 for not at all", Seconds(24 * 3600.0), low=0
    )
    tenant_deletion_wait: Seconds = setting(
        "how long a tenant that is deleted waits for its pods to be gone; then its deletion is given up", Seconds(900.0), low=0
    )
    segmentation: SegmentationSettings = setting("ids of overlays and VLANs", SegmentationSettings())
    allowed_types: tuple[str, ...] = setting(
        "types of networks that tenants may create where the tenant says nothing",
        ("bridge", "vxlan"),
        choices=tuple(type_name(one) for one in NetworkType),
    )
    heartbeat: Seconds = setting("after how much silence a feed of changes sends a sign of life", Seconds(5.0), low=0.05)
    quota: QuotaSettings = setting("limits of tenants that have none of their own", QuotaSettings())
    server: ServerSettings = setting("the gRPC server", ServerSettings())
    log: LogSettings = setting("what is logged", LogSettings())

    @property
    def limits(self) -> Limits:
        """For the planner."""
        quota = self.quota
        return Limits(
            rest=self.rest,
            quota=Quota(quota.networks, quota.ports, quota.addresses),
            admin_quota=Quota(quota.admin_networks, quota.ports, quota.addresses),
        )
