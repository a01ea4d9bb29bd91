"""The model survives the contract, and what no model object can hold is refused by name."""

import dataclasses
from typing import Any

import pytest

from knitter.v1 import manager_pb2, types_pb2
from knitter_common import convert, model
from knitter_common.errors import Invalid

SELECTOR = model.LabelSelector({"app": "x"}, (model.LabelRequirement("tier", "In", ("a", "b")),))
USABLE = model.Usability(namespaces=SELECTOR, nodes=model.LabelSelector())
POD = model.PodOwner("t1", "web-0", "u-1")
SANDBOX = model.SandboxOwner("n1", "c" * 64, "knitter", "eth0")
NAMED = model.NamedOwner("t1", "vm-7")
DNS = model.Dns(("10.0.0.1",), "x.org", ("a.org", "b.org"), ("ndots:2",))
ROUTE = model.Route("10.9.0.0/16", "10.1.0.1", 5, 1400)
ADDRESS = model.PortAddress("10.1.0.9/24", "10.1.0.1")
METADATA = {"k": "v", "n": 3, "f": 1.5, "b": True, "none": None, "list": [1, "a", {"x": []}], "deep": {"a": {"b": {}}}}
BANDWIDTH = model.Bandwidth(1, 2, 3, 4)
NETWORK = model.Network(
    tenant="t1", name="control", id="abcdef012345", type=model.NetworkType.VXLAN, public=True, exported_to=("t2", "t3"), mtu=1450,
    subnets=(model.Subnet("10.1.0.0/24", "10.1.0.1", (model.Pool("10.1.0.10", "10.1.0.20", USABLE),), ("10.1.0.15/32",)),
             model.Subnet("2001:db8::/64")),
    routes=(ROUTE,), dns=DNS, physical_network="phys0", segmentation_id=77, vlan_transparent=True, external=True,
    description="a line", rest=0.25, external_gateway=True, masquerade=True, usable_by=USABLE, state=model.ObjectState.DELETING,
    create_time=1_700_000_000_123_456_789, revision=9, source="files:a",
)  # fmt: skip
WISH = model.Wish(
    network="t1/control", interface="eth1", roles=("control", "media"), nic_type=model.NicType.DIRECT, accelerate=True,
    addresses=("10.1.0.9", "2001:db8::9/64"), mac="02:00:00:00:00:01", ip_group="ig0", ip_claim="c0", default_routes=("10.1.0.1",),
    metadata=METADATA, cni_args={"a": "b"}, primary=True, place="networks: ports[1]", bandwidth=BANDWIDTH,
)  # fmt: skip
PORT = model.Port(
    id="p1", network_id="abcdef012345", network="t1/control", interface="eth1", mac="02:00:00:00:00:01", addresses=(ADDRESS,),
    routes=(ROUTE,), mtu=1450, roles=("control",), nic_type=model.NicType.PHYSICAL, accelerate=True, metadata=METADATA,
    type=model.NetworkType.SRIOV, physical_network="phys0", segmentation_id=77, node_gateway=True, masquerade=True, dns=DNS,
    primary=True, place="networks: ports[1]", bandwidth=BANDWIDTH, ip_group="ig0",
    public=True, exported=True, external=True, default_network=True,
)  # fmt: skip
BINDING = model.Binding("c1", "/run/netns/x", 1_700_000_000_000_000_001)
PORT_SET = model.PortSet(
    owner=POD, tenant="t1", node="n1", wishes=(WISH, model.Wish()), ports=(PORT,), binding=BINDING,
    error=model.PlanError("POOL_EXHAUSTED", "full", {"network": "t1/control"}), state=model.PortSetState.KEPT,
    create_time=5, revision=7, labels={"app": "x"}, sticky=True, expire_time=9,
)  # fmt: skip

