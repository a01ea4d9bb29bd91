"""Comparing, and repairing what differs."""

from collections.abc import AsyncIterator
from typing import Any

from knitter.v1 import manager_pb2 as pb
from knitter_manager.allocation.jobs import store_unavailable
from knitter_manager.service.base import Calls, answered
from knitter_manager.store.protocol import StoreDown


class CheckCalls(Calls):
    """See manager.proto."""

    async def CheckState(self, request: pb.CheckStateRequest, context: Any) -> AsyncIterator[pb.CheckStateResponse]:
        """Findings, then the summary."""
        if request.nodes:
            self._core.role.may_write()  # the nodes' streams are open to the manager that writes
        try:
            async for response in self._core.checker.check(request.nodes):
                yield response
        except StoreDown as error:
            raise store_unavailable(error) from error

    async def RepairState(self, request: pb.RepairStateRequest, context: Any) -> pb.RepairStateResponse:
        """One by one."""
        repairs = await answered(self._core.repairer.repair(list(request.findings), request.force))
        return pb.RepairStateResponse(repairs=repairs)
