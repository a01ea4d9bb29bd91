"""The feed of changes, told line by line: what was added, changed, deleted. Pure: the feed's messages in, events out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from knitter_common.model import IPClaim, IPGroup, Network
from knitter_ctl.columns import header, row
from knitter_ctl.document import document, reference
from knitter_ctl.kinds import KINDS, Kind
from knitter_ctl.session import from_proto
from knitter_ctl.table import Cell, paint

_STYLES = {"added": "good", "changed": "warn", "deleted": "bad"}
_SKIPPED = ("TENANT", "NAME", "OWNER", "AGE", "NETWORK")  # the reference tells them, or they say nothing here


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `what` is there, added, changed or deleted; `entry` is None when all that is known is the reference."""

    revision: int
    what: str
    kind: Kind | None
    reference: str
    entry: Any | None


@dataclass(slots=True)
class Follower:
    """What is known so far; `kinds` are those to tell of, none means all. `revision` and `epoch` are where to resume."""

    kinds: Sequence[Kind] = ()
    revision: int = 0
    epoch: str = ""
    synced: bool = False
    _known: dict[str, Event] = field(default_factory=dict)  # by key in the store
    _before: dict[str, Event] = field(default_factory=dict)  # the same of before a reset, until the next snapshot is whole

    def take(self, response: Any) -> Iterator[Event]:
        """The events of one message of the feed."""
        match response.WhichOneof("event"):
            case "reset":
                self._before, self._known = {**self._before, **self._known}, {}
                self.epoch, self.revision = response.reset.epoch, 0
            case "changes":
                yield from self._told(self._change(change) for change in response.changes.changes)
            case "synced":
                yield from self._told(self._lost(response.synced.revision))
                self.epoch, self.revision, self.synced = response.synced.epoch, response.synced.revision, True

    def _told(self, events: Iterable[Event | None]) -> Iterator[Event]:
        for event in events:
            if event is not None and (not self.kinds or event.kind in self.kinds):
                yield event

    def _change(self, change: Any) -> Event | None:
        self.revision = max(self.revision, change.revision)
        field_name = change.WhichOneof("object")
        if field_name == "deleted":
            return self._deleted(change)
        kind = next((each for each in KINDS if each.field == field_name), None)
        if kind is None:  # an object of a later release
            return None
        entry = from_proto(kind, getattr(change, field_name))
        key = self._store_key(kind, entry)
        old = self._known.get(key) or self._before.pop(key, None)
        if old is not None and old.entry == entry:  # seen before the feed was cut
            self._known[key] = old
            return None
        what = "changed" if old is not None else "added" if self.synced else "there"
        event = Event(change.revision, what, kind, reference(kind, entry), entry)
        self._known[key] = event
        return event

    def _store_key(self, kind: Kind, entry: Any) -> str:
        """The key that a tombstone would name (docs/store.md): "network/<id>", "group/<network id>/<tenant>/<name>"."""
        match entry:
            case Network():
                return f"network/{entry.id}"
            case IPGroup():
                path = entry.network if "/" in entry.network else f"{entry.tenant}/{entry.network}"
                networks = (event.entry for event in self._known.values() if isinstance(event.entry, Network))
                ids = (network.id for network in networks if network.path == path)
                return f"group/{next(ids, '')}/{entry.tenant}/{entry.name}"
            case IPClaim():
                return f"claim/{entry.tenant}/{entry.name}"
            case _:
                return reference(kind, entry)

    def _deleted(self, change: Any) -> Event | None:
        key = change.deleted.key
        old = self._known.pop(key, None)
        if old is None:
            return None if not self.synced else Event(change.revision, "deleted", _kind_of(key), key, None)
        return Event(change.revision, "deleted", old.kind, old.reference, old.entry)

    def _lost(self, revision: int) -> Iterator[Event]:
        """What was there before a reset and is in no snapshot after it."""
        lost, self._before = self._before, {}
        for event in lost.values():
            yield Event(revision, "deleted", event.kind, event.reference, event.entry)


def line(event: Event, now: int, colours: bool) -> str:
    """One line: revision, what happened, the object, and its fields where it is there."""
    words = [f"{event.revision:>8}", paint(Cell(f"{event.what:<7}", _STYLES.get(event.what, "")), colours), event.reference]
    if event.entry is not None and event.kind is not None and event.what != "deleted":
        pairs = zip(header(event.kind, False), row(event.kind, event.entry, now, False), strict=True)
        words += [_field(title, cell, colours) for title, cell in pairs if title not in _SKIPPED and _plain(cell)]
    return "  ".join(words)


def as_json(event: Event) -> dict[str, Any]:
    """One event as an object; "object" is the document, as -o json of `get` has it."""
    told: dict[str, Any] = {"revision": event.revision, "event": event.what, "reference": event.reference}
    if event.entry is not None and event.kind is not None:
        told["object"] = document(event.kind, event.entry)
    return told


def _field(title: str, cell: str | Cell, colours: bool) -> str:
    return f"{title.lower()}={paint(cell, colours)}" if title != "INTERFACES" else _plain(cell)


def _plain(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else cell.text


def _kind_of(key: str) -> Kind | None:
    head = key.partition("/")[0]
    return next((kind for kind in KINDS if head in kind.words), None)
