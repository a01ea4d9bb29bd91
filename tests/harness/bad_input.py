"""A manager that holds a bit of everything, and requests that it must refuse without changing any of it.

with settled_manager() as place:
    place.refused(Bad("GetNode", pb.GetNodeRequest(name="n9"), "OBJECT_NOT_FOUND", "n9"))
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from harness.manager import serving
from harness.rpc import Calls, calls_to
from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.errors import KnitterError, from_status


class Bad:
    """A request, the reason it is refused with, and what the message must say: the field, the value, the way out."""

    def __init__(self, method: str, request: Any, reason: str, *words: str) -> None:
        self.method, self.request, self.reason, self.words = method, request, reason, words

    def __repr__(self) -> str:
        return f"{self.method}-{self.reason}-{'-'.join(self.words)}"[:90]


def judged(bad: Bad, answer: Any) -> KnitterError:
    """What an answer must be."""
    assert isinstance(answer, KnitterError), f"answered: {answer}"
    assert answer.reason == bad.reason, answer.message
    assert [word for word in bad.words if word not in answer.message] == [], answer.message
    assert len(answer.message) < 600
    return answer


class Place:
    """The manager, and all that it holds."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self._settle()

    def refused(self, bad: Bad) -> KnitterError:
        """A call that must fail as told, and must change nothing."""
        before = self.seen()
        answer = self.calls.call(bad.method, bad.request)
        assert self.seen() == before
        return judged(bad, answer)

    def refused_in_stream(self, bad: Bad) -> KnitterError:
        """An operation of a stream that must fail as told, in its outcome, and must change nothing."""
        before = self.seen()
        request = pb.StreamAllocationsRequest(operations=[bad.request])
        (response,) = self.calls.stream("StreamAllocations", [request])
        (outcome,) = response.outcomes
        assert outcome.id == bad.request.id
        assert self.seen() == before
        return judged(bad, from_status(outcome.error) if outcome.WhichOneof("result") == "error" else outcome)

    def seen(self) -> Mapping[str, Any]:
        """The store's revision; and what the memory says is held, which a failure must give back."""
        return {
            "revision": self.calls.call("GetStatus", pb.GetStatusRequest()).revision,
            "networks": self.calls.call("ListNetworkUsage", pb.ListNetworkUsageRequest()).networks,
            "nodes": self.calls.call("ListNodeUsage", pb.ListNodeUsageRequest()).nodes,
            "tenants": self.calls.call("ListTenants", pb.ListTenantsRequest()).tenants,
        }

    def _made(self, method: str, request: Any) -> Any:
        answer = self.calls.call(method, request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _settle(self) -> None:
        for tenant in (
            types.Tenant(name="small", quota=types.Quota(networks=1, ports=1, addresses=2)),
            types.Tenant(name="plain", allowed_types=[types.NETWORK_TYPE_BRIDGE]),
            types.Tenant(name="devices", allowed_types=[types.NETWORK_TYPE_MACVLAN], allowed_physical_networks=["eth1"]),
        ):
            self._made("CreateTenant", pb.CreateTenantRequest(tenant=tenant))
        pool = types.Pool(start="10.1.0.10", end="10.1.0.20")
        for made in (
            network("default", types.Subnet(cidr="10.0.0.0/16", gateway="10.0.0.1"), public=True),
            network("a", types.Subnet(cidr="10.1.0.0/24", gateway="10.1.0.1", pools=[pool], exclude=["10.1.0.15"]),
                    types.Subnet(cidr="2001:db8:1::/64"), tenant="t1"),
            network("tiny", types.Subnet(cidr="10.2.0.0/30"), public=True),
            network("shared", types.Subnet(cidr="10.3.0.0/24"), public=True),
            network("groups", types.Subnet(cidr="10.4.0.0/24"), public=True),
            network("declared", types.Subnet(cidr="10.5.0.0/24"), source="files:x"),
            network("own", types.Subnet(cidr="10.6.0.0/24"), tenant="small"),
            network("overlay", types.Subnet(cidr="10.7.0.0/24"), type=types.NETWORK_TYPE_VXLAN, segmentation_id=77),
            network("devices", types.Subnet(cidr="10.8.0.0/24"), type=types.NETWORK_TYPE_MACVLAN, physical_network="eth9"),
        ):  # fmt: skip
            self._made("CreateNetwork", made)
        self._made("CreateNode", pb.CreateNodeRequest(node=types.Node(name="n1", underlay_address="192.0.2.1")))
        for name, ips in (("g", ["10.4.0.10", "10.4.0.11"]), ("none", [])):
            self._made("CreateIPGroup", pb.CreateIPGroupRequest(ip_group=types.IPGroup(name=name, network="groups", ips=ips)))
        for claim in ("used", "idle"):
            self._made("CreateIPClaim", pb.CreateIPClaimRequest(ip_claim=types.IPClaim(name=claim, network="default")))
        for wanted in (
            allocate("vm", types.Wish(network="a", addresses=["10.1.0.10"], mac="02:00:00:00:00:0a"), tenant="t1"),
            allocate("x1", types.Wish(network="tiny")),
            allocate("x2", types.Wish(network="tiny")),
            allocate("user", types.Wish(network="shared"), tenant="t2"),
            allocate("gu", types.Wish(network="groups", ip_group="g")),
            allocate("claimant", types.Wish(network="default", ip_claim="used")),
            allocate("one", types.Wish(network="own"), tenant="small"),
            pb.AllocateRequest(allocation=pb.Allocation(
                owner=pod(), node="n1", wishes=[types.Wish(network="a")], binding=types.Binding(container_id="c1", netns="/ns/c1"),
            )),
        ):  # fmt: skip
            self._made("Allocate", wanted)


def network(name: str, *subnets: types.Subnet, tenant: str = "admin", **fields: Any) -> pb.CreateNetworkRequest:
    """Asks for a network."""
    return pb.CreateNetworkRequest(network=types.Network(tenant=tenant, name=name, subnets=subnets, **fields))


def changed(name: str, *subnets: types.Subnet, tenant: str = "admin", **fields: Any) -> pb.UpdateNetworkRequest:
    """Asks for a change of one."""
    return pb.UpdateNetworkRequest(network=types.Network(tenant=tenant, name=name, subnets=subnets, **fields))


def named(name: str, tenant: str = "") -> types.Owner:
    """An owner by name."""
    return types.Owner(named=types.NamedOwner(tenant=tenant, name=name))


def pod(name: str = "web", uid: str = "u1", namespace: str = "t1") -> types.Owner:
    """A pod."""
    return types.Owner(pod=types.PodOwner(namespace=namespace, name=name, uid=uid))


def sandbox(node: str = "n1", container_id: str = "c9", cni_network: str = "knitter", interface: str = "eth0") -> types.Owner:
    """A sandbox."""
    owner = types.SandboxOwner(node=node, container_id=container_id, cni_network=cni_network, interface=interface)
    return types.Owner(sandbox=owner)


def allocate(name: str, *wishes: types.Wish, tenant: str = "", **fields: Any) -> pb.AllocateRequest:
    """Asks for a set of a named owner."""
    return pb.AllocateRequest(allocation=pb.Allocation(owner=named(name, tenant), wishes=wishes, **fields))


@contextmanager
def settled_manager() -> Iterator[Place]:
    """In memory, behind gRPC, in this process."""
    with calls_to(serving(rest="0s")) as calls:
        yield Place(calls)
