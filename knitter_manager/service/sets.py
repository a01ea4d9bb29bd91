"""Port sets, the nodes' journals, and the feed."""

from collections.abc import AsyncIterator
from typing import Any

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common import convert
from knitter_common.errors import NotFound
from knitter_common.serve.pages import page
from knitter_manager import keys
from knitter_manager.records import message_of
from knitter_manager.service import asked, lists
from knitter_manager.service.base import Calls, answered
from knitter_manager.service.changes import Subscription
from knitter_manager.service.stream import Stream


class SetCalls(Calls):
    """Calls about port sets."""

    async def GetPortSet(self, request: pb.GetPortSetRequest, context: Any) -> pb.GetPortSetResponse:
        """By owner."""
        owner = convert.owner_from_proto(request.owner)
        record = self._core.cluster.sets.get(owner.key)
        if record is None:
            raise NotFound("OBJECT_NOT_FOUND", f"{keys.said(owner.key)} has no port set", owner=owner.key)
        return pb.GetPortSetResponse(port_set=message_of(record))

    async def ListPortSets(self, request: pb.ListPortSetsRequest, context: Any) -> pb.ListPortSetsResponse:
        """A page."""
        cluster = self._core.cluster
        tenant, node, network = asked.tenant(request.tenant), asked.node(request.node), asked.network(request.network)
        if request.address:
            return await self._set_of_address(request)
        sets = lists.port_sets(cluster, tenant, node, network, asked.set_token(request.page_token))
        found, token = page(sets, request.page_size, len)
        messages = [message_of(record) for record in found]
        return pb.ListPortSetsResponse(port_sets=messages, next_page_token=token, revision=cluster.revision)

    async def _set_of_address(self, request: pb.ListPortSetsRequest) -> pb.ListPortSetsResponse:
        cluster, found = self._core.cluster, dict[str, types.PortSet]()
        for info in await answered(self._core.addresses.find(request.network, request.address)):
            owner_key = convert.owner_from_proto(info.owner).key if info.HasField("owner") else ""
            record = cluster.sets.get(owner_key)
            message = message_of(record) if record is not None else None
            if message is not None and request.tenant in ("", message.tenant) and request.node in ("", message.node):
                found[owner_key] = message
        ordered = [found[key] for key in sorted(found)]
        return pb.ListPortSetsResponse(port_sets=ordered, revision=cluster.revision)

    async def Allocate(self, request: pb.AllocateRequest, context: Any) -> pb.AllocateResponse:
        """One set."""
        record = await self._core.sets.allocate(asked.allocation(request.allocation))
        return pb.AllocateResponse(port_set=message_of(record or b""))

    async def Release(self, request: pb.ReleaseRequest, context: Any) -> pb.ReleaseResponse:
        """One set."""
        await self._core.sets.release(convert.give_back_from_proto(request.release))
        return pb.ReleaseResponse()

    async def EndPortSet(self, request: pb.EndPortSetRequest, context: Any) -> pb.EndPortSetResponse:
        """By hand."""
        owner = convert.owner_from_proto(request.owner)
        before = await self._core.sets.end_by_hand(owner, request.revision, request.force)
        return pb.EndPortSetResponse(port_set=convert.port_set_to_proto(before) if before is not None else None)

    async def StreamAllocations(
        self, request_iterator: AsyncIterator[pb.StreamAllocationsRequest], context: Any
    ) -> AsyncIterator[pb.StreamAllocationsResponse]:
        """Many sets."""
        async for response in Stream(self._core.sets, self._core.role.parting, self._core.journals).run(request_iterator):
            yield response

    async def Reconcile(self, request: pb.ReconcileRequest, context: Any) -> pb.ReconcileResponse:
        """A node's journal against the store."""
        node, in_use = asked.told(request)
        self._core.role.may_write()
        await self._core.recovery.shown(request.epoch, request.revision)
        outcome = await self._core.reconciler.told(node, in_use, request.more)
        cluster = self._core.cluster
        return pb.ReconcileResponse(
            epoch=cluster.epoch,
            revision=cluster.revision,
            unknown_to_node=[message_of(record) for record in outcome.unknown_to_node],
            adopted=[convert.owner_to_proto(owner) for owner in outcome.adopted],
            refused=[convert.owner_to_proto(owner) for owner in outcome.refused],
            undecided=[convert.owner_to_proto(owner) for owner in outcome.undecided],
            recovering=self._core.recovery.recovering,
        )

    async def Changes(self, request: pb.ChangesRequest, context: Any) -> AsyncIterator[pb.ChangesResponse]:
        """The feed."""
        core = self._core
        async for response in Subscription(core, asked.position(request), core.settings.heartbeat).run():
            yield response
