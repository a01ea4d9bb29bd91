"""The Store: a key-value space with revisions.

Every commit gets the next revision, a whole number that only grows; a record's revision is that of the commit that wrote it last.
Keys are text, values are bytes the store never reads. Key families:

    portset/<owner key>          one port set                     network/<id>           one network, its whole shape
    addr/<network id>/<address>  value: the owner's key           net/<tenant>/<name>    value: the network's id
    mac/<segment>/<mac>          value: the owner's key           tenant/ group/ claim/ node/ …
    meta/epoch                   value: the counter that a restore raises, as decimal text

One process at a time writes: it holds the key `writer` (a lease in etcd, a file lock for SQLite), and every commit is conditional
on it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Record(NamedTuple):  # a tuple, since a start makes millions of them
    """A key with its value and the revision of the commit that wrote it last."""

    key: str
    value: bytes
    revision: int


class AtRevision(NamedTuple):  # a tuple, since every allocation makes some
    """The key is at exactly this revision; 0 means it is absent."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class PrefixEmpty:
    """No key begins with this prefix."""

    prefix: str


Condition = AtRevision | PrefixEmpty


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit did."""

    revision: int
    puts: Mapping[str, bytes] = field(default_factory=dict)
    deletes: tuple[str, ...] = ()

    @property
    def weight(self) -> int:
        """What it costs to keep it: one for itself and one for each record."""
        return 1 + len(self.puts) + len(self.deletes)


class Span(NamedTuple):
    """The keys from `begin` to `end`, without `end` itself; "" as the end means to the last."""

    begin: str = ""
    end: str = ""


EVERYTHING = (Span(),)


def below(prefix: str) -> Span:
    """The keys that begin with a prefix, whose last character is ASCII."""
    return Span(prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))


def all_but(*prefixes: str) -> tuple[Span, ...]:
    """All keys but those that begin with one of the prefixes, in order."""
    spans, begin = [], ""
    for first, after in sorted(below(prefix) for prefix in prefixes):
        spans.append(Span(begin, first))
        begin = after
    return (*spans, Span(begin))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state at one revision, or what was asked for of it. `batches` is read once and at once, in key order."""

    epoch: str
    revision: int
    batches: AsyncIterator[Sequence[Record]]


class Conflict(Exception):
    """A condition did not hold; nothing was written. `current` is the record at `key`, None when it is absent, in the state of
    `revision`: every commit up to that one was done before, none after."""

    def __init__(self, key: str, current: Record | None, revision: int) -> None:
        super().__init__(f"{key} is {'absent' if current is None else f'at revision {current.revision}'}")
        self.key = key
        self.current = current
        self.revision = revision


class Compacted(Exception):
    """The changes after the asked revision are not kept any more; `oldest` is the first revision that can be resumed after."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"changes are kept only after revision {oldest}")
        self.oldest = oldest


class WentBack(Compacted):
    """The store is at a revision before the asked one, so it was put back in time; `oldest` is where it is now."""

    def __init__(self, oldest: int, asked: int) -> None:
        super().__init__(oldest)
        self.args = (f"the store is at revision {oldest}, and was at {asked} before: it has gone back in time",)


class NotWriter(Exception):
    """This process does not hold the writer's key (any more); nothing was written. `writer` is the holder's name, "" if none."""

    def __init__(self, writer: str) -> None:
        super().__init__(f"the writer is {writer or 'nobody'}")
        self.writer = writer


class StoreDown(Exception):
    """The store cannot be reached or its disk fails. A commit that was under way may or may not have happened: a `get` that begins
    afterwards tells, and what it does not show will not come any more."""


MOST_KEYS = 480  # to gather into one commit, where the store itself sets no bound: beyond, a commit only takes longer
MOST_BYTES = 768 * 1024  # of values to gather into one commit: etcd takes 1.5 MiB with all around them, a message of the feed 4


class Store(Protocol):
    """Implementations: memory (tests), sqlite (embedded, default), etcd. All methods may raise StoreDown."""

    most_keys: int  # to gather into one commit: as conditions, and as puts and deletes

    async def acquire_writer(self, name: str) -> asyncio.Event:
        """Waits until this process is the writer under `name` (the manager's address). Idempotent while it is.

        The event is set when it is the writer no more: closed, or its lease ran out. Then it may be acquired again, and what the
        process knows must be loaded again.
        """

    async def writer(self) -> str:
        """Who writes now, "" for nobody."""

    async def load(self, spans: Sequence[Span] = EVERYTHING) -> Snapshot:
        """A consistent snapshot of the records whose keys are in these spans, which are in order and do not overlap."""

    async def get(self, keys: Sequence[str]) -> Mapping[str, Record]:
        """The records at these keys, linearizable; absent ones are left out."""

    async def commit(self, conditions: Sequence[Condition], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        """Writes all of it or nothing, durably, and returns its revision. Raises Conflict or NotWriter.

        Deleting what is absent does nothing; a commit that changes nothing makes no revision and returns the newest. A put that
        writes the same value counts as a change. Raises ValueError for a key that is both put and deleted.
        """

    def changes(self, after: int) -> AsyncIterator[Sequence[Commit]]:
        """Every commit after that revision, in order, for ever. Raises Compacted. Closing the iterator ends it.

        A store that others can put back in time under those who use it (etcd) raises WentBack when it is before that revision.
        """

    async def compact(self, revision: int) -> None:
        """Forgets the changes up to this revision; the current state stays whole. Raises NotWriter."""

    async def close(self) -> None:
        """Gives the writer's key up and frees what is held. Unanswered commits raise StoreDown."""
