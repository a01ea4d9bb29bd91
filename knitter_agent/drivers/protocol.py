"""What a driver is: it makes, undoes and compares the kernel state of ports of one network type.

A wiring is planned before the first step and written to the journal as the intent: every name and value that the steps use is in it,
so that it can be undone by a process that knows nothing else. All methods but `plan` block on the kernel; they are called in the
agent's worker thread, never in the event loop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from knitter_agent.netlink import Kernel, Namespace
from knitter_common.model import NetworkType, Port


@dataclass(frozen=True, slots=True)
class Wiring:
    """One port's kernel state. `facts` holds plain JSON values; what is in it is the driver's own."""

    type: NetworkType
    interface: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class HostInterface:
    """An interface outside the pod that belongs to a port, for the CNI result: name and MAC."""

    name: str
    mac: str


class Driver(Protocol):
    """One network type."""

    def plan(self, port: Port, attachment: str) -> Wiring:
        """The whole intent for a port; pure. `attachment` is the attachment's key, from which unique names are derived."""

    def attach(self, kernel: Kernel, sandbox: Namespace, wiring: Wiring) -> tuple[HostInterface, ...]:
        """Makes it. Raises KnitterError (WIRING_FAILED, CNI_INTERFACE_EXISTS, …); what was done by then, `detach` undoes."""

    def detach(self, kernel: Kernel, wirings: Sequence[Wiring]) -> None:
        """Undoes many at once, gathered so that the kernel's grace period is paid once. Missing is success."""

    def check(self, kernel: Kernel, sandbox: Namespace, wiring: Wiring) -> Sequence[str]:
        """What differs from the wiring, one sentence each that names the interface, the expected and the found value."""
