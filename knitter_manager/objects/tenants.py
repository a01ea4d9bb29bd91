"""Tenants: quotas and rights, and a deletion that waits until the tenant's pods are gone.

Deleting marks the tenant; from then on it takes nothing new. As long as a pod lives in it, or somebody else is on one of its
networks, nothing of it is touched. Once there is nobody, `Undertaker` ends it in this order: IP groups, port sets and claims that
nobody uses, networks, the tenant. Where they stay for too long, the deletion is given up and the tenant is as before: a pod's
ports are never taken from it.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import structlog

from knitter_common.convert import tenant_to_proto
from knitter_common.errors import Exists, KnitterError, NotFound, Refused
from knitter_common.model import ADMIN, ObjectState, Quota, Tenant
from knitter_common.names import nearest
from knitter_common.objects.validate import validate_tenant
from knitter_manager import keys
from knitter_manager.allocation.ending import lives
from knitter_manager.allocation.sets import PortSets
from knitter_manager.objects.book import API, Book, check_change
from knitter_manager.objects.claims import Claims
from knitter_manager.objects.groups import Groups
from knitter_manager.objects.networks import Networks
from knitter_manager.records import port_set_of
from knitter_manager.state import Cluster, GroupEntry, NetworkEntry, TenantEntry
from knitter_manager.store.protocol import StoreDown

log = structlog.get_logger()

_NAMED = 3  # owners that are named
_TOGETHER = 100  # port sets that are ended at a time
_TOLD = ("quota", "allowed_types", "allowed_physical_networks", "description", "labels")  # what a declaration says beside its name


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
        return self.shown(entry)

    def shown(self, entry: TenantEntry) -> Tenant:
        """With what it uses, and who is in the way of its deletion."""
        return shown(self._book.cluster, entry)

    async def create(self, wanted: Tenant) -> Tenant:
        """The tenant; one that is there in the same shape, or was made by being used, is fine. Raises Exists(OBJECT_EXISTS)."""
        asked = validate_tenant(wanted)

        async def step() -> Tenant:
            entry = self._book.cluster.tenant(asked.name)
            current, entry.coming = entry.tenant, None  # what was not answered before is known by now
            if current.state is ObjectState.DELETING:
                raise Refused("OBJECT_DELETING", f"tenant {asked.name} is being deleted; make it again then", tenant=asked.name)
            if current.revision and _shape(current) == _shape(asked):
                return self.shown(entry)
            if current.revision and _shape(current) != _shape(Tenant(asked.name)):
                raise Exists("OBJECT_EXISTS", f"tenant {asked.name} exists with other settings; update it", tenant=asked.name)
            made = replace(current, create_time=current.create_time or self._book.wall(), source=asked.source or API)
            return await self._limited(entry, _declared(made, asked))

        return await self._book.change(step)

    async def update(self, wanted: Tenant) -> Tenant:
        """The whole tenant as it shall be. A quota below what is used is refused."""
        asked = validate_tenant(wanted)

        async def step() -> Tenant:
            self.get(asked.name)
            entry = self._book.cluster.tenant(asked.name)
            current, entry.coming = entry.tenant, None  # what was not answered before is known by now
            check_change(f"tenant {asked.name}", current, asked.revision, asked.source)
            if current.revision and _shape(current) == _shape(asked):
                return self.shown(entry)
            source = current.source or asked.source or API
            after = replace(current, create_time=current.create_time or self._book.wall(), source=source)
            return await self._limited(entry, _declared(after, asked))

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
                return self.shown(entry)
            deleted = replace(entry.tenant, state=ObjectState.DELETING, delete_time=self._book.wall(), in_the_way="")
            return await self._store(deleted)

        return await self._book.change(step)

    async def _limited(self, entry: TenantEntry, after: Tenant) -> Tenant:
        """Stores it, unless a quota is below what is used. While the store has not answered nobody is given more than that; if it
        never answers, until it tells of the tenant, or the tenant is changed again."""
        entry.coming = after
        try:
            self._refuse_below_use(entry, after)
            return await self._store(after)
        except StoreDown:
            raise
        except BaseException:
            entry.coming = None
            raise

    async def _store(self, tenant: Tenant) -> Tenant:
        await _store(self._book, tenant)
        return self.shown(self._book.cluster.tenant(tenant.name))

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
    """Finishes the deletion of tenants, also those that an earlier writer began. `wait` is how long a tenant's pods are waited for,
    in seconds; then its deletion is given up."""

    def __init__(
        self,
        book: Book,
        writing: asyncio.Event,
        sets: PortSets,
        claims: Claims,
        groups: Groups,
        networks: Networks,
        wait: float,
    ) -> None:
        self._book, self._writing, self._wait = book, writing, int(wait * 1e9)
        self._sets, self._claims, self._groups, self._networks = sets, claims, groups, networks

    async def run(self) -> None:
        """For ever, while this manager writes; wakes when something of such a tenant has ended."""
        cluster = self._book.cluster
        while True:
            await self._writing.wait()
            cluster.tenant_news.clear()
            for name in self._deleting():
                try:
                    await self.bury(name)
                except KnitterError as error:
                    log.info("a tenant cannot be deleted yet", tenant=name, reason=error.reason, why=error.message)
            try:
                async with asyncio.timeout(self._patience()):
                    await cluster.tenant_news.wait()
            except TimeoutError:
                continue

    def _deleting(self) -> list[str]:
        return [name for name, entry in self._book.cluster.tenants.items() if entry.tenant.state is ObjectState.DELETING]

    def _patience(self) -> float:
        """Until the next deletion is to be given up, in seconds, and never long: what stands in the way may end unheard."""
        now = self._book.wall()
        ends = [self._end_of(self._book.cluster.tenant(name).tenant) for name in self._deleting()]
        return min([30.0, *(max((end - now) / 1e9, 0.05) for end in ends)])

    def _end_of(self, tenant: Tenant) -> int:
        return tenant.delete_time + self._wait

    async def bury(self, name: str) -> bool:
        """Ends the tenant if nobody lives in it, whole and in order; whether it is gone. Raises KnitterError for what stands in
        the way all of a sudden."""
        cluster, entry = self._book.cluster, self._book.cluster.tenant(name)
        if said := in_the_way(cluster, name):
            if self._book.wall() >= self._end_of(entry.tenant):
                await self._give_up(name, said)
            return False
        for group in [group for on in cluster.networks.values() for group in on.groups.values() if _ends_with(name, on, group)]:
            await self._groups.dissolve(group)
        owners = [keys.owner_of(owner_key) for owner_key in entry.owners]
        for begin in range(0, len(owners), _TOGETHER):
            await asyncio.gather(*(self._sets.end_for_good(owner) for owner in owners[begin : begin + _TOGETHER]))
        if entry.owners:
            return False
        for claim in [claim for claim in cluster.claims.values() if claim.tenant == name]:
            await self._claims.delete(name, claim.name, 0, claim.source)
        for network in [one.network for one in cluster.networks.values() if one.network.tenant == name]:
            await self._networks.delete(name, network.name, 0, network.source)

        async def step() -> None:
            await self._book.commit({keys.tenant(name): entry.tenant.revision}, {}, [keys.tenant(name)])

        await self._book.change(step)
        log.info("a tenant is deleted", tenant=name)
        return True

    async def _give_up(self, name: str, said: str) -> None:
        why = f"its deletion was given up after {self._wait / 1e9:g} s: {said}"

        async def step() -> None:
            tenant = self._book.cluster.tenant(name).tenant
            if tenant.state is ObjectState.DELETING:
                await _store(self._book, replace(tenant, state=ObjectState.ACTIVE, delete_time=0, in_the_way=why))

        await self._book.change(step)
        log.warning("a tenant is not deleted", tenant=name, why=why)


def in_the_way(cluster: Cluster, name: str) -> str:
    """Who keeps a tenant from being deleted: whose ports live in it, who else is on its networks. Names three; "" for nobody."""
    found = list(itertools.islice(_hindrances(cluster, name), _NAMED + 1))
    named = sorted(keys.said(owner_key) for owner_key in found)
    return ", ".join(named[:_NAMED]) + (", and others" if len(named) > _NAMED else "")


def _hindrances(cluster: Cluster, name: str) -> Iterator[str]:
    """Keys of owners, in no order."""
    own = cluster.tenant(name).owners
    yield from (owner_key for owner_key in own if lives(port_set_of(cluster.sets[owner_key])))
    for entry in cluster.networks.values():
        if entry.network.tenant == name:
            claims = cluster.claims
            yield from (key for key in entry.owners - own if key not in claims or claims[key].tenant != name)


def _ends_with(name: str, entry: NetworkEntry, group: GroupEntry) -> bool:
    """A group ends with its tenant, and with the tenant of its network."""
    return name in (group.group.tenant, entry.network.tenant)


def is_there(entry: TenantEntry) -> bool:
    """It was made, or it is the operator's, or it holds something."""
    return bool(entry.tenant.revision or entry.tenant.name == ADMIN or entry.owners or entry.networks or entry.addresses)


def shown(cluster: Cluster, entry: TenantEntry) -> Tenant:
    """The tenant with what it uses, and who is in the way of its deletion."""
    tenant = replace(entry.tenant, used=entry.used)
    if tenant.state is ObjectState.DELETING:
        return replace(tenant, in_the_way=in_the_way(cluster, tenant.name))
    return tenant


async def _store(book: Book, tenant: Tenant) -> None:
    """In the place of what it is now."""
    stored = tenant_to_proto(replace(tenant, revision=0, used=Quota()))
    await book.commit({keys.tenant(tenant.name): tenant.revision}, {keys.tenant(tenant.name): stored.SerializeToString()})


def _declared(current: Tenant, asked: Tenant) -> Tenant:
    """The current tenant with what people declare of it."""
    told: dict[str, Any] = {name: getattr(asked, name) for name in _TOLD}
    return replace(current, **told)


def _shape(tenant: Tenant) -> list[object]:
    """What people declare of it."""
    return [getattr(tenant, name) for name in _TOLD]
