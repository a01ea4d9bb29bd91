"""The whole state, and how records of the store change it. The only place that writes to the indices; nobody plans here."""

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from knitter.v1 import types_pb2 as types
from knitter_common.convert import ip_claim_from_proto, ip_group_from_proto, network_from_proto, node_from_proto, tenant_from_proto
from knitter_common.model import ADMIN, IPClaim, Node, ObjectState, Tenant
from knitter_manager.records import Holding, holding_of, kept, message_of
from knitter_manager.state.entries import NetworkEntry, NodeEntry, TenantEntry
from knitter_manager.state.loading import Loading
from knitter_manager.state.names import Names
from knitter_manager.state.order import Order
from knitter_manager.store.protocol import Commit, Record


class Cluster:
    """One event loop uses it. `now` is the monotonic clock in seconds, for rests."""

    def __init__(self, default_network: str) -> None:
        self.epoch = ""
        self.revision = 0  # everything up to here has been applied
        self.networks: dict[str, NetworkEntry] = {}
        self.names = Names(default_network)
        self.tenants: dict[str, TenantEntry] = {ADMIN: TenantEntry(Tenant(ADMIN))}
        self.nodes: dict[str, NodeEntry] = {}
        self.sets: dict[str, bytes] = {}  # owner's key → records.kept
        self.order = Order(self.sets)
        self.claims: dict[str, IPClaim] = {}  # by key of the store
        self.sticky: dict[str, str] = {}  # "namespace/name" of a pod that keeps its addresses → key of the owner that has them
        self.kept: dict[str, int] = {}  # owners of kept sets → when they end
        self.vids: dict[str, Record] = {}  # segmentation ids by key of the store
        self.owed: dict[str, int] = {}  # nodes that are gone and may still carry a network, by key of the store
        self.tenant_news = asyncio.Event()  # somebody has left a tenant that is being deleted, or a tenant has changed
        self.meta: dict[str, Record] = {}
        self._own: set[int] = set()  # revisions applied before the feed told them
        self._done = 0  # the newest of them

    # -- reading the store ---------------------------------------------------------------------------------------------

    async def load(self, epoch: str, revision: int, batches: AsyncIterator[Sequence[Record]], now: float) -> None:
        """Reads a snapshot into an empty state."""
        loading = Loading(self, now)
        collecting = gc.isenabled()
        gc.disable()  # nothing of it is garbage: looking for some takes a quarter of the time
        try:
            async for batch in batches:
                await loading.take(batch)
            await loading.finish()
        finally:
            if collecting:
                gc.enable()
        self.epoch, self.revision = epoch, revision

    @property
    def settled(self) -> bool:
        """The feed has told every commit of this process that is applied."""
        return not self._own

    def become(self, other: "Cluster") -> None:
        """Everything is as in the other one, which was loaded anew; whoever waits looks again."""
        news = self.tenant_news
        vars(self).update(vars(other))
        news.set()

    def told(self, commit: Commit, now: float) -> None:
        """The next commit of the feed."""
        if commit.revision in self._own:
            self._own.discard(commit.revision)
        elif commit.revision > self.revision:
            self._apply(commit.revision, commit.puts, commit.deletes, now)
        self.revision = max(self.revision, commit.revision)

    def did(self, revision: int, puts: Mapping[str, bytes], deletes: Sequence[str], now: float) -> None:
        """A commit of this process, known before the feed tells it."""
        if revision > self.revision and revision not in self._own:
            self._own.add(revision)
            self._done = max(self._done, revision)
            self._apply(revision, puts, deletes, now)

    def _apply(self, revision: int, puts: Mapping[str, bytes], deletes: Sequence[str], now: float) -> None:
        for key in deletes:
            if key.startswith("mac/"):
                continue
            self._delete(key)
        for key, value in puts.items():
            if key.startswith("mac/"):
                continue
            self.put(key, value, revision, now)

    @property
    def seen(self) -> int:
        """The newest revision that the store is known to have reached."""
        return max(self.revision, self._done)

    def refresh(self, key: str, record: Record | None, at: int, now: float) -> None:
        """What the store had at a key, at the revision `at`, where it was not what was expected. Nothing where this state has come
        as far already, or knows of anything that came after."""
        if self.revision >= at or any(own > at for own in self._own):
            return
        if record is None:
            self._delete(key)
        else:
            self.put(key, record.value, record.revision, now)

    def end_set(self, owner_key: str, revision: int) -> None:
        """A set is gone, if it is still the one of that revision."""
        record = self.sets.get(owner_key)
        if record is not None and message_of(record).revision == revision:
            self._drop_set(owner_key)

    # -- one record ----------------------------------------------------------------------------------------------------

    def put(self, key: str, value: bytes, revision: int, now: float) -> None:
        """What the store has at a key now."""
        family, _, rest = key.partition("/")
        match family:
            case "portset":
                self._put_set(rest, value, revision)
            case "addr":
                self._put_address(rest, value, revision, now)
            case "network":
                self._put_network(rest, value, revision)
            case "tenant":
                tenant = replace(tenant_from_proto(types.Tenant.FromString(value)), revision=revision)
                entry_of_tenant = self.tenant(rest)
                entry_of_tenant.tenant, entry_of_tenant.coming = tenant, None
                self.tenant_news.set()
            case "node":
                self.node(rest).node = replace(node_from_proto(types.Node.FromString(value)), revision=revision)
            case "group":
                group = replace(ip_group_from_proto(types.IPGroup.FromString(value)), revision=revision)
                entry = self.networks.get(rest.partition("/")[0])
                if entry is not None:
                    entry.put_group(key, group)
            case "claim":
                self._drop_claim(key)
                claim = replace(ip_claim_from_proto(types.IPClaim.FromString(value)), revision=revision)
                self.claims[key] = claim
                self._count_claim(key, claim, 1)
            case "vid":
                self.vids[key] = Record(key, value, revision)
            case "owed":
                self.owed[key] = revision
            case "meta":
                self.meta[key] = Record(key, value, revision)

    def _delete(self, key: str) -> None:
        family, _, rest = key.partition("/")
        match family:
            case "portset":
                self._drop_set(rest)
            case "addr":
                self._drop_address(rest)
            case "network":
                entry = self.networks.pop(rest, None)
                if entry is not None:
                    self.names.drop(entry.network.path)
                    self.tenant(entry.network.tenant).networks -= 1
            case "tenant":
                self.tenant(rest).tenant = Tenant(rest)
            case "node":
                self.node(rest).node = Node(rest)
            case "group":
                entry = self.networks.get(rest.partition("/")[0])
                if entry is not None:
                    entry.drop_group(key)
            case "claim":
                self._drop_claim(key)
            case "vid":
                self.vids.pop(key, None)
            case "owed":
                self.owed.pop(key, None)
            case "meta":
                self.meta.pop(key, None)

    def _put_network(self, network_id: str, value: bytes, revision: int) -> None:
        network = replace(network_from_proto(types.Network.FromString(value)), revision=revision)
        entry = self.networks.get(network_id)
        if entry is None:
            entry = self.networks[network_id] = NetworkEntry(network)
            self.tenant(network.tenant).networks += 1
        elif entry.network.revision < revision:
            self.names.drop(entry.network.path)
            entry.reshape(network)
        self.names.put(entry)

    def _put_address(self, rest: str, value: bytes, revision: int, now: float) -> None:
        network_id, _, text = rest.partition("/")
        entry = self.networks.get(network_id)
        found = entry.space_of(text) if entry is not None else None
        if found is None:
            return
        if value:
            found[0].hold(found[1])
        else:
            found[0].rest(found[1], now, revision)

    def _drop_address(self, rest: str) -> None:
        network_id, _, text = rest.partition("/")
        entry = self.networks.get(network_id)
        found = entry.space_of(text) if entry is not None else None
        if found is not None:
            found[0].unmark(found[1])

    def _put_set(self, owner_key: str, value: bytes, revision: int) -> None:
        record = kept(value, revision)
        holding = holding_of(record)
        old = self.sets.get(owner_key)
        if old is None:
            self.order.added(owner_key)
        else:
            before = holding_of(old)
            if before == holding:
                self.sets[owner_key] = record
                return
            self._forget(owner_key, before)
        self.sets[owner_key] = record
        self._enter(owner_key, holding)

    def _enter(self, owner_key: str, holding: Holding) -> None:
        tenant_name, node_name, networks, ports, addresses, sticky, expires = holding
        tenant = self.tenants.get(tenant_name) or self.tenant(tenant_name)
        tenant.ports += ports
        tenant.addresses += addresses
        tenant.owners.add(owner_key)
        if node_name:
            node = self.nodes.get(node_name) or self.node(node_name)
            node.ports += ports
            node.addresses += addresses
            node.owners.add(owner_key)
        if sticky:
            self.sticky[sticky] = owner_key
        if expires:
            self.kept[owner_key] = expires
        for network_id in networks:
            entry = self.networks.get(network_id)
            if entry is not None:
                entry.owners.add(owner_key)
                entry.sets += 1

    def put_sets(self, records: Sequence[Record]) -> None:
        """The next sets of a snapshot, whose owners are not known yet, in order of key."""
        owner_keys = [key[8:] for key, _, _ in records]
        self.order.follow(owner_keys)
        sets, enter = self.sets, self._enter
        for owner_key, (_, value, revision) in zip(owner_keys, records, strict=True):
            sets[owner_key] = kept(value, revision)
            enter(owner_key, holding_of(value))

    def _drop_set(self, owner_key: str) -> None:
        record = self.sets.pop(owner_key, None)
        if record is not None:
            self._forget(owner_key, holding_of(record))

    def _forget(self, owner_key: str, holding: Holding) -> None:
        tenant = self.tenant(holding.tenant)
        tenant.ports -= holding.ports
        tenant.addresses -= holding.addresses
        tenant.owners.discard(owner_key)
        self._was_left(holding.tenant)
        if holding.node:
            node = self.node(holding.node)
            node.owners.discard(owner_key)
            node.ports -= holding.ports
            node.addresses -= holding.addresses
        if holding.sticky and self.sticky.get(holding.sticky) == owner_key:
            del self.sticky[holding.sticky]
        self.kept.pop(owner_key, None)
        for network_id in holding.networks:
            entry = self.networks.get(network_id)
            if entry is not None:
                entry.owners.discard(owner_key)
                entry.sets -= 1
                self._was_left(entry.network.tenant)

    def _was_left(self, tenant_name: str) -> None:
        """Somebody has left a tenant or a network of its."""
        if self.tenant(tenant_name).tenant.state is ObjectState.DELETING:
            self.tenant_news.set()

    def _drop_claim(self, key: str) -> None:
        claim = self.claims.pop(key, None)
        if claim is not None:
            self._count_claim(key, claim, -1)

    def _count_claim(self, key: str, claim: IPClaim, sign: int) -> None:
        self.tenant(claim.tenant).addresses += sign * len(claim.addresses)
        entry = self.names.at(claim.network)
        if entry is not None:
            (entry.owners.add if sign > 0 else entry.owners.discard)(key)
            self._was_left(entry.network.tenant)

    # -- entries that are made when they are first named -----------------------------------------------------------------

    def tenant(self, name: str) -> TenantEntry:
        """The tenant's entry, also when it was never made."""
        entry = self.tenants.get(name)
        if entry is None:
            entry = self.tenants[name] = TenantEntry(Tenant(name))
        return entry

    def node(self, name: str) -> NodeEntry:
        """The node's entry, also when it never registered."""
        entry = self.nodes.get(name)
        if entry is None:
            entry = self.nodes[name] = NodeEntry(Node(name))
        return entry
