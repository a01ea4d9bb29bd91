"""Which wishes a sandbox has: both annotations, the configuration, names, and the primary interface."""
# ruff: noqa: E501 - the tables read best as rows

import json

import pytest

from knitter_common.errors import Invalid
from knitter_common.model import Dns, NicType, Port, PortAddress, Wish
from knitter_common.wishes import (
    KNITTER_KEY,
    NPWG_KEY,
    from_annotations,
    from_config,
    names_definition,
    network_planes,
    network_status,
    plan,
    with_primary,
)


def ports(*entries: tuple[str, str]) -> str:
    """Knitter's annotation from (network, nic_name)."""
    return json.dumps({"ports": [{"attach_to_network": network, "attributes": {"nic_name": name}} for network, name in entries]})


def names(wishes: tuple[Wish, ...]) -> list[str]:
    return [wish.interface for wish in wishes]


def test_knitters_annotation_comes_first() -> None:
    wishes = from_annotations({NPWG_KEY: "net-a, t2/net-b@x1", KNITTER_KEY: ports(("control", "eth1")), "other": "{"})
    assert [(wish.network, wish.interface) for wish in wishes] == [("control", "eth1"), ("net-a", "net1"), ("t2/net-b", "x1")]
    assert [names_definition(wish) for wish in wishes] == [False, True, True]
    assert [wish.place for wish in wishes] == ["networks: ports[0]", f"{NPWG_KEY}: [0]", f"{NPWG_KEY}: [1]"]


def test_no_annotation_is_no_wish() -> None:
    assert from_annotations({}) == ()
    assert from_annotations({KNITTER_KEY: "", NPWG_KEY: ""}) == ()
    assert from_annotations({KNITTER_KEY: '""', NPWG_KEY: " \n"}) == ()
    assert from_annotations({KNITTER_KEY: '{"ports": []}', NPWG_KEY: "[]"}) == ()


def test_default_names_are_cut_and_unique() -> None:
    text = ports(
        ("control", ""),
        ("control", ""),
        ("a-very-long-network", ""),
        ("t1/a-very-long-network", ""),
        ("x", "eth_media"),
        ("media", ""),
    )
    wishes = from_annotations({KNITTER_KEY: text})
    assert names(wishes) == ["eth_control", "eth_control_2", "eth_a-very-long", "eth_a-very-lo_2", "eth_media", "eth_media_2"]
    assert all(len(name) <= 15 for name in names(wishes))


def test_npwg_names_count_by_position_and_avoid_what_is_taken() -> None:
    assert names(from_annotations({NPWG_KEY: "a,b@x,c"})) == ["net1", "x", "net3"]
    assert names(from_annotations({NPWG_KEY: "a,b@net1,c"})) == ["net2", "net1", "net3"]
    assert names(from_annotations({NPWG_KEY: "a,b"}, primary="net1")) == ["net2", "net3"]


def test_the_same_interface_twice_names_both_places() -> None:
    with pytest.raises(Invalid) as raised:
        from_annotations({KNITTER_KEY: ports(("a", "x1")), NPWG_KEY: "b,c@x1"})
    assert raised.value.message == f"{NPWG_KEY}: [1]: the interface 'x1' is that of 'networks: ports[0]' too; rename one"
    assert raised.value.reason == "ANNOTATION_INVALID"


def test_thirty_two_interfaces_are_the_limit() -> None:
    assert len(from_annotations({NPWG_KEY: ",".join(["n"] * 32)})) == 32
    with pytest.raises(Invalid, match=r"\[32\]: 33 interfaces are too many; a pod has at most 32") as raised:
        from_annotations({NPWG_KEY: ",".join(["n"] * 33)})
    assert raised.value.reason == "LIMIT_EXCEEDED"
    with pytest.raises(Invalid, match="33 interfaces are too many"):
        plan({NPWG_KEY: ",".join(["n"] * 32)}, None, "eth0")


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        (None, []),
        ("", []),
        ('""', []),
        ([], []),
        ("net-a, t2/net-b@x1", [("net-a", "net1"), ("t2/net-b", "x1")]),
        ('[{"name": "net-a"}]', [("net-a", "net1")]),
        ([{"name": "net-a", "namespace": "t2", "interface": "x1"}], [("t2/net-a", "x1")]),
        ({"ports": [{"attach_to_network": "control"}]}, [("control", "eth_control")]),
        ('{"ports": [{"attach_to_network": "t1/control"}]}', [("t1/control", "eth_control")]),
    ],
)
def test_the_configuration_takes_either_grammar(networks: object, expected: list[tuple[str, str]]) -> None:
    assert [(wish.network, wish.interface) for wish in from_config(networks)] == expected


