"""What one operation is going to commit, and what it holds in memory until the store has answered."""

from dataclasses import dataclass, field

from knitter_common.errors import KnitterError
from knitter_manager.ipam.space import Space, Taken
from knitter_manager.state import NetworkEntry, TenantEntry


@dataclass(slots=True, eq=False)
class Plan:
    """`conditions` maps a key to the revision it must be at, 0 for absent. `settle` or `undo` must be called once, exactly one
    of them."""

    conditions: dict[str, int] = field(default_factory=dict)
    puts: dict[str, bytes] = field(default_factory=dict)
    deletes: list[str] = field(default_factory=list)
    taken: list[tuple[Space, Taken]] = field(default_factory=list)
    networks: list[NetworkEntry] = field(default_factory=list)
    tenant: TenantEntry | None = None
    ports: int = 0
    addresses: int = 0
    failure: KnitterError | None = None  # what the caller is told once this is durable

    def read(self, entry: NetworkEntry) -> None:
        """The plan follows from this network's shape; the network cannot go while the plan is under way."""
        entry.pending += 1
        self.networks.append(entry)
        self.conditions[entry.key] = entry.network.revision

    def charge(self, tenant: TenantEntry, ports: int, addresses: int) -> None:
        """Counts what the tenant will hold in addition."""
        self.tenant, self.ports, self.addresses = tenant, ports, addresses
        tenant.pending_ports += ports
        tenant.pending_addresses += addresses

    def settle(self) -> None:
        """The commit is done, and the state has it."""
        for entry in self.networks:
            entry.pending -= 1
        if self.tenant is not None:
            self.tenant.pending_ports -= self.ports
            self.tenant.pending_addresses -= self.addresses

    def undo(self) -> None:
        """The commit was not done: everything is as it was before the plan."""
        for space, taken in reversed(self.taken):
            space.undo(taken)
        self.settle()
