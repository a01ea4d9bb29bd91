"""Tenants: quotas and rights, and a deletion that waits until the tenant's pods are gone.

Deleting marks the tenant; from then on it takes nothing new. `Undertaker` ends what is left of it in order, each time
something of it has ended: sets that nobody uses, claims, IP groups, networks, the tenant. A pod's ports are never taken from
it, however long it lives.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from knitter_common.convert import tenant_to_proto
from knitter_common.errors import Exists, KnitterError, NotFound, Refused
from knitter_common.model import ADMIN, NamedOwner, ObjectState, PortSetState, Quota, Tenant
from knitter_common.names import nearest
from knitter_common.objects.validate import validate_tenant
from knitter_manager import keys
from knitter_manager.allocation.sets import PortSets
from knitter_manager.objects.book import API, Book, check_change
from knitter_manager.objects.claims import Claims
from knitter_manager.objects.groups import Groups
from knitter_manager.objects.networks import Networks
from knitter_manager.records import port_set_of
from knitter_manager.state import TenantEntry

log = structlog.get_logger()


class Tenants:
    """`quota_of` tells a tenant's limits."""

    def __init__(self, book: Book, quota_of: Callable[[TenantEntry], Quota]) -> None:
        self._book, self._quota_of = book, quota_of

    def get(self, name: str) -> Tenant:
        """With what it uses. Raises NotFound(OBJECT_NOT_FOUND)."""
        entry = self._book.cluster.tenants.get(name)
        if entry is None or not is_there(entry):
            there = [other for other, entry in self._book.cluster.tenants.items() if is_there(entry)]
            raise NotFound("OBJECT_NOT_FOUND", f"there is no tenant {name!r}; {nearest(name, there)}", tenant=name)
        return shown(entry)

    async def create(self, wanted: Tenant) -> Tenant:
        """The tenant; one that is there in the same shape, or was made by being used, is fine. Raises Exists(OBJECT_EXISTS)."""
        asked = validate_tenant(wanted)

        async def step() -> Tenant:
            entry = self._book.cluster.tenant(asked.name)
            current = entry.tenant
            if current.revision and _shape(current) == _shape(asked):
                return shown(entry)
            if current.revision and _shape(current) != _shape(Tenant(asked.name)):
                raise Exists("OBJECT_EXISTS", f"tenant {asked.name} exists with other settings; update it", tenant=asked.name)
            self._refuse_below_use(entry, asked)
            made = replace(asked, create_time=current.create_time or self._book.wall(), source=asked.source or API)
            return await self._store(made, current.revision)

        return await self._book.change(step)

    async def update(self, wanted: Tenant) -> Tenant:
        """The whole tenant as it shall be. A quota below what is used is refused."""
        asked = validate_tenant(wanted)

        async def step() -> Tenant:
            self.get(asked.name)
            entry = self._book.cluster.tenant(asked.name)
            current = entry.tenant
            check_change(f"tenant {asked.name}", current, asked.revision, asked.source)
            self._refuse_below_use(entry, asked)
            if current.revision and _shape(current) == _shape(asked):
                return shown(entry)
            source = current.source or asked.source or API
            kept = replace(asked, state=current.state, create_time=current.create_time or self._book.wall(), source=source)
            return await self._store(kept, current.revision)

        return await self._book.change(step)

    async def delete(self, name: str, revision: int, source: str) -> Tenant | None:
        """Begins the deletion; None when there is no such tenant. Raises Refused(OBJECT_BUILT_IN)."""
        if name == ADMIN:
            raise Refused("OBJECT_BUILT_IN", f"tenant {ADMIN} is built in, and cannot be deleted", tenant=name)

        async def step() -> Tenant | None:
            entry = self._book.cluster.tenants.get(name)
            if entry is None or not is_there(entry):
                return None
            check_change(f"tenant {name}", entry.tenant, revision, source)
            if entry.tenant.state is ObjectState.DELETING:
                return shown(entry)
            return await self._store(replace(entry.tenant, state=ObjectState.DELETING), entry.tenant.revision)

        return await self._book.change(step)

    async def _store(self, tenant: Tenant, before: int) -> Tenant:
        key, value = keys.tenant(tenant.name), tenant_to_proto(replace(tenant, revision=0, used=Quota())).SerializeToString()
        await self._book.commit({key: before}, {key: value})
        return shown(self._book.cluster.tenant(tenant.name))

    def _refuse_below_use(self, entry: TenantEntry, asked: Tenant) -> None:
        """Also counts what is being allocated at this moment."""
        limit = self._quota_of(TenantEntry(asked))
        ports, addresses = entry.ports + entry.pending_ports, entry.addresses + entry.pending_addresses
        for what, most, used in (
            ("networks", limit.networks, entry.networks),
            ("ports", limit.ports, ports),
            ("addresses", limit.addresses, addresses),
        ):
            if most and used > most:
                said = f"quota.{what}: {most} is below the {used} that tenant {asked.name} holds; release some, or ask for more"
                raise Refused("OBJECT_IN_USE", said, field=f"quota.{what}", used=used)