@pytest.mark.parametrize(
    ("networks", "fragment"),
    [
        (True, "networks: must be"),
        (7, "networks: must be"),
        ({"port": []}, "networks: 'port' is not known here; did you mean 'ports'?"),
        ({"ports": {}}, "networks: ports: must be a list, not an object"),
        ([{"nam": "x"}], "networks: [0]: 'nam' is not known here; did you mean 'name'?"),
        (["x"], "networks: [0]: must be an object, not the text 'x'"),
        ("a,,b", "networks: [1]: is empty; remove a comma"),
        ('{"ports": ', "networks: line 1, column 11: not JSON"),
        ([[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]], "is nested deeper than 24 levels"),
        ({"ports": [{"attach_to_network": "a", "attributes": {"metadata": {"n": 2**60}}}]}, "fits no number of JSON readers"),
        ({1: 2}, "the key 1 must be a text"),
    ],
)
def test_a_bad_configuration_names_the_key_and_the_place(networks: object, fragment: str) -> None:
    with pytest.raises(Invalid) as raised:
        from_config(networks)
    assert fragment in raised.value.message
    assert raised.value.reason == "CNI_CONFIG_INVALID"
    assert raised.value.cni_code == 7


def test_no_wish_becomes_the_default_network() -> None:
    expected = Wish(interface="eth0", roles=("std",), nic_type=NicType.NORMAL, primary=True, place="defaultNetwork")
    assert plan(None, None, "eth0") == (expected,)
    assert plan({}, None, "eth0", "admin/default")[0].network == "admin/default"


def test_the_annotation_wins_over_the_configuration() -> None:
    assert names(plan({NPWG_KEY: "a@x1"}, "b@y1", "eth0")) == ["eth0", "x1"]
    assert names(plan({NPWG_KEY: ""}, "b@y1", "eth0")) == ["eth0", "y1"]
    assert names(plan(None, "b@y1", "eth0")) == ["eth0", "y1"]


def test_a_port_of_knitters_annotation_can_claim_the_primary_interface() -> None:
    wishes = plan({KNITTER_KEY: ports(("control", "eth1"), ("media", "eth0"))}, None, "eth0", "admin/default")
    assert [(wish.network, wish.interface, wish.primary) for wish in wishes] == [
        ("media", "eth0", True),
        ("control", "eth1", False),
    ]


def test_no_default_name_is_the_primary_interfaces() -> None:
    assert names(plan({NPWG_KEY: "a"}, None, "net1")) == ["net1", "net2"]
    assert names(plan({KNITTER_KEY: ports(("a", ""))}, None, "eth_a")) == ["eth_a", "eth_a_2"]


def test_an_npwg_entry_cannot_take_the_primary_interface() -> None:
    with pytest.raises(Invalid, match="the interface 'eth0' is the primary interface, on the default network; choose another"):
        plan({NPWG_KEY: "a@eth0"}, None, "eth0")
    with pytest.raises(Invalid) as raised:
        plan(None, "a@eth0", "eth0")
    assert raised.value.reason == "CNI_CONFIG_INVALID"


def test_where_another_plugin_makes_the_primary_none_is_added_and_none_may_claim_it() -> None:
    wishes = from_annotations({KNITTER_KEY: ports(("a", "eth1"))})
    assert with_primary(wishes, "eth0", delegated=True) == wishes
    assert with_primary((), "eth0", delegated=True) == ()
    with pytest.raises(Invalid, match=r"networks: ports\[0\]: the interface 'eth0' is made by another plugin; choose another name"):
        with_primary(from_annotations({KNITTER_KEY: ports(("a", "eth0"))}), "eth0", delegated=True)


def test_an_annotation_that_is_no_text_is_refused() -> None:
    with pytest.raises(Invalid, match="networks: must be a text, not an object"):
        from_annotations({KNITTER_KEY: {"ports": []}})  # type: ignore[dict-item]


PORTS = (
    Port(
        "p0", "n0", "admin/default", "eth0", "02:00:00:00:00:01", (PortAddress("10.0.0.5/24", "10.0.0.1"), PortAddress("2001:db8::5/64")),
        mtu=1450, roles=("std",), primary=True, dns=Dns(("10.0.0.53",), search=("a.b",)),
    ),
    Port("p1", "n1", "t1/l2", "net1", "02:00:00:00:00:02", roles=("control", "media"), accelerate=True, nic_type=NicType.DIRECT,
         metadata={"k": "ä"}),
    Port("p2", "n2", "t1/c", "net2", "02:00:00:00:00:03", (PortAddress("10.1.0.5/24", "10.1.0.1"),)),
)  # fmt: skip


def test_network_status_is_the_npwg_annotation() -> None:
    assert json.loads(network_status(PORTS)) == [
        {
            "name": "admin/default", "interface": "eth0", "ips": ["10.0.0.5", "2001:db8::5"], "mac": "02:00:00:00:00:01", "mtu": 1450,
            "default": True, "dns": {"nameservers": ["10.0.0.53"], "search": ["a.b"]}, "gateway": ["10.0.0.1"],
        },
        {"name": "t1/l2", "interface": "net1", "mac": "02:00:00:00:00:02", "dns": {}},
        {"name": "t1/c", "interface": "net2", "ips": ["10.1.0.5"], "mac": "02:00:00:00:00:03", "dns": {}},
    ]  # fmt: skip
    assert network_status(()) == "[]"


def test_network_planes_tell_roles_and_metadata() -> None:
    planes = json.loads(network_planes(PORTS))
    assert planes[1] == {
        "interface": "net1", "network": "t1/l2", "roles": ["control", "media"], "nic_type": "direct", "accelerate": True, "addresses": [],
        "mac": "02:00:00:00:00:02", "metadata": {"k": "ä"},
    }  # fmt: skip
    assert planes[0]["mtu"] == 1450
    assert "metadata" not in planes[0]
