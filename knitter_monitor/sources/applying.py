"""Brings the manager to what a source declares, one object at a time; a failure of one never stops the others.

Every write is by revision: what is there is read, compared by the manager, and read again when someone was faster. Nothing is
deleted but what this source made, and only on `delete`, which the caller asks for after its own two observations; the manager
refuses it while anything uses the object.
"""

import structlog

from knitter_common.errors import Exists, KnitterError, NotFound, Refused, Stale
from knitter_common.managers import Managers
from knitter_monitor.sources.kinds import KINDS, Declarable, Key, key_of, of_source

log = structlog.get_logger()

TRIES = 5  # against others who write the same object


class Applier:
    """For one source, "files:<name>"."""

    def __init__(self, managers: Managers, source: str) -> None:
        self._managers, self.source = managers, source

    async def held(self) -> dict[Key, Declarable]:
        """What the manager holds of this source. Raises KnitterError; a kind that the manager does not serve holds nothing."""
        found: dict[Key, Declarable] = {}
        for kind in KINDS.values():
            try:
                objects = await kind.listed(self._managers, self.source)
            except KnitterError as error:
                if error.reason != "NOT_IMPLEMENTED":
                    raise
                continue
            found.update((key_of(obj), obj) for obj in objects)
        return found

    async def apply(self, wanted: Declarable) -> Declarable:
        """Makes the object, or changes it to the shape that is declared. Returns it as stored. Raises KnitterError."""
        kind = KINDS[type(wanted)]
        wanted = of_source(wanted, self.source)
        for _ in range(TRIES):
            try:
                stored = await kind.create(self._managers, wanted)
                self._require_ours(stored)
                return stored  # type: ignore[no-any-return]
            except Exists as error:
                if error.reason != "OBJECT_EXISTS":
                    raise
            try:
                stored = await kind.get(self._managers, wanted)
                self._require_ours(stored)
                changed = await kind.update(self._managers, of_source(wanted, self.source, stored.revision))
            except (NotFound, Stale) as error:
                log.debug("someone was faster", object=str(key_of(wanted)), reason=error.reason)
                continue
            log.info("changed", source=self.source, object=str(key_of(wanted)), revision=changed.revision)
            return changed  # type: ignore[no-any-return]
        raise Stale("REVISION_STALE", f"{key_of(wanted)} is being changed by others all the time; tried {TRIES} times")

    async def delete(self, obj: Declarable) -> bool:
        """Deletes what this source has made. True: it is gone, was gone, or is another source's by now. Raises KnitterError."""
        kind = KINDS[type(obj)]
        for _ in range(TRIES):
            try:
                await kind.delete(self._managers, of_source(obj, self.source, obj.revision))
                return True
            except NotFound:
                return True
            except Stale:
                pass
            try:
                obj = await kind.get(self._managers, obj)
            except NotFound:
                return True
            if obj.source != self.source:
                return True
        raise Stale("REVISION_STALE", f"{key_of(obj)} is being changed by others all the time; tried {TRIES} times")

    def _require_ours(self, stored: Declarable) -> None:
        if stored.source != self.source:
            where = stored.source or "api"
            text = f"{key_of(stored)} is declared by {where!r}, not by {self.source!r}; move it with `knitterctl adopt`"
            raise Refused("SOURCE_FOREIGN", text, source=where)