FULL: dict[str, tuple[Any, ...]] = {
    "owner": (POD, SANDBOX, NAMED),
    "label_selector": (SELECTOR, model.LabelSelector()),
    "usability": (USABLE, model.Usability(), model.Usability(pods=SELECTOR)),
    "pool": (model.Pool("10.0.0.1", "10.0.0.2"),),
    "subnet": NETWORK.subnets,
    "route": (ROUTE, model.Route("0.0.0.0/0")),
    "dns": (DNS, model.Dns()),
    "network": (NETWORK, model.Network("t1", "n"), dataclasses.replace(NETWORK, rest=0.0, dns=None)),
    "quota": (model.Quota(1, 2, 3),),
    "tenant": (
        model.Tenant("t1"),
        model.Tenant("t1", model.Quota(1, 2, 3), (model.NetworkType.VLAN,), ("phys0",), "line", model.Quota(4, 5, 6),
                     model.ObjectState.DELETING, 3, 4, "crd", {"a": "b"}, 5, "pod t1/a"),
    ),
    "ip_group": (
        model.IPGroup("t1", "g", "control"),
        model.IPGroup("t1", "g", "control", "i", ("10.0.0.1",), 2, SELECTOR,
                      (model.IPGroupAddress("10.0.0.1", POD), model.IPGroupAddress("10.0.0.2")), 3, 4, "api"),
    ),
    "ip_claim": (
        model.IPClaim("t1", "c", "control"),
        model.IPClaim("t1", "c", "control", "eth1", ("10.0.0.1",), (ADDRESS,), "02:00:00:00:00:01", NAMED, 3, 4, "api"),
    ),
    "node": (model.Node("n1"), model.Node("n1", "192.0.2.1", {"a": "b"}, "0.1.0", True, 3, 4, 5, "api")),
    "bandwidth": (BANDWIDTH,),
    "wish": (WISH, model.Wish()),
    "port": (PORT, model.Port("p", "n", "t/n", "eth0", "02:00:00:00:00:01")),
    "port_address": (ADDRESS,),
    "binding": (BINDING, model.Binding("c")),
    "plan_error": (PORT_SET.error,),
    "port_set": (PORT_SET, model.PortSet(SANDBOX, "admin")),
    "allocation": (model.Allocation(SANDBOX), model.Allocation(POD, "t1", "n1", (WISH,), BINDING, {"a": "b"}, True, True, "r1")),
    "give_back": (model.Return(POD), model.Return(POD, 3, "c1", True, "r1")),
    "bind": (model.Bind(POD, BINDING), model.Bind(POD, BINDING, "n1", "r1")),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FULL.items() for value in values])
def test_what_goes_out_comes_back_the_same(name: str, value: Any) -> None:
    message = getattr(convert, f"{name}_to_proto")(value)
    again = type(message).FromString(message.SerializeToString())
    assert getattr(convert, f"{name}_from_proto")(again) == value


FULL_FIRST = ("network", "wish", "port", "port_set")
FULL_LAST = ("allocation", "give_back", "bind", "tenant", "ip_group", "node")


@pytest.mark.parametrize("name", FULL_FIRST + FULL_LAST)
def test_the_full_example_sets_every_field_of_the_message(name: str) -> None:
    """So that a field added to the contract is not forgotten here."""
    message = getattr(convert, f"{name}_to_proto")(FULL[name][0 if name in FULL_FIRST else -1])
    unset = {field.name for field in message.DESCRIPTOR.fields} - {field.name for field, _ in message.ListFields()}
    assert unset == set()


def test_every_type_of_the_contract_is_converted() -> None:
    written = {getattr(convert, f"{name}_to_proto")(values[0]).DESCRIPTOR.name for name, values in FULL.items()}
    inner = {"PodOwner", "SandboxOwner", "NamedOwner", "LabelRequirement", "IPGroupAddress"}  # by what holds them
    edge = {"Tombstone", "Change"}  # made by the feeds
    assert set(types_pb2.DESCRIPTOR.message_types_by_name) - inner - edge <= written


def test_whole_numbers_of_metadata_come_back_as_int() -> None:
    wish = convert.wish_from_proto(convert.wish_to_proto(model.Wish(metadata={"n": 3, "f": 2.5})))
    assert wish.metadata is not None
    assert isinstance(wish.metadata["n"], int)
    assert isinstance(wish.metadata["f"], float)


