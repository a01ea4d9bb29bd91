"""A manager's gRPC API in few words, for tests that read like the rules.

async with manager_on(await site.open()) as manager:
    await manager.network("control", "10.1.0.0/24", tenant="t1")
    await manager.group("g", ips=["10.1.0.5"])
    pod = await manager.pod("web-0", wish("control", ip_group="g"))
    assert told(pod) == ["10.1.0.5"]
    with refusal("GROUP_EXHAUSTED", "t1/g"):
        await manager.pod("web-1", wish("control", ip_group="g"))
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc

from harness.manager import serving
from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.errors import KnitterError, from_rpc_error
from knitter_manager.store import Store

TENANT = "t1"


class Refusal:
    """What an operation was refused with, once it was."""

    error: KnitterError


@contextlib.contextmanager
def refusal(reason: str, *said: str) -> Iterator[Refusal]:
    """The block ends with a gRPC error of that reason whose message holds these texts."""
    told = Refusal()
    try:
        yield told
    except grpc.aio.AioRpcError as failed:
        told.error = from_rpc_error(failed)
        assert told.error.reason == reason, told.error.message
        for text in said:
            assert text in told.error.message, told.error.message
        return
    raise AssertionError(f"{reason} was expected, and nothing was refused")


def wish(network: str, **fields: Any) -> types.Wish:
    """One interface on a network."""
    return types.Wish(network=network, **fields)


def pod_owner(name: str, uid: str = "", tenant: str = TENANT) -> types.Owner:
    """A pod; its UID is its name where none is told."""
    return types.Owner(pod=types.PodOwner(namespace=tenant, name=name, uid=uid or name))


def named_owner(name: str, tenant: str = TENANT) -> types.Owner:
    """Anything with a name."""
    return types.Owner(named=types.NamedOwner(tenant=tenant, name=name))


def told(port_set: types.PortSet) -> list[str]:
    """All addresses of a set, without prefix length."""
    return [one.cidr.partition("/")[0] for port in port_set.ports for one in port.addresses]


def members(group: types.IPGroup) -> list[str]:
    """A group's addresses."""
    return [one.address for one in group.addresses]


def users(group: types.IPGroup) -> dict[str, str]:
    """The used addresses of a group, and the pod or named owner that uses each."""
    return {one.address: one.used_by.pod.name or one.used_by.named.name for one in group.addresses if one.HasField("used_by")}


