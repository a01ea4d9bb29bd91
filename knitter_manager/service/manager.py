"""ManagerService: each method converts, calls the domain, converts back."""

from collections.abc import AsyncIterator
from typing import Any

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import manager_pb2_grpc
from knitter.v1 import types_pb2 as types
from knitter_common import convert
from knitter_common.errors import NotFound, Refused
from knitter_manager import keys
from knitter_manager.allocation.jobs import store_unavailable
from knitter_manager.core import Core
from knitter_manager.records import message_of
from knitter_manager.service import lists
from knitter_manager.service.changes import feed_changes
from knitter_manager.service.pages import page
from knitter_manager.service.stream import Stream
from knitter_manager.store.protocol import StoreDown


class ManagerService(manager_pb2_grpc.ManagerServiceServicer):
    """Reads are answered by every manager from its own state; writes by the one that writes."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # -- networks --------------------------------------------------------------------------------------------------------

    async def CreateNetwork(self, request: pb.CreateNetworkRequest, context: Any) -> pb.CreateNetworkResponse:
        """See manager.proto, as for all methods."""
        network = await self._core.networks.create(convert.network_from_proto(request.network))
        return pb.CreateNetworkResponse(network=convert.network_to_proto(network))

    async def GetNetwork(self, request: pb.GetNetworkRequest, context: Any) -> pb.GetNetworkResponse:
        """By tenant and name."""
        return pb.GetNetworkResponse(network=convert.network_to_proto(self._core.networks.get(request.tenant, request.name)))

    async def ListNetworks(self, request: pb.ListNetworksRequest, context: Any) -> pb.ListNetworksResponse:
        """A page."""
        cluster = self._core.cluster
        found, token = page(lists.networks(cluster, request.tenant, request.page_token), request.page_size)
        networks = [convert.network_to_proto(network) for network in found]
        return pb.ListNetworksResponse(networks=networks, next_page_token=token, revision=cluster.revision)

    async def UpdateNetwork(self, request: pb.UpdateNetworkRequest, context: Any) -> pb.UpdateNetworkResponse:
        """Refused where it would hurt."""
        network = await self._core.networks.update(convert.network_from_proto(request.network))
        return pb.UpdateNetworkResponse(network=convert.network_to_proto(network))

    async def DeleteNetwork(self, request: pb.DeleteNetworkRequest, context: Any) -> pb.DeleteNetworkResponse:
        """Refused while it is used."""
        await self._core.networks.delete(request.tenant, request.name, request.revision, request.source)
        return pb.DeleteNetworkResponse()

    # -- nodes -----------------------------------------------------------------------------------------------------------

    async def CreateNode(self, request: pb.CreateNodeRequest, context: Any) -> pb.CreateNodeResponse:
        """Registers it."""
        node = await self._core.nodes.create(convert.node_from_proto(request.node))
        return pb.CreateNodeResponse(node=convert.node_to_proto(node))

    async def GetNode(self, request: pb.GetNodeRequest, context: Any) -> pb.GetNodeResponse:
        """By name."""
        return pb.GetNodeResponse(node=convert.node_to_proto(self._core.nodes.get(request.name)))

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        """A page."""
        cluster = self._core.cluster
        found, token = page(lists.nodes(cluster, request.page_token), request.page_size)
        nodes = [convert.node_to_proto(node) for node in found]
        return pb.ListNodesResponse(nodes=nodes, next_page_token=token, revision=cluster.revision)

    async def UpdateNode(self, request: pb.UpdateNodeRequest, context: Any) -> pb.UpdateNodeResponse:
        """Also declares it gone."""
        node = await self._core.nodes.update(convert.node_from_proto(request.node))
        return pb.UpdateNodeResponse(node=convert.node_to_proto(node))

    async def DeleteNode(self, request: pb.DeleteNodeRequest, context: Any) -> pb.DeleteNodeResponse:
        """Forgets it."""
        await self._core.nodes.delete(request.name, request.revision)
        return pb.DeleteNodeResponse()

    # -- port sets -------------------------------------------------------------------------------------------------------

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
        if request.address:
            return await self._set_of_address(request)
        sets = lists.port_sets(cluster, request.tenant, request.node, request.network, request.page_token)
        found, token = page(sets, request.page_size)
        messages = [message_of(record) for record in found]
        return pb.ListPortSetsResponse(port_sets=messages, next_page_token=token, revision=cluster.revision)

    async def _set_of_address(self, request: pb.ListPortSetsRequest) -> pb.ListPortSetsResponse:
        cluster = self._core.cluster
        try:
            owner_key = await lists.holder_of(cluster, self._core.store, request.network, request.address)
        except StoreDown as error:
            raise store_unavailable(error) from error
        found: list[types.PortSet] = []
        if owner_key in cluster.sets:
            message = message_of(cluster.sets[owner_key])
            if request.tenant in ("", message.tenant) and request.node in ("", message.node):
                found = [message]
        return pb.ListPortSetsResponse(port_sets=found, revision=cluster.revision)

    async def Allocate(self, request: pb.AllocateRequest, context: Any) -> pb.AllocateResponse:
        """One set."""
        record = await self._core.sets.allocate(convert.allocation_from_proto(request.allocation))
        return pb.AllocateResponse(port_set=message_of(record or b""))

    async def Release(self, request: pb.ReleaseRequest, context: Any) -> pb.ReleaseResponse:
        """One set."""
        await self._core.sets.release(convert.give_back_from_proto(request.release))
        return pb.ReleaseResponse()

    async def StreamAllocations(
        self, request_iterator: AsyncIterator[pb.StreamAllocationsRequest], context: Any
    ) -> AsyncIterator[pb.StreamAllocationsResponse]:
        """Many sets."""
        async for response in Stream(self._core.sets, self._core.role.ending).run(request_iterator):
            yield response

    # -- nodes' journals, the feed, sources --------------------------------------------------------------------------------

    async def Reconcile(self, request: pb.ReconcileRequest, context: Any) -> pb.ReconcileResponse:
        """A node's journal against the store."""
        node = convert.node_from_proto(request.node)
        in_use = [convert.port_set_from_proto(message) for message in request.in_use]
        outcome = await self._core.reconciler.told(node, in_use, request.more)
        cluster = self._core.cluster
        return pb.ReconcileResponse(
            epoch=cluster.epoch,
            revision=cluster.revision,
            unknown_to_node=[message_of(record) for record in outcome.unknown_to_node],
            adopted=[convert.owner_to_proto(owner) for owner in outcome.adopted],
            refused=[convert.owner_to_proto(owner) for owner in outcome.refused],
        )

    async def Changes(self, request: pb.ChangesRequest, context: Any) -> AsyncIterator[pb.ChangesResponse]:
        """The feed."""
        core = self._core
        async for response in feed_changes(core.cluster, core.feed, core.role, request, core.settings.heartbeat):
            yield response


def _not_yet(method: str) -> Any:
    async def answer(self: ManagerService, request: Any, context: Any) -> Any:
        raise Refused("NOT_IMPLEMENTED", f"{method}: this release does not do it yet", method=method)

    return answer


for _kind in ("Tenant", "IPGroup", "IPClaim"):
    for _name in (f"Create{_kind}", f"Get{_kind}", f"List{_kind}s", f"Update{_kind}", f"Delete{_kind}"):
        setattr(ManagerService, _name, _not_yet(_name))
ManagerService.Adopt = _not_yet("Adopt")  # type: ignore[method-assign]
