"""The first look: what can be judged while the store is read, and in which buckets records and owners differ (fingerprint.py)."""

from collections.abc import Iterator

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.model import IPClaim
from knitter_manager import keys
from knitter_manager.check.counters import Counting
from knitter_manager.check.fingerprint import Fingerprint
from knitter_manager.check.reading import Reading, Shape, holder_of
from knitter_manager.objects.segments import space_of
from knitter_manager.records import kept, message_of
from knitter_manager.state import Cluster
from knitter_manager.store.protocol import Record


class Survey(Reading):
    """`cluster` is what this manager knows. `counting` counts along, where the memory stood still when the snapshot was taken."""

    def __init__(self, cluster: Cluster, counting: Counting | None) -> None:
        super().__init__()
        self._cluster, self._counting = cluster, counting
        self._left = Fingerprint()
        self._told: list[pb.Finding] = []
        self._odd: list[tuple[str, int]] = []  # records of rests whose place may be gone
        self._users: dict[str, str] = {}  # claims by key → the record of the set that uses it
        self.addresses = self.macs = self.sets = 0
        self.unlike: list[str] = []  # owners whose sets the memory has otherwise, as it seemed

    @property
    def differing(self) -> list[int]:
        """The buckets of keys in which records and owners differ."""
        return self._left.differing()

    # -- as it comes -------------------------------------------------------------------------------------------------------

    def on_held(self, key: str, owner: str, revision: int) -> None:
        """See Reading."""
        self._left.add(key, owner)
        if key.startswith(keys.MAC):
            self.macs += 1
            return
        self.addresses += 1
        if self._counting is not None:
            _, network_id, text = key.split("/", 2)
            self._counting.held(network_id, text)

    def on_resting(self, key: str, revision: int) -> None:
        """See Reading."""
        _, network_id, text = key.split("/", 2)
        entry = self._cluster.networks.get(network_id)
        if entry is None or entry.space_of(text) is None:
            self._odd.append((key, revision))

    def on_wanted(self, key: str, record: str, revision: int) -> None:
        """See Reading."""
        self._left.take(key, holder_of(record))

    def on_set(self, owner_key: str, message: types.PortSet, record: Record) -> None:
        """See Reading."""
        self.sets += 1
        if self._counting is not None:
            self._counting.set(record.value)
        known = self._cluster.sets.get(owner_key)
        if known is None or (known != kept(record.value, record.revision) and message_of(known).revision <= record.revision):
            self.unlike.append(owner_key)
        for at, port in enumerate(message.ports):
            shape = self.shapes.get(port.network_id)
            claimed = message.wishes[at].ip_claim if at < len(message.wishes) else ""
            if shape is None:
                said = f"{keys.said(owner_key)} has interface {port.interface} on network {port.network}, which is not there"
                self._tell(pb.FINDING_KIND_NETWORK_GONE, record, said, network=port.network or port.network_id)
                continue
            if claimed:
                self._judge_use(owner_key, record, keys.claim(message.tenant, claimed), shape)
            for one in port.addresses:
                text = one.cidr.partition("/")[0]
                if not shape.holds(text):
                    said = f"{keys.said(owner_key)} has {text}, which is in no subnet of network {shape.network.path}"
                    self._tell(pb.FINDING_KIND_OUTSIDE, record, said, network=shape.network.path, address=text)

    def _judge_use(self, owner_key: str, record: Record, claim_key: str, shape: Shape) -> None:
        found = self.claims.get(claim_key)
        what = f"{keys.said(owner_key)} uses {keys.said(claim_key)}"
        said = ""
        if found is None:
            said = f"{what}, which is not there"
        elif found[0].used_by is None:
            said = f"{what}, whose record says that nobody does"
        elif found[0].used_by.key != owner_key:
            said = f"{what}, whose record says that {keys.said(found[0].used_by.key)} does"
        if said:
            self._tell(pb.FINDING_KIND_CLAIM, record, said, network=shape.network.path)
        else:
            self._users[claim_key] = owner_key

    def _tell(self, kind: pb.FindingKind.ValueType, record: Record, said: str, **fields: str) -> None:
        self._told.append(pb.Finding(kind=kind, key=record.key, revision=record.revision, message=said, **fields))  # type: ignore[arg-type]

    # -- at the end --------------------------------------------------------------------------------------------------------

    def findings(self) -> Iterator[pb.Finding]:
        """What was found, all but what only the buckets tell."""
        yield from self._told
        yield from self._rests()
        for key, (claim, revision) in self.claims.items():
            yield from self._of_claim(key, claim, revision)
        yield from self._of_groups()
        yield from self._of_names()
        yield from self._of_ids()

    def _rests(self) -> Iterator[pb.Finding]:
        for key, revision in self._odd:
            _, network_id, text = key.split("/", 2)
            shape = self.shapes.get(network_id)
            if shape is None:
                said = f"{text} rests on network {network_id}, which is not there"
                yield _repairable(pb.FINDING_KIND_NETWORK_GONE, key, revision, said, network=network_id, address=text)
            elif not shape.holds(text):
                said = f"{text} rests, and is in no subnet of network {shape.network.path}"
                yield _repairable(pb.FINDING_KIND_OUTSIDE, key, revision, said, network=shape.network.path, address=text)

    def _of_claim(self, key: str, claim: IPClaim, revision: int) -> Iterator[pb.Finding]:
        shape = self.paths.get(claim.network)
        if shape is None:
            said = f"{keys.said(key)} is for network {claim.network}, which is not there"
            yield pb.Finding(kind=pb.FINDING_KIND_NETWORK_GONE, key=key, revision=revision, network=claim.network, message=said)
            return
        for one in claim.addresses:
            text = one.cidr.partition("/")[0]
            if not shape.holds(text):
                said = f"{keys.said(key)} has {text}, which is in no subnet of network {claim.network}"
                yield pb.Finding(
                    kind=pb.FINDING_KIND_OUTSIDE, key=key, revision=revision, network=claim.network, address=text, message=said
                )
        if claim.used_by is not None and self._users.get(key) != claim.used_by.key:
            said = f"{keys.said(key)} says that {keys.said(claim.used_by.key)} uses it, which does not"
            yield _repairable(pb.FINDING_KIND_CLAIM, key, revision, said, network=claim.network)

    def _of_groups(self) -> Iterator[pb.Finding]:
        owners: dict[tuple[str, str], str] = {}
        for key, (group, revision) in self.groups.items():
            network_id = key.split("/")[1]
            what, shape = f"IP group {group.tenant}/{group.name}", self.shapes.get(network_id)
            if shape is None:
                said = f"{what} is on network {network_id}, which is not there"
                yield pb.Finding(kind=pb.FINDING_KIND_NETWORK_GONE, key=key, revision=revision, network=network_id, message=said)
                continue
            for one in group.addresses:
                told = {"key": key, "revision": revision, "network": shape.network.path, "address": one.address}
                other = owners.setdefault((network_id, one.address), what)
                if other != what:
                    said = f"{what} has {one.address}, which {other} has too"
                    yield pb.Finding(kind=pb.FINDING_KIND_GROUP, message=said, **told)  # type: ignore[arg-type]
                if not shape.holds(one.address):
                    said = f"{what} has {one.address}, which is in no subnet of network {shape.network.path}"
                    yield pb.Finding(kind=pb.FINDING_KIND_OUTSIDE, message=said, **told)  # type: ignore[arg-type]

    def _of_names(self) -> Iterator[pb.Finding]:
        for key, record in self.names.items():
            path = key.removeprefix(keys.NETWORK_NAME)
            shape = self.shapes.get(record.value.decode())
            if shape is None or shape.network.path != path:
                why = "is not there" if shape is None else f"is {shape.network.path}"
                said = f"the name {path} means network {record.value.decode()}, which {why}"
                yield _stray(key, record.revision, said, path, shape)
        for shape in self.shapes.values():
            network = shape.network
            record = self.names.get(keys.network_name(network.tenant, network.name), Record("", b"", 0))
            if record.value.decode() != network.id:
                said = f"network {network.path} ({network.id}) is not found by its name"
                yield pb.Finding(
                    kind=pb.FINDING_KIND_NETWORK, key=keys.network(network.id), revision=network.revision,
                    network=network.path, message=said,
                )  # fmt: skip

    def _of_ids(self) -> Iterator[pb.Finding]:
        for key, record in self.vids.items():
            holder = record.value.decode()
            if holder.startswith("rest "):
                continue
            shape = self.shapes.get(holder)
            if shape is None or key != _vid_key(shape):
                what = f"{shape.network.path}, which has another one" if shape is not None else f"{holder}, which is not there"
                said = f"segmentation id {key.removeprefix('vid/')} is that of network {what}"
                yield _stray(key, record.revision, said, shape.network.path if shape is not None else holder, shape)
        for shape in self.shapes.values():
            network, wanted = shape.network, _vid_key(shape)
            if wanted and self.vids.get(wanted, Record("", b"", 0)).value.decode() != network.id:
                said = f"network {network.path} has segmentation id {network.segmentation_id}, whose record is another one's"
                yield pb.Finding(
                    kind=pb.FINDING_KIND_NETWORK, key=keys.network(network.id), revision=network.revision,
                    network=network.path, message=said,
                )  # fmt: skip


def _vid_key(shape: Shape) -> str:
    network = shape.network
    return keys.vid(space_of(network), network.segmentation_id) if network.segmentation_id else ""


def _stray(key: str, revision: int, said: str, network: str, shape: Shape | None) -> pb.Finding:
    """What refers to a network wrongly; it can go where that network is gone."""
    finding = _repairable(pb.FINDING_KIND_NETWORK, key, revision, said, network=network)
    finding.repairable = shape is None
    return finding


def _repairable(kind: pb.FindingKind.ValueType, key: str, revision: int, said: str, **fields: str) -> pb.Finding:
    return pb.Finding(kind=kind, key=key, revision=revision, message=said, repairable=True, **fields)