class Manager:
    """`stub` is that of ManagerService. Tenant and network default to t1 and its network `control`."""

    def __init__(self, stub: Any) -> None:
        self.stub = stub

    async def network(self, name: str, *cidrs: str | types.Subnet, tenant: str = TENANT, **fields: Any) -> types.Network:
        """Makes one."""
        subnets = [one if isinstance(one, types.Subnet) else types.Subnet(cidr=one) for one in cidrs]
        wanted = types.Network(tenant=tenant, name=name, subnets=subnets, **fields)
        made: types.Network = (await self.stub.CreateNetwork(pb.CreateNetworkRequest(network=wanted))).network
        return made

    async def read_network(self, name: str, tenant: str = TENANT) -> types.Network:
        """As it is."""
        found: types.Network = (await self.stub.GetNetwork(pb.GetNetworkRequest(tenant=tenant, name=name))).network
        return found

    async def change_network(self, name: str, tenant: str = TENANT, **fields: Any) -> types.Network:
        """The network with these fields, the others as they are."""
        wanted = await self.read_network(name, tenant)
        for field, value in fields.items():
            wanted.ClearField(field)  # type: ignore[arg-type]
            wanted.MergeFrom(types.Network(**{field: value}))
        changed: types.Network = (await self.stub.UpdateNetwork(pb.UpdateNetworkRequest(network=wanted))).network
        return changed

    async def networks(self, tenant: str = "") -> list[str]:
        """The paths of those that the tenant can use, or of all."""
        found = (await self.stub.ListNetworks(pb.ListNetworksRequest(tenant=tenant))).networks
        return [f"{one.tenant}/{one.name}" for one in found]

    async def delete_network(self, name: str, tenant: str = TENANT) -> None:
        """Ends it."""
        await self.stub.DeleteNetwork(pb.DeleteNetworkRequest(tenant=tenant, name=name))

    # -- tenants -----------------------------------------------------------------------------------------------------------

    async def tenant(self, name: str = TENANT, **fields: Any) -> types.Tenant:
        """Makes one."""
        made: types.Tenant = (await self.stub.CreateTenant(pb.CreateTenantRequest(tenant=types.Tenant(name=name, **fields)))).tenant
        return made

    async def change_tenant(self, name: str = TENANT, **fields: Any) -> types.Tenant:
        """The whole tenant as it shall be."""
        now: types.Tenant = (await self.stub.UpdateTenant(pb.UpdateTenantRequest(tenant=types.Tenant(name=name, **fields)))).tenant
        return now

    async def read_tenant(self, name: str = TENANT) -> types.Tenant:
        """As it is."""
        found: types.Tenant = (await self.stub.GetTenant(pb.GetTenantRequest(name=name))).tenant
        return found

    async def tenants(self) -> list[str]:
        """Their names."""
        return [one.name for one in (await self.stub.ListTenants(pb.ListTenantsRequest())).tenants]

    async def delete_tenant(self, name: str = TENANT) -> types.Tenant:
        """Begins its end."""
        begun: types.Tenant = (await self.stub.DeleteTenant(pb.DeleteTenantRequest(name=name))).tenant
        return begun

    async def node(self, name: str, **fields: Any) -> types.Node:
        """Registers one."""
        made: types.Node = (await self.stub.CreateNode(pb.CreateNodeRequest(node=types.Node(name=name, **fields)))).node
        return made

    # -- groups ------------------------------------------------------------------------------------------------------------

    async def group(
        self,
        name: str,
        ips: Sequence[str] = (),
        size: int = 0,
        *,
        tenant: str = TENANT,
        network: str = "control",
        labels: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> types.IPGroup:
        """Makes one."""
        wanted = _group(name, ips, size, tenant, network, labels, fields)
        made: types.IPGroup = (await self.stub.CreateIPGroup(pb.CreateIPGroupRequest(ip_group=wanted))).ip_group
        return made

    async def change_group(
        self,
        name: str,
        ips: Sequence[str] = (),
        size: int = 0,
        *,
        tenant: str = TENANT,
        network: str = "control",
        labels: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> types.IPGroup:
        """The whole group as it shall be."""
        wanted = _group(name, ips, size, tenant, network, labels, fields)
        now: types.IPGroup = (await self.stub.UpdateIPGroup(pb.UpdateIPGroupRequest(ip_group=wanted))).ip_group
        return now

    async def read_group(self, name: str, tenant: str = TENANT, network: str = "control") -> types.IPGroup:
        """As it is."""
        asked = pb.GetIPGroupRequest(tenant=tenant, network=network, name=name)
        found: types.IPGroup = (await self.stub.GetIPGroup(asked)).ip_group
        return found

    async def groups(self, tenant: str = "", network: str = "", **fields: Any) -> list[types.IPGroup]:
        """All of them."""
        asked = pb.ListIPGroupsRequest(tenant=tenant, network=network, **fields)
        return list((await self.stub.ListIPGroups(asked)).ip_groups)

    async def delete_group(self, name: str, tenant: str = TENANT, network: str = "control") -> None:
        """Ends it."""
        await self.stub.DeleteIPGroup(pb.DeleteIPGroupRequest(tenant=tenant, network=network, name=name))

    # -- claims ------------------------------------------------------------------------------------------------------------

    async def claim(self, name: str, *wanted: str, tenant: str = TENANT, network: str = "control", **fields: Any) -> types.IPClaim:
        """Makes one."""
        claim = types.IPClaim(tenant=tenant, name=name, network=network, wanted_addresses=wanted, **fields)
        made: types.IPClaim = (await self.stub.CreateIPClaim(pb.CreateIPClaimRequest(ip_claim=claim))).ip_claim
        return made

    async def change_claim(
        self, name: str, *wanted: str, tenant: str = TENANT, network: str = "control", **fields: Any
    ) -> types.IPClaim:
        """The whole claim as it shall be."""
        claim = types.IPClaim(tenant=tenant, name=name, network=network, wanted_addresses=wanted, **fields)
        now: types.IPClaim = (await self.stub.UpdateIPClaim(pb.UpdateIPClaimRequest(ip_claim=claim))).ip_claim
        return now

    async def read_claim(self, name: str, tenant: str = TENANT) -> types.IPClaim:
        """As it is."""
        found: types.IPClaim = (await self.stub.GetIPClaim(pb.GetIPClaimRequest(tenant=tenant, name=name))).ip_claim
        return found

    async def claims(self, tenant: str = "") -> list[types.IPClaim]:
        """All of them."""
        return list((await self.stub.ListIPClaims(pb.ListIPClaimsRequest(tenant=tenant))).ip_claims)

    async def delete_claim(self, name: str, tenant: str = TENANT) -> None:
        """Ends it."""
        await self.stub.DeleteIPClaim(pb.DeleteIPClaimRequest(tenant=tenant, name=name))

    # -- port sets ---------------------------------------------------------------------------------------------------------

    async def allocate(self, owner: types.Owner, *wishes: types.Wish, sandbox: str = "", **fields: Any) -> types.PortSet:
        """The owner's set, used by that sandbox if one is told."""
        binding = types.Binding(container_id=sandbox, netns=f"/run/netns/{sandbox}") if sandbox else None
        wanted = pb.Allocation(owner=owner, wishes=wishes, binding=binding, **fields)
        made: types.PortSet = (await self.stub.Allocate(pb.AllocateRequest(allocation=wanted))).port_set
        return made

    async def pod(self, name: str, *wishes: types.Wish, uid: str = "", tenant: str = TENANT, **fields: Any) -> types.PortSet:
        """A pod's set."""
        return await self.allocate(pod_owner(name, uid, tenant), *wishes, **fields)

    async def release(self, owner: types.Owner, **fields: Any) -> None:
        """Ends the owner's reservation, or what the fields say."""
        await self.stub.Release(pb.ReleaseRequest(release=pb.Return(owner=owner, **fields)))

    async def end_pod(self, name: str, uid: str = "", tenant: str = TENANT, **fields: Any) -> None:
        """The pod is gone."""
        await self.release(pod_owner(name, uid, tenant), **fields)

    async def sets(self, **filters: Any) -> list[types.PortSet]:
        """All port sets."""
        return list((await self.stub.ListPortSets(pb.ListPortSetsRequest(**filters))).port_sets)

    # -- looking on --------------------------------------------------------------------------------------------------------

    async def usage(self, network: str = f"{TENANT}/control") -> list[pb.PoolUsage]:
        """Of the network's pools."""
        answer = await self.stub.ListNetworkUsage(pb.ListNetworkUsageRequest(network=network))
        return list(answer.networks[0].pools)

    async def address(self, text: str, network: str = "") -> pb.AddressInfo:
        """What it is, in the first network that has it."""
        answer = await self.stub.GetAddress(pb.GetAddressRequest(network=network, address=text))
        return answer.addresses[0]  # type: ignore[no-any-return]

    async def position(self) -> pb.ChangesRequest:
        """Where the feed is now."""
        status = await self.stub.GetStatus(pb.GetStatusRequest())
        return pb.ChangesRequest(after_revision=status.revision, epoch=status.epoch)

    async def until(self, position: pb.ChangesRequest, holds: Callable[[types.Change], bool]) -> list[types.Change]:
        """The feed from there on, up to the first change for which it holds; at most 20 s."""
        seen: list[types.Change] = []
        call = self.stub.Changes(position)
        try:
            async with asyncio.timeout(20):
                async for answer in call:
                    for change in answer.changes.changes:
                        seen.append(change)
                        if holds(change):
                            return seen
        finally:
            call.cancel()
        raise AssertionError("the feed ended")


def _group(
    name: str,
    ips: Sequence[str],
    size: int,
    tenant: str,
    network: str,
    labels: Mapping[str, str] | None,
    fields: Mapping[str, Any],
) -> types.IPGroup:
    selector = None if labels is None else types.LabelSelector(match_labels=labels)
    return types.IPGroup(tenant=tenant, name=name, network=network, ips=ips, size=size, pod_selector=selector, **fields)


@contextlib.asynccontextmanager
async def manager_on(store: Store, **keys: Any) -> AsyncIterator[Manager]:
    """A manager in this process that writes to the store; keys as in its file."""
    async with serving(store, **keys) as (stub, _):
        yield Manager(stub)
