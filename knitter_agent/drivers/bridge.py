"""Networks of type bridge: one Linux bridge per network and node, one veth pair per port."""

from collections.abc import Sequence

from knitter_agent.drivers.protocol import HostInterface, Mended, Wiring
from knitter_agent.netlink import Kernel, Namespace
from knitter_common.model import Port


class BridgeDriver:
    """See `Driver`."""

    def plan(self, port: Port, attachment: str) -> Wiring:
        raise NotImplementedError

    def attach(self, kernel: Kernel, sandbox: Namespace, wiring: Wiring) -> tuple[HostInterface, ...]:
        raise NotImplementedError

    def detach(self, kernel: Kernel, wirings: Sequence[Wiring]) -> None:
        raise NotImplementedError

    def check(self, kernel: Kernel, sandbox: Namespace, wiring: Wiring) -> Sequence[str]:
        raise NotImplementedError

    def repair(self, kernel: Kernel, wirings: Sequence[Wiring]) -> Mended:
        raise NotImplementedError
