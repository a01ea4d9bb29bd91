"""Port sets, journals, lists and feeds asked for with fields that cannot be: each call, and each operation of a stream, is refused
with its reason, a message that names the field, the value and the way out, and nothing has changed."""

from collections.abc import Iterator

import grpc
import pytest
from harness.bad_input import Bad, Place, allocate, judged, named, pod, sandbox, settled_manager
from harness.rpc import whole_error

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with settled_manager() as made:
        yield made


def owned(owner: types.Owner | None, *words: str, reason: str = "FIELD_INVALID", **fields: object) -> Bad:
    """Allocate for that owner."""
    return Bad("Allocate", pb.AllocateRequest(allocation=pb.Allocation(owner=owner, **fields)), reason, *words)


def wished(reason: str, words: tuple[str, ...], *wishes: types.Wish, tenant: str = "", **fields: object) -> Bad:
    """Allocate with these wishes."""
    return Bad("Allocate", allocate("new", *wishes, tenant=tenant, **fields), reason, *words)


def one(reason: str, words: tuple[str, ...], network: str = "default", tenant: str = "", **fields: object) -> Bad:
    """Allocate with one wish."""
    return wished(reason, words, types.Wish(network=network, **fields), tenant=tenant)


OWNERS = [
    Bad("Allocate", pb.AllocateRequest(), "FIELD_INVALID", "owner", "is missing", "set one of pod, sandbox and named"),
    owned(types.Owner(), "owner", "is missing", "set one of"),
    owned(pod(uid=""), "owner.pod.uid", "is empty", "say which"),
    owned(pod(name="a/b"), "owner.pod.name", "'a/b'", "write it without"),
    owned(pod(namespace="T 1"), "owner.pod.namespace", "'T 1'", "use a-z"),
    owned(sandbox(container_id=""), "owner.sandbox.container_id", "is empty", "say which"),
    owned(sandbox(interface="a/b"), "owner.sandbox.interface", "'a/b'", "write it without"),
    owned(sandbox(node="N_1"), "owner.sandbox.node", "'N_1'", "use a-z"),
    owned(sandbox(node="n1"), "node", "'n2'", "'n1'", "leave it out", node="n2"),
    owned(named(""), "owner.named.name", "is empty", "say which"),
    owned(named("x", "T/1"), "owner.named.tenant", "'T/1'", "write it without"),
    owned(named("x", "T1"), "owner.named.tenant", "'T1'", "use a-z"),
    owned(named("x"), "tenant", "'T1'", "use a-z", tenant="T1"),
    owned(named("x"), "node", "'n/1'", "use a-z", node="n/1"),
    owned(named("x"), "binding.container_id", "is empty", "say which sandbox", binding=types.Binding(netns="/ns/x")),
    owned(named("x"), "labels", "'a b'", "write for example", labels={"a b": "c"}),
    owned(named("vm", "t1"), "t1/vm", "other wishes", "revision", reason="OWNER_HAS_OTHER_WISHES"),
    owned(pod(), "t1/web", "c1", "n1", reason="SET_BOUND_ELSEWHERE", node="n2", wishes=[types.Wish(network="a")]),
]

