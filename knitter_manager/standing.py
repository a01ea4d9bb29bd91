"""What the store says of itself, below `meta/`: who writes, the epoch, and why nothing may be written or allocated just now.

    meta/writer      the writer's name. A new writer puts it there, so that its own feed tells when it has seen all before it
    meta/epoch       the counter of the epoch, as decimal text (the store itself reads it)
    meta/lineage     the id that the epoch carries instead of the store's own, when the state came from another store
    meta/recovering  JSON list of the nodes that have not told their journals in this epoch; absent when nobody is waited for
    meta/frozen      all writes are forbidden
    meta/restoring   JSON: a snapshot is being restored, and how far that is (restore.py)

None of them is a part of a snapshot.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from knitter_manager.state import Cluster
from knitter_manager.store.protocol import Record

META = "meta/"
WRITER = "meta/writer"
EPOCH = "meta/epoch"
LINEAGE = "meta/lineage"
RECOVERING = "meta/recovering"
FROZEN = "meta/frozen"
RESTORING = "meta/restoring"

STAGING, APPLYING, CLEANING = "staging", "applying", "cleaning"  # phases of a restore


class Standing:
    """Reads the cluster's meta records; nothing is kept here but the store's id."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.store_id = ""

    @property
    def _meta(self) -> Mapping[str, Record]:
        return self._cluster.meta

    def _text(self, key: str) -> str:
        record = self._meta.get(key)
        return record.value.decode() if record is not None else ""

    @property
    def writer(self) -> str:
        """The last one that began to write, "" for nobody."""
        return self._text(WRITER)

    @property
    def counter(self) -> int:
        """The epoch's counter."""
        return int(self._text(EPOCH) or 0)

    @property
    def lineage(self) -> str:
        """The epoch's id."""
        return self._text(LINEAGE) or self.store_id

    @property
    def epoch(self) -> str:
        """Id and counter, as clients are told it."""
        return f"{self.lineage}.{self.counter}"

    @property
    def frozen(self) -> bool:
        """All writes are forbidden."""
        return FROZEN in self._meta

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """The nodes that must tell their journals before anything is allocated, in order."""
        return _nodes(self._meta[RECOVERING].value) if RECOVERING in self._meta else ()

    @property
    def restore(self) -> dict[str, Any]:
        """The restore that is under way; empty for none. `phase` is one of STAGING, APPLYING, CLEANING."""
        return restore_of(self._meta[RESTORING].value) if RESTORING in self._meta else {}

    @property
    def restoring(self) -> bool:
        """Nothing may be written, since a restore is under way."""
        return self.restore.get("phase") in (STAGING, APPLYING)

    @property
    def applying(self) -> bool:
        """The store is between two states; what this manager knows is the one before."""
        return self.restore.get("phase") == APPLYING


@lru_cache(4)  # every allocation asks
def _nodes(value: bytes) -> tuple[str, ...]:
    return tuple(json.loads(value))


def restore_of(value: bytes) -> dict[str, Any]:
    """What `meta/restoring` says; empty for nothing."""
    return dict(json.loads(value or b"{}"))


def counter_of(epoch: str) -> tuple[str, int]:
    """Id and counter of an epoch as clients tell it; ("", 0) for what is none."""
    lineage, _, counter = epoch.rpartition(".")
    return (lineage, int(counter)) if counter.isdigit() else ("", 0)


def encoded(value: Any) -> bytes:
    """A meta record's value in JSON."""
    return json.dumps(value, sort_keys=True).encode()