class Undertaker:
    """Finishes the deletion of tenants, also those that an earlier writer began."""

    def __init__(
        self, book: Book, writing: asyncio.Event, sets: PortSets, claims: Claims, groups: Groups, networks: Networks
    ) -> None:
        self._book, self._writing = book, writing
        self._sets, self._claims, self._groups, self._networks = sets, claims, groups, networks

    async def run(self) -> None:
        """For ever, while this manager writes; wakes when something of such a tenant has ended."""
        cluster = self._book.cluster
        while True:
            await self._writing.wait()
            cluster.tenant_news.clear()
            for name in [name for name, entry in cluster.tenants.items() if entry.tenant.state is ObjectState.DELETING]:
                try:
                    await self.bury(name)
                except KnitterError as error:
                    log.info("a tenant cannot be deleted yet", tenant=name, reason=error.reason, why=error.message)
            try:
                async with asyncio.timeout(30):
                    await cluster.tenant_news.wait()
            except TimeoutError:
                continue

    async def bury(self, name: str) -> bool:
        """Ends what can be ended; whether nothing is left. Raises KnitterError for what stands in the way."""
        cluster, entry = self._book.cluster, self._book.cluster.tenant(name)
        for owner_key in list(entry.owners):
            if not _lives(cluster.sets[owner_key]):
                await self._sets.end_for_good(keys.owner_of(owner_key))
        if entry.owners:
            return False
        for claim in [claim for claim in cluster.claims.values() if claim.tenant == name]:
            await self._claims.delete(name, claim.name, 0, claim.source)
        for on in list(cluster.networks.values()):
            for group in [one.group for one in on.groups.values() if name in (one.group.tenant, on.network.tenant)]:
                await self._groups.delete(group.tenant, on.network.path, group.name, 0, group.source)
        for network in [one.network for one in cluster.networks.values() if one.network.tenant == name]:
            await self._networks.delete(name, network.name, 0, network.source)

        async def step() -> None:
            await self._book.commit({keys.tenant(name): entry.tenant.revision}, {}, [keys.tenant(name)])

        await self._book.change(step)
        log.info("a tenant is deleted", tenant=name)
        return True


def is_there(entry: TenantEntry) -> bool:
    """It was made, or it is the operator's, or it holds something."""
    return bool(entry.tenant.revision or entry.tenant.name == ADMIN or entry.owners or entry.networks or entry.addresses)


def shown(entry: TenantEntry) -> Tenant:
    """The tenant with what it uses."""
    return replace(entry.tenant, used=entry.used)


def _shape(tenant: Tenant) -> Tenant:
    """What people declare of it."""
    return replace(tenant, used=Quota(), state=ObjectState.ACTIVE, create_time=0, revision=0, source="")


def _lives(record: bytes) -> bool:
    """A pod, or a sandbox, has it; or a node has not given it back."""
    port_set = port_set_of(record)
    if port_set.binding is not None or port_set.state is PortSetState.LENT:
        return True
    return port_set.state is PortSetState.RESERVED and not isinstance(port_set.owner, NamedOwner)
