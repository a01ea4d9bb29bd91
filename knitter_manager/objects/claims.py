"""Claims: addresses with a life of their own, for virtual machines and services (NPWG IPAMClaim).

A claim holds its addresses and its MAC from its making to its end; a port set only uses them, one set at a time
(allocation/claiming.py).
"""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

from knitter_common.errors import Denied, Exists, NotFound, Refused
from knitter_common.model import ADMIN, IPClaim, ObjectState, Wish
from knitter_common.names import nearest
from knitter_common.objects.validate import validate_ip_claim
from knitter_manager import keys
from knitter_manager.allocation.asker import Asker
from knitter_manager.allocation.claiming import stored_claim
from knitter_manager.allocation.held import HeldBy
from knitter_manager.allocation.plan import Plan
from knitter_manager.allocation.planner import Planner
from knitter_manager.labels import matches, shown
from knitter_manager.objects.book import API, Book, check_change
from knitter_manager.objects.holders import Holders
from knitter_manager.state import NetworkEntry
from knitter_manager.store.protocol import Conflict, Store


class Claims:
    """Made, changed while nobody uses them, deleted."""

    def __init__(self, book: Book, store: Store, planner: Planner) -> None:
        self._book, self._holders, self._planner = book, Holders(store), planner

    def get(self, tenant: str, name: str) -> IPClaim:
        """Raises NotFound(OBJECT_NOT_FOUND)."""
        tenant = tenant or ADMIN
        claim = self._book.cluster.claims.get(keys.claim(tenant, name))
        if claim is None:
            others = [other.name for other in self._book.cluster.claims.values() if other.tenant == tenant]
            way = nearest(name, others) if others else "it has none yet"
            raise NotFound("OBJECT_NOT_FOUND", f"tenant {tenant} has no claim {name!r}; {way}", ip_claim=name, tenant=tenant)
        return claim

    async def create(self, wanted: IPClaim) -> IPClaim:
        """The new claim with its addresses, or the one that is there in the same shape.

        Raises Exists(OBJECT_EXISTS), Refused(ADDRESS_TAKEN | MAC_TAKEN), Invalid(ADDRESS_UNUSABLE), Exhausted(POOL_EXHAUSTED |
        QUOTA_EXCEEDED).
        """
        asked = validate_ip_claim(wanted)
        tries = _Tries(self._holders, asked)
        return await self._book.change(lambda: tries.run(lambda: self._create(asked, tries.generated)))

    async def _create(self, asked: IPClaim, attempt: int) -> IPClaim:
        entry = self._network(asked)
        asked = replace(asked, network=entry.network.path)
        key = keys.claim(asked.tenant, asked.name)
        present = self._book.cluster.claims.get(key)
        if present is not None:
            other = differences(present, asked)
            if not other:
                return present
            said = f"{_said(present)} exists with another {' and '.join(other)}; update it, or choose another name"
            raise Exists("OBJECT_EXISTS", said, ip_claim=asked.name, fields=",".join(other))
        made = replace(asked, used_by=None, create_time=self._book.wall(), source=asked.source or API)
        plan = Plan()
        try:
            self._planner.ensure_tenant(plan, asked.tenant)
            made = self._with_addresses(plan, entry, made, None, attempt)
            return await self._store(plan, made, 0)
        except BaseException:
            plan.undo()
            raise

    async def update(self, wanted: IPClaim) -> IPClaim:
        """The claim as it is now; addresses that still fit stay. Raises Refused(OBJECT_IN_USE) while it is used."""
        asked = validate_ip_claim(wanted)
        tries = _Tries(self._holders, asked)
        return await self._book.change(lambda: tries.run(lambda: self._update(asked, tries.generated)))

    async def _update(self, asked: IPClaim, attempt: int) -> IPClaim:
        current = self.get(asked.tenant, asked.name)
        check_change(_said(current), current, asked.revision, asked.source)
        entry = self._network(asked)
        asked = replace(asked, network=entry.network.path)
        if not differences(current, asked):
            return current
        _refuse_used(current, "end that first")
        after = replace(asked, used_by=None, create_time=current.create_time, source=current.source)
        plan = Plan()
        try:
            after = self._with_addresses(plan, entry, after, current, attempt)
            self._let_go(plan, current, after)
            return await self._store(plan, after, current.revision)
        except BaseException:
            plan.undo()
            raise

    async def delete(self, tenant: str, name: str, revision: int, source: str) -> None:
        """Missing is success; its addresses rest. Raises Refused(OBJECT_IN_USE) while it is used."""
        await self._book.change(lambda: self._delete(tenant or ADMIN, name, revision, source))

    async def _delete(self, tenant: str, name: str, revision: int, source: str) -> None:
        key = keys.claim(tenant, name)
        current = self._book.cluster.claims.get(key)
        if current is None:
            return
        check_change(_said(current), current, revision, source)
        _refuse_used(current, "it cannot be deleted")
        plan = Plan(conditions={key: current.revision}, deletes=[key])
        self._let_go(plan, current, None)
        await self._book.commit(plan.conditions, plan.puts, plan.deletes)

    async def _store(self, plan: Plan, claim: IPClaim, before: int) -> IPClaim:
        key = keys.claim(claim.tenant, claim.name)
        plan.conditions[key] = before
        plan.puts[key] = stored_claim(claim)
        await self._book.commit(plan.conditions, plan.puts, plan.deletes)
        plan.settle()
        return self._book.cluster.claims[key]

    # -- addresses ---------------------------------------------------------------------------------------------------------

    def _network(self, asked: IPClaim) -> NetworkEntry:
        """The network that a claim names, if its tenant may use it. Raises NotFound, Denied, Refused(OBJECT_DELETING)."""
        cluster = self._book.cluster
        entry = cluster.names.find(asked.tenant, asked.network, "network")
        path, usability = entry.network.path, entry.network.usable_by
        if entry.network.state is ObjectState.DELETING:
            raise Refused("OBJECT_DELETING", f"network {path} is being deleted", network=path)
        selector = usability.namespaces if usability is not None else None
        if selector is not None and not matches(selector, cluster.tenant(asked.tenant).tenant.labels):
            said = f"network: {path} is for namespaces with labels {shown(selector)}, and tenant {asked.tenant} has not"
            raise Denied("TENANT_DENIED", said, network=path, tenant=asked.tenant)
        return entry

    def _with_addresses(self, plan: Plan, entry: NetworkEntry, claim: IPClaim, before: IPClaim | None, attempt: int) -> IPClaim:
        """The claim with what it takes. Raises KnitterError or HeldBy."""
        plan.read(entry)
        key = keys.claim(claim.tenant, claim.name)
        asker = Asker(self._book.cluster, claim.tenant, {}, "")
        source = self._planner.addresses(plan, entry, key, _said(claim), asker)
        kept: Collection[str] = ()
        kept_mac = ""
        if before is not None and self._book.cluster.names.at(before.network) is entry:
            kept, kept_mac = [one.cidr.partition("/")[0] for one in before.addresses], before.mac
        wish = Wish(addresses=claim.wanted_addresses, mac=claim.mac)
        addresses = source.take(wish, kept, None)
        _, mac = source.identity(wish, claim.interface, kept_mac, attempt)
        had = len(before.addresses) if before is not None else 0
        self._planner.charge(plan, claim.tenant, 0, len(addresses) - had)
        return replace(claim, addresses=addresses, mac=mac)

    def _let_go(self, plan: Plan, before: IPClaim, after: IPClaim | None) -> None:
        """What the claim held and does not hold any more: addresses rest, the MAC is free."""
        entry = self._book.cluster.names.at(before.network)
        if entry is None:
            return
        stay = {one.cidr for one in after.addresses} if after is not None and after.network == before.network else set()
        for one in before.addresses:
            if one.cidr not in stay:
                plan.puts[keys.address(entry.network.id, one.cidr.partition("/")[0])] = b""
        same = after is not None and after.network == before.network and after.mac == before.mac
        mac = keys.mac(entry.segment, before.mac)
        if before.mac and not same:
            if mac in plan.puts:  # it moves to another network of the same segment
                plan.conditions.pop(mac, None)
            else:
                plan.deletes.append(mac)


