"""The second look: the keys of some buckets, one by one, in another snapshot. So a difference was there in both."""

from collections.abc import Collection, Iterator

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_manager import keys
from knitter_manager.check.fingerprint import bucket_of
from knitter_manager.check.reading import Reading, holder_of, place_of, record_of
from knitter_manager.store.protocol import Record

MOST = 4096  # buckets that are looked at at once


class Detail(Reading):
    """Of these buckets."""

    def __init__(self, buckets: Collection[int]) -> None:
        super().__init__()
        self._buckets = buckets
        self._held: dict[str, tuple[str, int]] = {}  # holder, "" for a rest, and the record's revision
        self._wanted: dict[str, list[str]] = {}  # by key: the records of those that have it
        self._there: dict[str, bool] = {}  # the records of holders: whether they are there

    def on_held(self, key: str, owner: str, revision: int) -> None:
        """See Reading."""
        if bucket_of(key) in self._buckets:
            self._held[key] = owner, revision
            self._there[record_of(owner)] = False

    def on_resting(self, key: str, revision: int) -> None:
        """See Reading."""
        if bucket_of(key) in self._buckets:
            self._held[key] = "", revision

    def on_wanted(self, key: str, record: str, revision: int) -> None:
        """See Reading."""
        if bucket_of(key) in self._buckets:
            self._wanted.setdefault(key, []).append(record)

    def on_set(self, owner_key: str, message: types.PortSet, record: Record) -> None:
        """See Reading."""
        if record.key in self._there:
            self._there[record.key] = True

    def findings(self) -> Iterator[pb.Finding]:
        """Every key whose record and owners do not agree, in order."""
        for key in sorted(self._held.keys() | self._wanted.keys()):
            holder, revision = self._held.get(key, ("", 0))
            finding = self._judged(key, holder, revision, self._wanted.get(key, []))
            if finding is not None:
                yield finding

    def _judged(self, key: str, holder: str, revision: int, wanting: list[str]) -> pb.Finding | None:
        network, text = place_of(key, self.segments, {one: shape.network.path for one, shape in self.shapes.items()})
        finding = pb.Finding(key=key, revision=revision, network=network, address=text)
        owners = [holder_of(one) for one in wanting]
        if len(owners) > 1:
            finding.kind = pb.FINDING_KIND_DOUBLE
            finding.message = f"{text} is that of {' and of '.join(keys.said(one) for one in sorted(owners))}"
            if holder in owners:
                finding.message += f"; its record names {keys.said(holder)}"
            return finding
        if not owners:
            if not holder:
                return None
            finding.kind, finding.repairable = pb.FINDING_KIND_ORPHAN, True
            finding.message = f"{text} is held for {keys.said(holder)}, {self._why(holder)}"
            return finding
        (owner,) = owners
        if owner == holder:
            return None
        finding.rightful, finding.repairable = wanting[0], True
        if holder:
            finding.kind = pb.FINDING_KIND_FOREIGN
            finding.message = f"{keys.said(owner)} has {text}, whose record names {keys.said(holder)}, {self._why(holder)}"
        else:
            finding.kind = pb.FINDING_KIND_MISSING
            finding.message = f"{keys.said(owner)} has {text}, {'which rests' if revision else 'which no record holds'}"
        return finding

    def _why(self, holder: str) -> str:
        record = record_of(holder)
        there = record in self.claims or self._there.get(record, False)
        if there:
            return "which does not have it"
        return "which is not there" if record.startswith(keys.CLAIM) else "which has no port set"
