"""What a driver is: it makes, undoes and compares the kernel state of ports of one network type.

A wiring is planned before the first step and written to the journal as the intent: every name and value that the steps use is in
it, so that it can be undone by a process that knows nothing else. All methods but `plan` and `follow` block on the kernel; they are
called in the agent's worker threads, never in the event loop: `attach` and `check` in one, `detach`, `repair` and `settle` in
another, each with a Kernel of its own, so that no ADD waits for the kernel's grace period. A driver sees to it that the two can
overlap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from knitter_agent.netlink import Kernel, Namespace
from knitter_common.model import Network, NetworkType, Port


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


@dataclass(frozen=True, slots=True)
class Mended:
    """What a repair did, a sentence each: `done` works again, `lost` needs its pod made anew."""

    done: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changed:
    """What later plugins of a chain made of an interface inside the pod, as the runtime tells it: its MAC ("": nothing told), its
    MTU in bytes (0: nothing told), and destinations of routes that are not told any more."""

    mac: str = ""
    mtu: int = 0
    routes: frozenset[str] = frozenset()


UNCHANGED = Changed()


class Driver(Protocol):
    """One network type."""

    def plan(self, port: Port, attachment: str) -> Wiring:
        """The whole intent for a port; pure. `attachment` is the attachment's key, from which unique names are derived.
        Raises Invalid(FIELD_INVALID) for a port that no kernel could have."""

    def follow(self, wiring: Wiring, network: Network) -> Wiring:
        """The wiring with what is the network's own on the node as the network is now; the port itself stays as it was made. Pure.
        Equal to the wiring where nothing differs."""

    def settle(self, kernel: Kernel, changes: Sequence[tuple[Wiring, Wiring]]) -> None:
        """Brings what networks have on the node from what the first wirings say to what the second ones say. May be repeated."""

    def attach(self, kernel: Kernel, sandbox: Namespace, wiring: Wiring) -> tuple[HostInterface, ...]:
        """Makes it, and returns what the CNI result tells of the node's side.

        Raises Exists(CNI_INTERFACE_EXISTS) where the sandbox has an interface of that name: then nothing of this wiring was made,
        the interface is untouched, and the caller must not `detach` this wiring (the link of its name on the node may be that
        interface's other end); it undoes only the wirings before it. After any other KnitterError `detach` undoes what was done.
        """

    def detach(self, kernel: Kernel, wirings: Sequence[Wiring]) -> None:
        """Undoes many at once, gathered so that the kernel's grace period is paid once. Missing is success; a link of that name
        that is not ours stays. The sandbox need not exist. What a network has on the node (its bridge) goes with its last port."""

    def check(self, kernel: Kernel, sandbox: Namespace, wiring: Wiring, changed: Changed = UNCHANGED) -> Sequence[str]:
        """What differs from the wiring as it was `changed` since, one sentence each that names the interface, the expected and the
        found value."""

    def repair(self, kernel: Kernel, wirings: Sequence[Wiring]) -> Mended:
        """Makes the node's side of these wirings whole again, for example after a restart of the host's network that removed the
        bridge (https://github.com/k8snetworkplumbingwg/multus-cni/issues/1008). Touches nothing that is as it should be."""
