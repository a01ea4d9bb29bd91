"""What the parts of the service share."""

from collections.abc import Awaitable
from typing import TypeVar

from knitter.v1 import manager_pb2_grpc
from knitter_manager.allocation.jobs import store_unavailable
from knitter_manager.core import Core
from knitter_manager.store.protocol import StoreDown

T = TypeVar("T")


class Calls(manager_pb2_grpc.ManagerServiceServicer):
    """A part of the service."""

    def __init__(self, core: Core) -> None:
        self._core = core


async def answered(work: Awaitable[T]) -> T:
    """What a read of the store says. Raises Unavailable(STORE_UNAVAILABLE)."""
    try:
        return await work
    except StoreDown as error:
        raise store_unavailable(error) from error
