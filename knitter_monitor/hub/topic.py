"""One topic: what it holds now and what was deleted from it lately, in the order of revisions. Pure.

A reader has a position: it holds everything up to that revision. What it still needs is the entries after it, so a reader costs
one number, however far behind it is, and the newest state of a key is all that it is ever sent.

    invariant: `_log` is ordered by revision; each key has at most one entry that is not superseded
    invariant: every deletion after `floor` is in the log; a reader at or after `floor` can resume, one before it begins anew
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from knitter_monitor.hub.facts import Wire


@dataclass(slots=True, eq=False)
class Entry:
    """The last change of one key. `superseded` ones wait in the log for its next compaction."""

    revision: int
    key: str
    wire: Wire
    deleted: bool
    made: float
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class Slice:
    """Changes for one message, and the position of a reader that has them. `whole`: there is nothing after them."""

    changes: tuple[Wire, ...]
    position: int
    whole: bool


class Topic:
    """`floor` is the oldest position from which a reader can resume."""

    def __init__(self, name: str, floor: int) -> None:
        self.name = name
        self.floor = floor
        self._log: list[Entry] = []
        self._current: dict[str, Entry] = {}
        self._tombstones: deque[Entry] = deque()
        self._superseded = 0

    def __contains__(self, key: str) -> bool:
        entry = self._current.get(key)
        return entry is not None and not entry.deleted

    def __len__(self) -> int:
        """How many objects and tombstones it holds."""
        return len(self._current)

    def put(self, key: str, revision: int, wire: Wire) -> None:
        """A key's newest state."""
        self._append(key, revision, wire, deleted=False, made=0.0)

    def delete(self, key: str, revision: int, wire: Wire, now: float) -> bool:
        """Leaves a tombstone. False: the key is not here, and nothing was done."""
        if key not in self:
            return False
        self._tombstones.append(self._append(key, revision, wire, deleted=True, made=now))
        return True

    def after(self, position: int, *, tombstones_after: int = 0, most: int = 500, most_bytes: int = 262_144) -> Slice:
        """What a reader at `position` still needs, about `most` changes or `most_bytes` at a time; a revision is never split.

        Deletions up to `tombstones_after` are left out: a reader that began anew then never had the keys.
        """
        changes: list[Wire] = []
        size, last = 0, position
        for entry in self._from(position):
            if entry.revision != last and (len(changes) >= most or size >= most_bytes):
                return Slice(tuple(changes), last, whole=False)
            last = entry.revision
            if not entry.deleted or entry.revision > tombstones_after:
                changes.append(entry.wire)
                size += len(entry.wire)
        return Slice(tuple(changes), last, whole=True)

    def sweep(self, before: float, most: int) -> int:
        """Forgets the tombstones made before that time, and the oldest above `most`; raises the floor. Returns how many."""
        count = 0
        while self._tombstones and (self._tombstones[0].made < before or len(self._tombstones) > most):
            entry = self._tombstones.popleft()
            if not entry.superseded:  # else the key came back, and who resumes before that gets its newest state
                del self._current[entry.key]
                self._supersede(entry)
                self.floor = max(self.floor, entry.revision)
                count += 1
        return count

    def _append(self, key: str, revision: int, wire: Wire, *, deleted: bool, made: float) -> Entry:
        newest = self._log[-1].revision if self._log else 0
        entry = Entry(max(revision, newest), key, wire, deleted, made)
        before = self._current.get(key)
        self._current[key] = entry
        self._log.append(entry)
        if before is not None:
            self._supersede(before)
        return entry

    def _supersede(self, entry: Entry) -> None:
        entry.superseded = True
        self._superseded += 1
        if self._superseded > 64 and self._superseded > len(self._log) // 2:
            self._log = [entry for entry in self._log if not entry.superseded]
            self._superseded = 0

    def _from(self, position: int) -> Iterator[Entry]:
        log = self._log
        for index in range(bisect_right(log, position, key=lambda entry: entry.revision), len(log)):
            if not log[index].superseded:
                yield log[index]