WISHES = [
    one("NETWORK_NOT_FOUND", ("wishes[0]", "'defaul'", "did you mean 'default'"), "defaul"),
    one("NETWORK_NOT_FOUND", ("wishes[0]", "'t1/a'", "tenant t2"), "t1/a", tenant="t2"),
    one("WISH_INVALID", ("wishes[0]", "'a/b/c'", "write 'name' or 'tenant/name'"), "a/b/c"),
    one("WISH_INVALID", ("wishes[0]", "interface", "'a/b'", "use no '/'"), interface="a/b"),
    one("WISH_INVALID", ("wishes[0]", "interface", "16 bytes", "at most 15"), interface="x" * 16),
    one("WISH_INVALID", ("wishes[0]", "interface", "'lo'", "choose another"), interface="lo"),
    one("WISH_INVALID", ("wishes[0]", "address", "'10.0.0.300'", "no IPv4 or IPv6 address"), addresses=["10.0.0.300"]),
    one("WISH_INVALID", ("wishes[0]", "address", "10.0.0.9", "name it once"), addresses=["10.0.0.9", "10.0.0.9/16"]),
    one("WISH_INVALID", ("wishes[0]", "127.0.0.1", "loopback"), addresses=["127.0.0.1"]),
    one("WISH_INVALID", ("wishes[0]", "10.0.0.9/40", "from 1 to 32"), addresses=["10.0.0.9/40"]),
    one("ADDRESS_UNUSABLE", ("wishes[0]", "10.9.0.9", "10.0.0.0/16"), addresses=["10.9.0.9"]),
    one("ADDRESS_UNUSABLE", ("wishes[0]", "10.0.0.9/24", "10.0.0.0/16", "write 10.0.0.9"), addresses=["10.0.0.9/24"]),
    one("ADDRESS_UNUSABLE", ("wishes[0]", "10.0.0.1", "gateway"), addresses=["10.0.0.1"]),
    one("ADDRESS_UNUSABLE", ("wishes[0]", "10.0.255.255"), addresses=["10.0.255.255"]),
    one("ADDRESS_UNUSABLE", ("wishes[0]", "10.1.0.15", "excluded"), "a", tenant="t1", addresses=["10.1.0.15"]),
    one("ADDRESS_UNUSABLE", ("wishes[0]", "10.1.0.30", "pool"), "a", tenant="t1", addresses=["10.1.0.30"]),
    one("ADDRESS_TAKEN", ("wishes[0]", "10.1.0.10", "t1/vm"), "a", tenant="t1", addresses=["10.1.0.10"]),
    one("ADDRESS_TAKEN", ("wishes[0]", "10.4.0.11", "IP group", "g", "name the group"), "groups", addresses=["10.4.0.11"]),
    one("WISH_INVALID", ("wishes[0]", "MAC", "'zz'", "write six octets"), mac="zz"),
    one("WISH_INVALID", ("wishes[0]", "MAC", "'01:00:5e:00:00:01'", "must be even"), mac="01:00:5e:00:00:01"),
    one("MAC_TAKEN", ("wishes[0]", "02:00:00:00:00:0a", "t1/vm"), "a", tenant="t1", mac="02:00:00:00:00:0a"),
    one("FIELD_INVALID", ("wish.nic_type", "99", "NORMAL"), nic_type=99),
    one("WISH_INVALID", ("wishes[0]", "roles[1]", "'contrl'", "did you mean 'control'"), roles=["std", "contrl"]),
    one("WISH_INVALID", ("wishes[0]", "roles[1]", "'std'", "comes once"), roles=["std", "std"]),
    one("WISH_INVALID", ("wishes[0]", "default route", "'gw'", "no IPv4 or IPv6 address"), default_routes=["gw"]),
    one("OBJECT_NOT_FOUND", ("wishes[0]", "IP group", "'h'", "known are"), "groups", ip_group="h"),
    one("GROUP_EXHAUSTED", ("wishes[0]", "none", "no unused"), "groups", ip_group="none"),
    one("OBJECT_NOT_FOUND", ("wishes[0]", "claim", "'clam'", "make it first"), ip_claim="clam"),
    one("OBJECT_IN_USE", ("wishes[0]", "admin/used", "admin/claimant"), ip_claim="used"),
    one("WISH_INVALID", ("wishes[0]", "admin/idle", "admin/default", "admin/tiny"), "tiny", ip_claim="idle"),
    one("WISH_INVALID", ("wishes[0]", "claim", "remove"), ip_claim="idle", mac="02:00:00:00:00:07"),
    one("POOL_EXHAUSTED", ("wishes[0]", "admin/tiny", "10.2.0.0/30"), "tiny"),
    one("QUOTA_EXCEEDED", ("small", "1 of 1", "ports"), "own", tenant="small"),
    one("LIMIT_EXCEEDED", ("wishes", "metadata", "65536"), metadata={"x": "y" * 70_000}),
    wished("LIMIT_EXCEEDED", ("33 interfaces", "at most 32"), *[types.Wish(network="default")] * 33),
    wished("LIMIT_EXCEEDED", ("addresses", "at most 48"),
           *[types.Wish(network="default", interface=f"i{at}", addresses=[f"10.0.{at}.{n}" for n in (5, 6)]) for at in range(30)]),
    wished("WISH_INVALID", ("wishes[1]", "'x'", "wishes[0]", "choose another"),
           *[types.Wish(network="default", interface="x")] * 2),
    wished("MAC_TAKEN", ("wishes[1]", "02:00:00:00:00:07", "choose another"),
           *[types.Wish(network="default", interface=f"i{at}", mac="02:00:00:00:00:07") for at in range(2)]),
    wished("WISH_INVALID", ("wishes[1]", "admin/idle", "another interface"),
           *[types.Wish(network="default", interface=f"i{at}", ip_claim="idle") for at in range(2)]),
    wished("POOL_EXHAUSTED", ("wishes[1]", "admin/tiny"), types.Wish(network="default"), types.Wish(network="tiny")),
]  # fmt: skip