def test_an_empty_metadata_object_is_not_none() -> None:
    assert convert.wish_from_proto(convert.wish_to_proto(model.Wish(metadata={}))).metadata == {}


def test_unspecified_enums_are_the_models_defaults() -> None:
    assert convert.network_from_proto(types_pb2.Network(tenant="t", name="n")).type is model.NetworkType.BRIDGE
    assert convert.wish_from_proto(types_pb2.Wish()).nic_type is model.NicType.NORMAL
    assert convert.network_from_proto(types_pb2.Network()).state is model.ObjectState.ACTIVE
    owner = convert.owner_to_proto(POD)
    assert convert.port_set_from_proto(types_pb2.PortSet(owner=owner)).state is model.PortSetState.RESERVED


def test_empty_parts_are_left_out_of_the_message() -> None:
    message = convert.network_to_proto(model.Network("t1", "n"))
    assert not any(message.HasField(field) for field in ("dns", "rest", "usable_by", "create_time"))
    assert {field.name for field, _ in message.ListFields()} == {"tenant", "name", "type", "state"}


def pod(**parts: str) -> types_pb2.Owner:
    return types_pb2.Owner(pod=types_pb2.PodOwner(**parts))


def sandbox(**parts: str) -> types_pb2.Owner:
    return types_pb2.Owner(sandbox=types_pb2.SandboxOwner(**parts))


BAD: list[tuple[str, Any, str, str]] = [
    ("owner", types_pb2.Owner(), "owner", "set one of pod, sandbox and named"),
    ("owner", pod(), "owner.pod.namespace", "is empty"),
    ("owner", pod(namespace="a", uid="u"), "owner.pod.name", "is empty"),
    ("owner", pod(namespace="a", name="b"), "owner.pod.uid", "is empty"),
    ("owner", pod(namespace="a/b", name="n", uid="u"), "owner.pod.namespace", "'a/b' has a '/'"),
    ("owner", sandbox(node="n", container_id="c", interface="e"), "owner.sandbox.cni_network", "is empty"),
    ("owner", sandbox(node="n", container_id="../c", cni_network="k", interface="e"), "owner.sandbox.container_id", "has a '/'"),
    ("owner", types_pb2.Owner(named=types_pb2.NamedOwner(tenant="t")), "owner.named.name", "is empty"),
    ("allocation", manager_pb2.Allocation(), "owner", "set one of"),
    ("give_back", manager_pb2.Return(), "owner", "set one of"),
    ("bind", manager_pb2.Bind(owner=types_pb2.Owner(named=types_pb2.NamedOwner(name="x"))), "binding.container_id", "is empty"),
    ("port_set", types_pb2.PortSet(), "owner", "set one of"),
    ("network", types_pb2.Network(type=99), "network.type", "99 is none of 1 (BRIDGE), 2 (VXLAN)"),  # type: ignore[arg-type]
    ("wish", types_pb2.Wish(nic_type=42), "wish.nic_type", "42 is none of 1 (NORMAL)"),  # type: ignore[arg-type]
    ("tenant", types_pb2.Tenant(allowed_types=[1, 50]), "tenant.allowed_types[1]", "50 is none of"),  # type: ignore[list-item]
]  # fmt: skip


@pytest.mark.parametrize(("name", "message", "field", "fragment"), BAD)
def test_what_no_model_object_can_hold_is_refused_by_name(name: str, message: Any, field: str, fragment: str) -> None:
    with pytest.raises(Invalid) as raised:
        getattr(convert, f"{name}_from_proto")(message)
    assert raised.value.reason == "FIELD_INVALID"
    assert raised.value.metadata["field"] == field
    assert raised.value.message.startswith(f"{field}: ")
    assert fragment in raised.value.message


def test_a_named_owner_without_a_tenant_is_the_operators() -> None:
    message = types_pb2.Owner(named=types_pb2.NamedOwner(name="x"))
    assert convert.owner_from_proto(message) == model.NamedOwner("admin", "x")
