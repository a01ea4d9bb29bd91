"""`apply` and `delete`: what is there is compared, what is not there is made, each object for itself."""

import dataclasses
from typing import Any

from knitter_common.errors import Exists, NotFound, Stale
from knitter_ctl.declared import Declared
from knitter_ctl.document import document
from knitter_ctl.kinds import IP_GROUP, PORT_SET, Kind
from knitter_ctl.session import Session

_TRIES = 5  # of read, compare, write, while others change the same object
SOURCE = "api"
_CHOSEN = frozenset(("segmentationId", "mac"))  # by the manager, where nothing is declared


async def apply(session: Session, declared: Declared, *, dry_run: bool = False) -> str:
    """Brings one object to what is declared; returns "created", "configured" or "unchanged". Raises KnitterError."""
    kind = declared.kind
    for attempt in range(1, _TRIES + 1):
        current = await _current(session, kind, declared.entry)
        try:
            if current is None:
                if not dry_run:
                    await session.create(kind, dataclasses.replace(declared.entry, revision=0))
                return "created"
            if dry_run:
                return "unchanged" if _agrees(kind, declared.entry, current) else "configured"
            wanted = dataclasses.replace(declared.entry, revision=current.revision, source=declared.entry.source or SOURCE)
            stored = await session.update(kind, wanted)
            return "unchanged" if stored.revision == current.revision else "configured"
        except (Stale, Exists):
            if attempt == _TRIES:
                raise
    raise AssertionError("the last attempt returned or raised")


async def delete(session: Session, kind: Kind, entry: Any) -> str:
    """Deletes one object that is there; returns "deleted", or "deleting" when it takes its time. Raises KnitterError."""
    if kind is PORT_SET:
        from knitter_common.convert import owner_to_proto

        await session.call("Release", release={"owner": owner_to_proto(entry.owner)})
        return "released"
    names = _names(kind, entry)
    response = await session.call(f"Delete{kind.name}", **names)
    return "deleting" if kind.field == "tenant" and response.HasField("tenant") else "deleted"


async def _current(session: Session, kind: Kind, entry: Any) -> Any | None:
    try:
        return await session.get(kind, **_names(kind, entry))
    except NotFound:
        return None


def _names(kind: Kind, entry: Any) -> dict[str, str]:
    names = {"name": entry.name}
    if kind.tenanted:
        names["tenant"] = entry.tenant
    if kind is IP_GROUP:
        names["network"] = entry.network
    return names


def _agrees(kind: Kind, declared: Any, current: Any) -> bool:
    """It is as declared already; what is left to the manager is not compared."""
    wanted, there = document(kind, declared)["spec"], document(kind, current)["spec"]
    told = wanted.keys() | (there.keys() - _CHOSEN)
    if "network" in told:  # of a group or a claim: with its tenant in what the manager tells
        told.discard("network" if f"/{there.get('network')}".endswith(f"/{wanted.get('network')}") else "")
    return all(there.get(key) == wanted.get(key) for key in told)
