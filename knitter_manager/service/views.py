"""How full things are, and what an address is."""

from typing import Any

from knitter.v1 import manager_pb2 as pb
from knitter_common.model import ADMIN
from knitter_common.serve.pages import page
from knitter_manager.service import asked, lists
from knitter_manager.service.base import Calls, answered
from knitter_manager.usage import network_usage, node_usage, tenant_usage


class ViewCalls(Calls):
    """Calls of people who look."""

    async def ListNetworkUsage(self, request: pb.ListNetworkUsageRequest, context: Any) -> pb.ListNetworkUsageResponse:
        """A page."""
        core = self._core
        tenant, after = asked.tenant(request.tenant), asked.path_token(request.page_token)
        if request.network:
            found, token = [core.cluster.names.find(tenant or ADMIN, asked.network(request.network), "network")], ""
        else:
            found, token = page(lists.networks(core.cluster, tenant, after), request.page_size)
        usage = [network_usage(entry, core.clock(), core.settings.rest) for entry in found]
        return pb.ListNetworkUsageResponse(networks=usage, next_page_token=token, revision=core.cluster.revision)

    async def ListNodeUsage(self, request: pb.ListNodeUsageRequest, context: Any) -> pb.ListNodeUsageResponse:
        """A page."""
        cluster, connected = self._core.cluster, self._core.journals.connected
        found, token = page(lists.node_usage(cluster, asked.name_token(request.page_token)), request.page_size)
        nodes = [node_usage(entry, connected(entry.node.name)) for entry in found]
        return pb.ListNodeUsageResponse(nodes=nodes, next_page_token=token, revision=cluster.revision)

    async def ListTenantUsage(self, request: pb.ListTenantUsageRequest, context: Any) -> pb.ListTenantUsageResponse:
        """A page."""
        cluster, quota_of = self._core.cluster, self._core.planner.quota_of
        found, token = page(lists.tenant_usage(cluster, asked.name_token(request.page_token)), request.page_size)
        tenants = [tenant_usage(entry, quota_of(entry)) for entry in found]
        return pb.ListTenantUsageResponse(tenants=tenants, next_page_token=token, revision=cluster.revision)

    async def GetAddress(self, request: pb.GetAddressRequest, context: Any) -> pb.GetAddressResponse:
        """On one network, or on all."""
        found = self._core.addresses.find(asked.network(request.network), request.address)
        return pb.GetAddressResponse(addresses=await answered(found))
