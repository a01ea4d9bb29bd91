"""What the parts of the service share."""

from collections.abc import Awaitable
from typing import TypeVar

from knitter.v1 import manager_pb2_grpc
from knitter_common.errors import Unavailable
from knitter_manager.allocation.jobs import store_unavailable
from knitter_manager.core import Core
from knitter_manager.store.protocol import StoreDown

T = TypeVar("T")


class Calls(manager_pb2_grpc.ManagerServiceServicer):
    """A part of the service."""

    def __init__(self, core: Core) -> None:
        self._any = core

    @property
    def _core(self) -> Core:
        """Raises Unavailable(RESTORING) while this manager knows no state: it has started in the midst of a restore."""
        if self._any.feed.between:
            raise Unavailable(
                "RESTORING", "a snapshot is being restored, and this manager has started meanwhile: it knows no state"
            )
        return self._any


async def answered(work: Awaitable[T]) -> T:
    """What a read of the store says. Raises Unavailable(STORE_UNAVAILABLE)."""
    try:
        return await work
    except StoreDown as error:
        raise store_unavailable(error) from error
