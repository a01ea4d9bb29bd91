"""The agent's settings: what its JSON configuration file may hold."""

import socket
from dataclasses import dataclass

from knitter_common.errors import Invalid
from knitter_common.serve.logs import LogSettings
from knitter_common.serve.server import ServerSettings
from knitter_common.settings import Seconds, setting


@dataclass(frozen=True)
class AgentSettings:
    """knitter-agent."""

    listen: str = setting("the plugin's socket, unix:/path", "unix:/run/knitter/agent.sock", address="unix")
    state: str = setting("directory of the journal and of the plugin's DEL queue (its subdirectory delq)", "/var/lib/knitter/agent")
    node: str = setting('the node\'s name in the cluster; "" means the host name', "")
    underlay_address: str = setting("the node's address that overlays use; empty when it carries none", "")
    labels: dict[str, str] = setting("the node's labels, for selectors", {})
    managers: tuple[str, ...] = setting("addresses of the managers, host:port or unix:/path", ("127.0.0.1:7470",), address="peer")
    monitors: tuple[str, ...] = setting(
        "addresses of the monitors; none means that nothing is pushed to this node", (), address="peer"
    )
    default_network: str = setting(
        'network of primary interfaces where the CNI configuration names none; "" means the manager\'s default network', ""
    )
    strict_status: bool = setting("STATUS says 50 while no manager is connected", False)
    manager_patience: Seconds = setting("how long an ADD waits for a manager before it fails with code 11", Seconds(10.0), low=0)
    max_concurrent_adds: int = setting("ADDs under way at once; more are refused with code 11", 256, low=1)
    delegate_timeout: Seconds = setting("how long one run of a delegate may take", Seconds(60.0), low=1)
    liveness_interval: Seconds = setting(
        "time between two looks at the recorded network namespaces; 0 switches it off", Seconds(60.0)
    )
    liveness_grace: Seconds = setting(
        "an attachment whose namespace is gone is ended no earlier than this after the first look that found it so", Seconds(120.0)
    )
    log: LogSettings = setting("what is logged", LogSettings())
    server: ServerSettings = setting("the gRPC server", ServerSettings())

    def __post_init__(self) -> None:
        """What the types cannot say. Raises Invalid."""
        if not self.managers:
            raise Invalid("FIELD_INVALID", "managers: at least one address is needed", field="managers")

    @property
    def node_name(self) -> str:
        """The configured name, or the host's."""
        return self.node or socket.gethostname()
