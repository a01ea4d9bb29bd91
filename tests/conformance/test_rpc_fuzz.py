"""Whatever is sent to the manager is answered or refused with a reason of the table: never a defect, never silence, and no address
gets two owners over it."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import message_factory
from harness.manager import serving
from harness.messages import any_message
from harness.rpc import Calls, calls_to
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common import convert
from knitter_common.errors import Internal, from_status

SERVICE = pb.DESCRIPTOR.services_by_name["ManagerService"]
LEFT_OUT = ("SetFrozen",)  # after it nothing else would be tried
UNARY = [method.name for method in SERVICE.methods if not (method.server_streaming or method.client_streaming)]
METHODS = [name for name in UNARY if name not in LEFT_OUT] + ["Allocate", "CreateNetwork", "Reconcile"] * 5
WORDS: dict[str, list[str]] = {
    "tenant": ["", "admin", "t1", "t2"],
    "namespace": ["t1", "t2"],
    "name": ["a", "b", "default", "n1"],
    "network": ["", "default", "admin/default", "t1/a", "a", "b"],
    "network_id": [],  # those of the networks that the fixture makes
    "node": ["n1", "n2"],
    "uid": ["1", "2"],
    "container_id": ["c1", "c2"],
    "cni_network": ["knitter"],
    "interface": ["eth0", "eth1", "net1"],
    "cidr": ["10.1.0.0/24", "10.1.0.9/24", "10.0.0.5/16", "10.2.0.0/30", "2001:db8:1::/64"],
    "gateway": ["", "", "10.1.0.1"],
    "start": ["10.1.0.10", "10.1.0.10", "10.1.0.21"],
    "end": ["10.1.0.20", "10.1.0.30"],
    "exclude": ["10.1.0.15", "10.1.0.16/31"],
    "ips": ["10.1.0.11", "10.0.0.9"],
    "address": ["", "10.0.0.5", "10.1.0.11"],
    "addresses": ["10.0.0.5", "10.1.0.11", "2001:db8:1::11"],
    "wanted_addresses": ["10.0.0.6", "10.1.0.12/24"],
    "default_routes": ["10.0.0.1", "2001:db8::1"],
    "destination": ["10.9.0.0/16", "0.0.0.0/0", "::/0"],
    "mac": ["", "02:00:00:00:00:01", "02:00:00:00:00:02"],
    "underlay_address": ["", "192.0.2.1"],
    "roles": ["std", "media", "control"],
    "operator": ["In", "NotIn", "Exists", "DoesNotExist"],
    "key": ["app", "example.org/app"],
    "value": ["", "x"],
    "source": ["", "api", "files:a", "crd"],
    "kind": ["Network", "Tenant", "Node"],
    "physical_network": ["", "", "eth9"],
    "exported_to": ["t1", "t2", "t3"],
    "page_token": ["", "admin/default", "n1"],
    "ip_group": ["", "", "a"],
    "ip_claim": ["", "", "a"],
}
NETWORKS = (("admin", "default", "10.0.0.0/16", "2001:db8::/64"), ("t1", "a", "10.1.0.0/24"), ("t1", "b"))


@pytest.fixture(scope="module")
def manager() -> Iterator[Calls]:
    with calls_to(serving(rest="0s")) as made:
        for tenant, name, *cidrs in NETWORKS:
            subnets = [types.Subnet(cidr=cidr) for cidr in cidrs]
            network = types.Network(tenant=tenant, name=name, subnets=subnets, public=tenant == "admin")
            WORDS["network_id"].append(made.call("CreateNetwork", pb.CreateNetworkRequest(network=network)).network.id)
            keeper = types.Owner(named=types.NamedOwner(tenant=tenant, name="keeper"))  # the network stays
            allocation = pb.Allocation(owner=keeper, wishes=[types.Wish(network=name)])
            made.call("Allocate", pb.AllocateRequest(allocation=allocation))
        yield made


def requests(name: str) -> Any:
    """A method and what it may be sent."""
    kind = message_factory.GetMessageClass(SERVICE.methods_by_name[name].input_type)
    return some.tuples(some.just(name), any_message(kind, WORDS))


def judged(answer: Any) -> None:
    """A response, or an error that is not a defect of ours, and can be read."""
    if isinstance(answer, Exception):
        assert not isinstance(answer, Internal)
        assert len(str(answer)) < 1500


@given(some.sampled_from(METHODS).flatmap(requests))
@settings(max_examples=1200, suppress_health_check=[HealthCheck.too_slow])
def test_any_request_is_answered_or_refused_with_a_reason(manager: Calls, request: tuple[str, Any]) -> None:
    judged(manager.call(*request))


@given(some.lists(any_message(pb.StreamAllocationsRequest, WORDS), min_size=1, max_size=3))
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_any_operation_of_a_stream_has_its_outcome(manager: Calls, requests: list[pb.StreamAllocationsRequest]) -> None:
    for request in requests:
        request.node = ""  # a name that is none ends the stream
    outcomes = [outcome for response in manager.stream("StreamAllocations", requests) for outcome in response.outcomes]
    asked = [operation.id for request in requests for operation in request.operations]
    assert sorted(outcome.id for outcome in outcomes) == sorted(asked)
    for outcome in outcomes:
        if outcome.WhichOneof("result") == "error":
            judged(from_status(outcome.error))


@given(any_message(pb.ChangesRequest, {"epoch": ["x"]}))
@settings(max_examples=50)
def test_any_position_gets_the_feed_or_a_reason(manager: Calls, request: pb.ChangesRequest) -> None:
    judged(manager.first("Changes", request))


def test_after_all_that_no_address_has_two_owners(manager: Calls) -> None:
    owners: dict[tuple[str, str], str] = {}
    page = manager.call("ListPortSets", pb.ListPortSetsRequest(page_size=1000))
    assert not page.next_page_token
    for port_set in page.port_sets:
        key = convert.owner_from_proto(port_set.owner).key
        for port in port_set.ports:
            for one in port.addresses:
                place = (port.network_id, one.cidr.partition("/")[0])
                assert owners.setdefault(place, key) == key
    assert owners