class _Tries:
    """Runs a step again with another generated MAC where one is taken, and names who has what was wanted."""

    def __init__(self, holders: Holders, asked: IPClaim) -> None:
        self._holders, self._asked = holders, asked
        self.generated = 0

    async def run(self, step: Callable[[], Awaitable[IPClaim]]) -> IPClaim:
        """Raises what the step raises; Conflict for Book to try again."""
        try:
            return await step()
        except HeldBy as held:
            raise held.error(await self._holders.said(held.key)) from None
        except Conflict as conflict:
            if conflict.key.startswith(keys.MAC) and conflict.current is not None:
                if self._asked.mac:
                    who = keys.said(conflict.current.value.decode())
                    said = f"mac: {self._asked.mac} of network {self._asked.network} is that of {who}"
                    raise Refused("MAC_TAKEN", said, mac=self._asked.mac, field="mac") from conflict
                self.generated += 1
            raise


def differences(current: IPClaim, asked: IPClaim) -> list[str]:
    """The fields in which what is asked for is another claim of that name; a MAC that is not asked for is the manager's to
    choose."""
    names = ["network", "interface", "wanted_addresses", *(["mac"] if asked.mac else [])]
    return [name for name in names if getattr(current, name) != getattr(asked, name)]


def _said(claim: IPClaim) -> str:
    return f"claim {claim.tenant}/{claim.name}"


def _refuse_used(claim: IPClaim, why: str) -> None:
    if claim.used_by is not None:
        said = f"{_said(claim)} is used by {keys.said(claim.used_by.key)}; {why}"
        raise Refused("OBJECT_IN_USE", said, ip_claim=claim.name, owner=claim.used_by.key)