@pytest.mark.parametrize("bad", [*OWNERS, *WISHES], ids=repr)
def test_a_set_that_cannot_be(place: Place, bad: Bad) -> None:
    place.refused(bad)


@pytest.mark.parametrize("bad", [*OWNERS, *WISHES], ids=repr)
def test_a_set_that_cannot_be_in_a_stream(place: Place, bad: Bad) -> None:
    operation = pb.AllocationOperation(id=7, allocate=bad.request.allocation)
    place.refused_in_stream(Bad("", operation, bad.reason, *bad.words))


def operation(reason: str, *words: str, **what: object) -> Bad:
    """An operation of a stream."""
    return Bad("StreamAllocations", pb.AllocationOperation(id=2**64 - 1, **what), reason, *words)


BOUND = types.Binding(container_id="c2")
OPERATIONS = [
    operation("FIELD_INVALID", "operation", "is missing", "set one of"),
    operation("FIELD_INVALID", "owner", "is missing", allocate=pb.Allocation()),
    operation("FIELD_INVALID", "binding.container_id", "is empty", "say which", bind=pb.Bind(owner=pod())),
    operation("FIELD_INVALID", "owner", "is missing", bind=pb.Bind(binding=BOUND)),
    operation("FIELD_INVALID", "node", "'n/2'", "use a-z", bind=pb.Bind(owner=pod(), binding=BOUND, node="n/2")),
    operation("OBJECT_NOT_FOUND", "t1/nobody", "allocate it first", bind=pb.Bind(owner=pod("nobody"), binding=BOUND)),
    operation("SET_BOUND_ELSEWHERE", "t1/web", "c1", "n1", bind=pb.Bind(owner=pod(), binding=BOUND, node="n2")),
    operation("FIELD_INVALID", "owner", "is missing", release=pb.Return()),
    operation("FIELD_INVALID", "owner.pod.uid", "is empty", release=pb.Return(owner=pod(uid=""))),
    operation("REVISION_STALE", "t1/vm", "not 1", release=pb.Return(owner=named("vm", "t1"), revision=1)),
]


@pytest.mark.parametrize("bad", OPERATIONS, ids=repr)
def test_an_operation_that_cannot_be(place: Place, bad: Bad) -> None:
    place.refused_in_stream(bad)


def test_one_bad_operation_does_not_hurt_its_neighbours(place: Place) -> None:
    release = pb.Return(owner=named("never"))
    first, last = (pb.AllocationOperation(id=number, release=release) for number in (1, 2))
    request = pb.StreamAllocationsRequest(operations=[first, OPERATIONS[0].request, last])
    outcomes = [outcome for response in place.calls.stream("StreamAllocations", [request]) for outcome in response.outcomes]
    told = {outcome.id: outcome.WhichOneof("result") for outcome in outcomes}
    assert told == {1: "released", 2: "released", 2**64 - 1: "error"}


def test_a_node_that_cannot_be(place: Place) -> None:
    request = pb.StreamAllocationsRequest(node="N_1")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        place.calls.stream("StreamAllocations", [request])
    judged(Bad("StreamAllocations", request, "FIELD_INVALID", "node", "'N_1'", "use a-z"), whole_error(refused.value))


def listed(kind: str, *words: str, **fields: object) -> Bad:
    """List<kind>."""
    return Bad(f"List{kind}", getattr(pb, f"List{kind}Request")(**fields), "FIELD_INVALID", *words)


def reconcile(*words: str, **fields: object) -> Bad:
    """A node that tells nonsense."""
    return Bad("Reconcile", pb.ReconcileRequest(**fields), "FIELD_INVALID", *words)


def running(owner: types.Owner, cidr: str = "10.0.0.7/16") -> types.PortSet:
    """A set that a node says runs there."""
    addresses = [types.PortAddress(cidr=cidr)]
    port = types.Port(network_id="0123456789ab", network="admin/default", interface="eth0", addresses=addresses)
    return types.PortSet(owner=owner, tenant="admin", ports=[port])


