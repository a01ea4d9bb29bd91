"""Tenants, and what they declare beside networks: IP groups and claims; and who declares an object."""

from typing import Any

from knitter.v1 import manager_pb2 as pb
from knitter_common import convert
from knitter_common.serve.pages import page, page_of
from knitter_manager.service import asked, lists
from knitter_manager.service.base import Calls
from knitter_manager.state import GroupEntry


class TenantCalls(Calls):
    """Calls about tenants, IP groups, claims and sources."""

    async def CreateTenant(self, request: pb.CreateTenantRequest, context: Any) -> pb.CreateTenantResponse:
        """Makes it."""
        tenant = await self._core.tenants.create(convert.tenant_from_proto(request.tenant))
        return pb.CreateTenantResponse(tenant=convert.tenant_to_proto(tenant))

    async def GetTenant(self, request: pb.GetTenantRequest, context: Any) -> pb.GetTenantResponse:
        """With what it uses."""
        return pb.GetTenantResponse(tenant=convert.tenant_to_proto(self._core.tenants.get(asked.name(request.name))))

    async def ListTenants(self, request: pb.ListTenantsRequest, context: Any) -> pb.ListTenantsResponse:
        """A page."""
        cluster = self._core.cluster
        found = lists.tenants(cluster, asked.name_token(request.page_token))
        tenants, token = page_of(found, request.page_size, convert.tenant_to_proto)
        return pb.ListTenantsResponse(tenants=tenants, next_page_token=token, revision=cluster.revision)

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, context: Any) -> pb.UpdateTenantResponse:
        """Quotas are never below use."""
        tenant = await self._core.tenants.update(convert.tenant_from_proto(request.tenant))
        return pb.UpdateTenantResponse(tenant=convert.tenant_to_proto(tenant))

    async def DeleteTenant(self, request: pb.DeleteTenantRequest, context: Any) -> pb.DeleteTenantResponse:
        """Begins it."""
        source = asked.declarer(request.source)
        tenant = await self._core.tenants.delete(asked.name(request.name), request.revision, source)
        return pb.DeleteTenantResponse(tenant=convert.tenant_to_proto(tenant) if tenant is not None else None)

    # -- IP groups -------------------------------------------------------------------------------------------------------

    async def CreateIPGroup(self, request: pb.CreateIPGroupRequest, context: Any) -> pb.CreateIPGroupResponse:
        """All of it or nothing."""
        group = await self._core.groups.create(convert.ip_group_from_proto(request.ip_group))
        return pb.CreateIPGroupResponse(ip_group=convert.ip_group_to_proto(group))

    async def GetIPGroup(self, request: pb.GetIPGroupRequest, context: Any) -> pb.GetIPGroupResponse:
        """With the user of each address."""
        tenant, network = asked.tenant(request.tenant), asked.its_network(request.network)
        group = await self._core.groups.get(tenant, network, asked.name(request.name))
        return pb.GetIPGroupResponse(ip_group=convert.ip_group_to_proto(group))

    async def ListIPGroups(self, request: pb.ListIPGroupsRequest, context: Any) -> pb.ListIPGroupsResponse:
        """A page."""
        cluster = self._core.cluster
        tenant, network, after = asked.tenant(request.tenant), asked.network(request.network), asked.group_token(request.page_token)
        found, token = page(lists.groups(cluster, tenant, network, after), request.page_size, _weight)
        groups = await self._core.groups.all_shown(found)
        messages = [convert.ip_group_to_proto(group) for group in groups]
        return pb.ListIPGroupsResponse(ip_groups=messages, next_page_token=token, revision=cluster.revision)

    async def UpdateIPGroup(self, request: pb.UpdateIPGroupRequest, context: Any) -> pb.UpdateIPGroupResponse:
        """No used address is lost."""
        group = await self._core.groups.update(convert.ip_group_from_proto(request.ip_group))
        return pb.UpdateIPGroupResponse(ip_group=convert.ip_group_to_proto(group))

    async def DeleteIPGroup(self, request: pb.DeleteIPGroupRequest, context: Any) -> pb.DeleteIPGroupResponse:
        """Refused while it is used."""
        tenant, network, name = asked.tenant(request.tenant), asked.its_network(request.network), asked.name(request.name)
        await self._core.groups.delete(tenant, network, name, request.revision, asked.declarer(request.source))
        return pb.DeleteIPGroupResponse()

    # -- claims ----------------------------------------------------------------------------------------------------------

    async def CreateIPClaim(self, request: pb.CreateIPClaimRequest, context: Any) -> pb.CreateIPClaimResponse:
        """Takes its addresses."""
        claim = await self._core.claims.create(convert.ip_claim_from_proto(request.ip_claim))
        return pb.CreateIPClaimResponse(ip_claim=convert.ip_claim_to_proto(claim))

    async def GetIPClaim(self, request: pb.GetIPClaimRequest, context: Any) -> pb.GetIPClaimResponse:
        """By tenant and name."""
        claim = self._core.claims.get(asked.tenant(request.tenant), asked.dotted_name(request.name))
        return pb.GetIPClaimResponse(ip_claim=convert.ip_claim_to_proto(claim))

    async def ListIPClaims(self, request: pb.ListIPClaimsRequest, context: Any) -> pb.ListIPClaimsResponse:
        """A page."""
        cluster = self._core.cluster
        found = lists.claims(cluster, asked.tenant(request.tenant), asked.claim_token(request.page_token))
        claims, token = page_of(found, request.page_size, convert.ip_claim_to_proto)
        return pb.ListIPClaimsResponse(ip_claims=claims, next_page_token=token, revision=cluster.revision)

    async def UpdateIPClaim(self, request: pb.UpdateIPClaimRequest, context: Any) -> pb.UpdateIPClaimResponse:
        """Refused while it is used."""
        claim = await self._core.claims.update(convert.ip_claim_from_proto(request.ip_claim))
        return pb.UpdateIPClaimResponse(ip_claim=convert.ip_claim_to_proto(claim))

    async def DeleteIPClaim(self, request: pb.DeleteIPClaimRequest, context: Any) -> pb.DeleteIPClaimResponse:
        """Refused while it is used."""
        tenant, name = asked.tenant(request.tenant), asked.dotted_name(request.name)
        await self._core.claims.delete(tenant, name, request.revision, asked.declarer(request.source))
        return pb.DeleteIPClaimResponse()

    # -- sources ---------------------------------------------------------------------------------------------------------

    async def Adopt(self, request: pb.AdoptRequest, context: Any) -> pb.AdoptResponse:
        """Moves an object to another source."""
        revision = await self._core.adoption.move(request.kind, asked.tenant(request.tenant), request.name, request.source)
        return pb.AdoptResponse(revision=revision)


def _weight(group: GroupEntry) -> int:
    """About how many bytes it has with the users of its addresses."""
    return 1000 + 300 * len(group.group.addresses)
