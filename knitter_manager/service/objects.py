"""Networks and nodes."""

from typing import Any

from knitter.v1 import manager_pb2 as pb
from knitter_common import convert
from knitter_common.serve.pages import page_of
from knitter_manager.service import asked, lists
from knitter_manager.service.base import Calls


class ObjectCalls(Calls):
    """Calls about networks and nodes."""

    # -- networks --------------------------------------------------------------------------------------------------------

    async def CreateNetwork(self, request: pb.CreateNetworkRequest, context: Any) -> pb.CreateNetworkResponse:
        """Makes it, with a segmentation id where it needs one."""
        network = await self._core.networks.create(convert.network_from_proto(request.network))
        return pb.CreateNetworkResponse(network=convert.network_to_proto(network))

    async def GetNetwork(self, request: pb.GetNetworkRequest, context: Any) -> pb.GetNetworkResponse:
        """By tenant and name."""
        network = self._core.networks.get(asked.tenant(request.tenant), asked.name(request.name))
        return pb.GetNetworkResponse(network=convert.network_to_proto(network))

    async def ListNetworks(self, request: pb.ListNetworksRequest, context: Any) -> pb.ListNetworksResponse:
        """A page."""
        cluster = self._core.cluster
        found = lists.networks(cluster, asked.tenant(request.tenant), asked.path_token(request.page_token))
        networks, token = page_of(found, request.page_size, lambda entry: convert.network_to_proto(entry.network))
        return pb.ListNetworksResponse(networks=networks, next_page_token=token, revision=cluster.revision)

    async def UpdateNetwork(self, request: pb.UpdateNetworkRequest, context: Any) -> pb.UpdateNetworkResponse:
        """Refused where it would hurt."""
        network = await self._core.networks.update(convert.network_from_proto(request.network))
        return pb.UpdateNetworkResponse(network=convert.network_to_proto(network))

    async def DeleteNetwork(self, request: pb.DeleteNetworkRequest, context: Any) -> pb.DeleteNetworkResponse:
        """Refused while it is used."""
        tenant, name = asked.tenant(request.tenant), asked.name(request.name)
        await self._core.networks.delete(tenant, name, request.revision, asked.declarer(request.source))
        return pb.DeleteNetworkResponse()

    # -- nodes -----------------------------------------------------------------------------------------------------------

    async def CreateNode(self, request: pb.CreateNodeRequest, context: Any) -> pb.CreateNodeResponse:
        """Registers it."""
        node = await self._core.nodes.create(convert.node_from_proto(request.node))
        return pb.CreateNodeResponse(node=convert.node_to_proto(node))

    async def GetNode(self, request: pb.GetNodeRequest, context: Any) -> pb.GetNodeResponse:
        """By name."""
        return pb.GetNodeResponse(node=convert.node_to_proto(self._core.nodes.get(asked.dotted_name(request.name))))

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        """A page."""
        cluster = self._core.cluster
        found = lists.nodes(cluster, asked.name_token(request.page_token))
        nodes, token = page_of(found, request.page_size, convert.node_to_proto)
        return pb.ListNodesResponse(nodes=nodes, next_page_token=token, revision=cluster.revision)

    async def UpdateNode(self, request: pb.UpdateNodeRequest, context: Any) -> pb.UpdateNodeResponse:
        """Also declares it gone."""
        node = await self._core.nodes.update(convert.node_from_proto(request.node))
        return pb.UpdateNodeResponse(node=convert.node_to_proto(node))

    async def DeleteNode(self, request: pb.DeleteNodeRequest, context: Any) -> pb.DeleteNodeResponse:
        """Forgets it."""
        await self._core.nodes.delete(asked.dotted_name(request.name), request.revision)
        return pb.DeleteNodeResponse()
