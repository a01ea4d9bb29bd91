"""The methods of ManagerService that are about the state as a whole: what it is, recovery, freezing, snapshots."""

from collections.abc import AsyncIterator
from typing import Any

from knitter.v1 import manager_pb2 as pb
from knitter_common import failpoints
from knitter_common.errors import Unavailable
from knitter_common.snapshot import Header, Writer
from knitter_manager.allocation.jobs import store_unavailable
from knitter_manager.restore import of_state
from knitter_manager.service.base import Calls
from knitter_manager.store.protocol import StoreDown

_MOST = 1024 * 1024  # bytes in one message
_RECORDS = 1000  # packed at once, so that the event loop is not kept for long


class StandingCalls(Calls):
    """See manager.proto."""

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        """From this manager's own state."""
        core = self._any
        standing, writing = core.standing, core.role.writing.is_set()
        return pb.GetStatusResponse(
            name=core.role.name,
            writer=core.role.name if writing else core.role.writer,
            writing=writing,
            epoch=core.cluster.epoch,
            revision=core.cluster.revision,
            recovering=core.recovery.recovering,
            waiting_for=standing.waiting_for,
            frozen=standing.frozen,
            restoring=standing.restoring,
            port_sets=len(core.cluster.sets),
        )

    async def EndRecovery(self, request: pb.EndRecoveryRequest, context: Any) -> pb.EndRecoveryResponse:
        """By an operator's word."""
        return pb.EndRecoveryResponse(not_told=await self._core.reconciler.end_recovery())

    async def SetFrozen(self, request: pb.SetFrozenRequest, context: Any) -> pb.SetFrozenResponse:
        """Forbids or allows writes."""
        return pb.SetFrozenResponse(revision=await self._core.restore.set_frozen(request.frozen))

    async def SaveSnapshot(self, request: pb.SaveSnapshotRequest, context: Any) -> AsyncIterator[pb.SaveSnapshotResponse]:
        """The store at one moment, as a file."""
        core = self._core
        if core.standing.applying:
            raise Unavailable("RESTORING", "a snapshot is being restored: the store is between two states")
        try:
            snapshot = await core.store.load()
            writer, revision = Writer(), snapshot.revision
            yield _piece(writer.begin(Header(core.standing.store_id, core.standing.epoch, revision, core.wall())))
            await failpoints.reach("snapshot.begun")
            async for batch in snapshot.batches:
                for begin in range(0, len(batch), _RECORDS):
                    piece = writer.records(of_state(batch[begin : begin + _RECORDS]))
                    for at in range(0, len(piece), _MOST):
                        yield _piece(piece[at : at + _MOST])
            yield _piece(writer.end())
        except StoreDown as error:
            raise store_unavailable(error) from error

    async def RestoreSnapshot(
        self, request_iterator: AsyncIterator[pb.RestoreSnapshotRequest], context: Any
    ) -> pb.RestoreSnapshotResponse:
        """Replaces the state."""
        self._core.role.may_write()
        first = await anext(aiter(request_iterator), pb.RestoreSnapshotRequest())

        async def pieces() -> AsyncIterator[bytes]:
            yield first.data
            async for request in request_iterator:
                yield request.data

        done = await self._core.restore.restore(pieces(), first.only_if_empty, first.complete)
        return pb.RestoreSnapshotResponse(
            epoch=done.epoch, revision=done.revision, records=done.records, waiting_for=done.waiting_for
        )


def _piece(data: bytes) -> pb.SaveSnapshotResponse:
    return pb.SaveSnapshotResponse(data=data)
