"""What all kinds of objects share: who may change one, commits that are tried again, and the one lock under which objects
change."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from knitter_common.errors import Internal, Refused, Stale
from knitter_manager.allocation.jobs import not_writer, store_unavailable
from knitter_manager.committer import Committer
from knitter_manager.state import Cluster
from knitter_manager.store.protocol import Conflict, NotWriter, StoreDown

T = TypeVar("T")

API = "api"  # the source of what is made by a call and says nothing else
_ATTEMPTS = 8


class Declared(Protocol):
    """An object with a revision and a source."""

    @property
    def revision(self) -> int:
        """Of its last change."""

    @property
    def source(self) -> str:
        """Where its declaration lives."""


class Book:
    """Commits changes of objects. `clock` is the monotonic clock in seconds, `wall` the time of day in nanoseconds since 1970;
    `in_step` returns once the state has all that the store has (Recovery.in_step)."""

    def __init__(
        self,
        cluster: Cluster,
        committer: Committer,
        may_write: Callable[[], None],
        clock: Callable[[], float],
        wall: Callable[[], int],
        in_step: Callable[[], Awaitable[None]],
    ) -> None:
        self.cluster, self.wall = cluster, wall
        self._committer, self._may_write, self._clock, self._in_step = committer, may_write, clock, in_step
        self._lock = asyncio.Lock()
        self._doubt = False  # a commit was not answered: what it did may not be known here

    async def change(self, step: Callable[[], Awaitable[T]]) -> T:
        """Runs a step that looks, decides and commits, alone among objects. It is run again when the store has moved on.

        The step goes on to its end when the caller is gone. Raises what the step raises, and Unavailable.
        """
        self._may_write()
        return await asyncio.shield(asyncio.ensure_future(self._change(step)))

    async def _change(self, step: Callable[[], Awaitable[T]]) -> T:
        async with self._lock:
            for _ in range(_ATTEMPTS):
                self._may_write()
                if self._doubt:
                    await self._in_step()
                    self._doubt = False
                try:
                    return await step()
                except Conflict as conflict:
                    self.cluster.refresh(conflict.key, conflict.current, conflict.revision, self._clock())
                    last, self._doubt = conflict, True
                except NotWriter as error:
                    raise not_writer(error.writer) from error
                except StoreDown as error:
                    self._doubt = True
                    raise store_unavailable(error) from error
            raise Internal("INTERNAL", f"the store disagrees again and again, last about {last.key}")

    async def commit(self, conditions: Mapping[str, int], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        """For steps: as Committer.commit."""
        return await self._committer.commit(conditions, puts, deletes)


def check_change(what: str, current: Declared, revision: int, source: str) -> None:
    """A change must come from the object's source and know its revision. Raises Stale(REVISION_STALE), Refused(SOURCE_FOREIGN)."""
    if current.source and (source or API) != current.source:
        said = f"{what} is declared by {current.source}, not by {source or API}"
        raise Refused("SOURCE_FOREIGN", said, source=current.source)
    if revision and revision != current.revision:
        said = f"{what} is at revision {current.revision}, not {revision}"
        raise Stale("REVISION_STALE", said, revision=current.revision)
