"""What the verbs work with; tests hand in others."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from knitter_agent.attachment.background import Background
from knitter_agent.attachment.delegates import Delegates
from knitter_agent.attachment.locks import NamedLocks
from knitter_agent.drivers import Driver, driver_for
from knitter_agent.journal import Journal
from knitter_agent.manager_client import Granted
from knitter_agent.netlink import Namespace
from knitter_agent.record import Record
from knitter_agent.worker import KernelWorker
from knitter_common.model import Allocation, NetworkType, Return


class Allocator(Protocol):
    """What of the manager an attachment needs (knitter_agent.manager_client.ManagerClient)."""

    async def allocate(self, allocation: Allocation, patience: float) -> Granted:
        """The set for an owner."""

    async def release(self, back: Return) -> None:
        """Gives a set up; returns when that is acknowledged."""


@dataclass(frozen=True)
class Tools:
    """`patience` is how long an ADD waits for the manager, in seconds; `clock` gives nanoseconds since 1970.

    `changed` is told of every attachment that is done (state ATTACHED) and that is gone (state DETACHING).
    """

    node: str
    journal: Journal
    worker: KernelWorker
    manager: Allocator
    delegates: Delegates
    patience: float = 10.0
    default_network: str = ""
    drivers: Callable[[NetworkType], Driver] = driver_for
    open_namespace: Callable[[str], Namespace] = Namespace
    clock: Callable[[], int] = time.time_ns
    changed: Callable[[Record], None] = lambda _: None
    locks: NamedLocks = field(default_factory=NamedLocks)
    background: Background = field(default_factory=Background)
    second_worker: KernelWorker | None = None

    @property
    def remover(self) -> KernelWorker:
        """The worker for what undoes and repairs: an ADD shall not wait for it, deleting links takes the kernel 16 ms and more."""
        return self.second_worker or self.worker