TOKEN = "send the next_page_token"
N1 = types.Node(name="n1")
OTHERS = [
    Bad("Release", pb.ReleaseRequest(), "FIELD_INVALID", "owner", "is missing", "set one of"),
    Bad("Release", pb.ReleaseRequest(release=pb.Return(owner=named("vm", "t1"), revision=1)), "REVISION_STALE", "t1/vm", "not 1"),
    Bad("GetPortSet", pb.GetPortSetRequest(), "FIELD_INVALID", "owner", "is missing", "set one of"),
    Bad("GetPortSet", pb.GetPortSetRequest(owner=named("nobody")), "OBJECT_NOT_FOUND", "admin/nobody", "no port set"),
    Bad("GetAddress", pb.GetAddressRequest(address="10.0.0"), "FIELD_INVALID", "address", "'10.0.0'", "no IPv4 or IPv6 address"),
    Bad("GetAddress", pb.GetAddressRequest(), "FIELD_INVALID", "address", "''"),
    Bad("GetAddress", pb.GetAddressRequest(address="10.0.0.5/16"), "FIELD_INVALID", "address", "write the address alone"),
    Bad("GetAddress", pb.GetAddressRequest(address="10.0.0.5", network="defaul"), "NETWORK_NOT_FOUND", "did you mean"),
    listed("PortSets", "address", "'\\x00'", address="\0"),
    listed("PortSets", "tenant", "'T 1'", "use a-z", tenant="T 1"),
    listed("PortSets", "node", "'n/1'", "use a-z", node="n/1"),
    listed("PortSets", "network", "'a/b/c'", "tenant/name", network="a/b/c"),
    listed("PortSets", "page_token", "'next'", TOKEN, page_token="next"),
    listed("PortSets", "page_token", "'pod/a'", TOKEN, page_token="pod/a"),
    listed("Networks", "page_token", "'next'", TOKEN, page_token="next"),
    listed("Networks", "tenant", "'T 1'", "use a-z", tenant="T 1"),
    listed("Tenants", "page_token", "'a/b'", TOKEN, page_token="a/b"),
    listed("Nodes", "page_token", "'a/b'", TOKEN, page_token="a/b"),
    listed("IPGroups", "page_token", "'g'", TOKEN, page_token="g"),
    listed("IPClaims", "page_token", "'c'", TOKEN, page_token="c"),
    listed("NetworkUsage", "page_token", "'x'", TOKEN, page_token="x"),
    listed("TenantUsage", "page_token", "'a/b'", TOKEN, page_token="a/b"),
    listed("NodeUsage", "page_token", "'a/b'", TOKEN, page_token="a/b"),
    Bad("EndPortSet", pb.EndPortSetRequest(), "FIELD_INVALID", "owner", "is missing", "set one of"),
    Bad("EndPortSet", pb.EndPortSetRequest(owner=named("vm", "t1"), revision=1), "REVISION_STALE", "t1/vm", "not 1"),
    Bad("EndPortSet", pb.EndPortSetRequest(owner=pod()), "OBJECT_IN_USE", "pod t1/web has 10.", "sandbox c1 on node n1 uses them"),
    Bad("RepairState", pb.RepairStateRequest(findings=[pb.Finding()] * 501), "LIMIT_EXCEEDED", "findings", "501", "at most 500"),
    reconcile("node.name", "is empty", "give it a name"),
    reconcile("node.name", "is empty", more=True),
    reconcile("node.name", "'N_1'", "use a-z", node=types.Node(name="N_1")),
    reconcile("revision", "-1", "or 0", node=N1, revision=-1),
    reconcile("in_use[0].owner", "is missing", node=N1, in_use=[types.PortSet()]),
    reconcile("in_use[1].owner.sandbox.node", "'n2'", "'n1'", node=N1, in_use=[running(sandbox()), running(sandbox(node="n2"))]),
    reconcile("in_use[0].ports[0].addresses[0].cidr", "'x'", "prefix length", node=N1, in_use=[running(sandbox(), "x")]),
    reconcile("in_use[0].ports[0].addresses[0].cidr", "'10.0.0.300'", node=N1, in_use=[running(sandbox(), "10.0.0.300/16")]),
]


@pytest.mark.parametrize("bad", OTHERS, ids=repr)
def test_a_request_that_cannot_be(place: Place, bad: Bad) -> None:
    place.refused(bad)


def test_a_position_that_cannot_be(place: Place) -> None:
    bad = Bad("Changes", pb.ChangesRequest(after_revision=-1), "FIELD_INVALID", "after_revision", "-1", "or 0")
    judged(bad, place.calls.first("Changes", bad.request))


def test_sizes_of_pages_are_bounded_and_not_refused(place: Place) -> None:
    page = place.calls.call("ListNetworks", pb.ListNetworksRequest(page_size=2**32 - 1))
    assert len(page.networks) > 5
    first = place.calls.call("ListNetworks", pb.ListNetworksRequest(page_size=1))
    assert len(first.networks) == 1
    assert first.next_page_token == "admin/declared"
