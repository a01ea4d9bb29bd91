"""Whatever stands in an annotation is either wishes that hold every promise, or an error with a place."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from knitter_common.convert import wish_from_proto, wish_to_proto
from knitter_common.errors import Invalid
from knitter_common.model import MAX_PORTS, ROLES, Wish
from knitter_common.names import interface
from knitter_common.wishes import KNITTER_KEY, NPWG_KEY, from_annotations, from_config, plan

NETWORKS = st.sampled_from(["a", "control", "t1/control", "a-very-long-network-name", "x" * 63])
NAMES = st.sampled_from(["", "eth0", "eth1", "x1", "net1", "eth_a"])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)

attributes = st.fixed_dictionaries(
    {},
    optional={
        "nic_name": NAMES | st.text(max_size=18),
        "function": st.sampled_from(ROLES),
        "nic_type": st.sampled_from(["normal", "direct", "physical", "fast"]),
        "accelerate": st.sampled_from(["true", "false"]),
        "combinable": st.sampled_from(["true", "false"]),
        "ip_addr": st.ip_addresses().map(str),
        "ip_group_name": st.sampled_from(["", "ig0", "ig1"]),
        "metadata": st.dictionaries(st.text(max_size=3), json_values, max_size=2),
        "typo": json_values,
    },
)
ports = st.lists(st.fixed_dictionaries({"attach_to_network": NETWORKS}, optional={"attributes": attributes}), max_size=8)
good_ports = st.lists(
    st.fixed_dictionaries(
        {"attach_to_network": NETWORKS},
        optional={
            "attributes": st.fixed_dictionaries(
                {},
                optional={
                    "function": st.sampled_from(ROLES),
                    "accelerate": st.sampled_from(["true", "false"]),
                    "combinable": st.sampled_from(["true", "false"]),
                    "metadata": st.fixed_dictionaries({}, optional={"k": st.integers(-5, 5)}),
                },
            )
        },
    ),
    max_size=10,
)
entries = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["a", "b"])},
        optional={
            "namespace": st.sampled_from(["", "ns"]),
            "interface": NAMES,
            "ips": st.lists(st.ip_addresses().map(str), max_size=3),
            "mac": st.sampled_from(["", "02:00:00:00:00:01", "01:00:00:00:00:01"]),
            "default-route": st.lists(st.ip_addresses().map(str), max_size=2),
            "cni-args": st.dictionaries(st.text(max_size=3), json_values, max_size=2),
            "bandwidth": st.dictionaries(st.sampled_from(["ingressRate", "egressRate", "egressBurst"]), st.integers(-1, 100)),
            "portMappings": st.lists(st.integers(), max_size=1),
        },
    ),
    max_size=8,
)
SHORT = st.text(alphabet="ab/@, -x1\n", max_size=60)


def promises(wishes: tuple[Wish, ...]) -> None:
    names = [wish.interface for wish in wishes]
    assert len(set(names)) == len(names)
    assert all(interface(name) for name in names)
    assert len(wishes) <= MAX_PORTS
    assert all(wish.place for wish in wishes)
    for wish in wishes:
        assert len(set(wish.roles)) == len(wish.roles)
        message = wish_to_proto(wish)
        assert wish_from_proto(type(message).FromString(message.SerializeToString())) == wish


def judged(annotations: dict[str, str]) -> None:
    try:
        wishes = from_annotations(annotations)
    except Invalid as error:
        told = error
    else:
        promises(wishes)
        return
    assert told.metadata["key"] in annotations
    assert told.message.startswith(f"{told.metadata['key']}: ")
    told.message.encode()
    "".join(told.metadata.values()).encode()


@given(st.text(max_size=100) | st.text(alphabet='{}[]":,\\ \nports0truefals', max_size=100), st.text(max_size=100) | SHORT)
def test_any_text(ours: str, theirs: str) -> None:
    judged({KNITTER_KEY: ours})
    judged({NPWG_KEY: theirs})


@given(json_values)
def test_any_json(value: Any) -> None:
    text = json.dumps(value)
    judged({KNITTER_KEY: text})
    judged({NPWG_KEY: text})
    judged({KNITTER_KEY: json.dumps({"ports": value})})
    judged({NPWG_KEY: json.dumps([value])})


@given(ports, entries)
def test_nearly_right_annotations(ours: Any, theirs: Any) -> None:
    judged({KNITTER_KEY: json.dumps({"ports": ours}), NPWG_KEY: json.dumps(theirs)})


@given(json_values | st.fixed_dictionaries({"ports": ports}) | entries | SHORT)
def test_any_configuration(networks: Any) -> None:
    try:
        promises(from_config(networks))
    except Invalid as error:
        assert error.message.startswith("networks: ")  # noqa: PT017 - either way is right


@given(good_ports)
def test_combining_loses_no_role_and_mixes_no_network(value: list[dict[str, Any]]) -> None:
    try:
        wishes = from_annotations({KNITTER_KEY: json.dumps({"ports": value})})
    except Invalid:
        return
    asked = sorted((entry["attach_to_network"], entry.get("attributes", {}).get("function", "std")) for entry in value)
    given_roles = sorted((wish.network, role) for wish in wishes for role in wish.roles)
    assert given_roles == asked
    for wish in wishes:
        if wish.accelerate:
            assert not ("eio" in wish.roles and {"control", "media", "oam"} & set(wish.roles))


@given(ports, st.sampled_from(["eth0", "net1", "eth_a", "x9"]))
def test_a_plan_has_one_primary_and_it_is_first(value: Any, ifname: str) -> None:
    try:
        wishes = plan({KNITTER_KEY: json.dumps({"ports": value})}, None, ifname)
    except Invalid:
        return
    assert [wish.primary for wish in wishes] == [True] + [False] * (len(wishes) - 1)
    assert wishes[0].interface == ifname
    promises(wishes)
