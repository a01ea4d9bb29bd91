"""An attachment as the journal keeps it: enough to undo it, to check it and to tell it, without asking anybody.

CNI specification 1.1.0, section 2: "Plugins ... must store state keyed by (network name, CNI_CONTAINERID, CNI_IFNAME)".
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from knitter_agent.drivers.protocol import Wiring


class Key(NamedTuple):
    """An attachment's identity."""

    network: str
    container_id: str
    interface: str

    def __str__(self) -> str:
        """For names derived from it, and for logs."""
        return f"{self.container_id}/{self.network}/{self.interface}"


class State(enum.IntEnum):
    """Where an attachment is in its life; values are the contract's AttachmentState."""

    ATTACHING = 1
    ATTACHED = 2
    DETACHING = 3


@dataclass(frozen=True, slots=True)
class Delegation:
    """One call of another plugin that made something of this attachment; `conf` is its whole configuration."""

    conf: Mapping[str, Any]
    interface: str


@dataclass(frozen=True, slots=True)
class Record:
    """`port_set` is a serialized knitter.v1.PortSet, b"" when nothing was allocated. `time` in nanoseconds since 1970.

    `cookie` is the SO_NETNS_COOKIE of the namespace at `netns` when it was opened. `result` is the primary interface's, in the
    shape of knitter_agent.cni.result; with `cniVersion` where another plugin made it. `attempts` counts the undos that failed at a
    delegate. `answered` is written late: a record without it may be of an ADD whose answer nobody got.
    """

    key: Key
    state: State
    netns: str
    cookie: int
    time: int
    port_set: bytes = b""
    wirings: tuple[Wiring, ...] = ()
    delegations: tuple[Delegation, ...] = ()
    result: Mapping[str, Any] | None = None
    args: str = ""
    path: str = ""
    attempts: int = 0
    answered: bool = False
