"""Both annotation grammars: what they mean, and what is refused with key, place, value and way out."""
# ruff: noqa: E501 - the tables read best as rows

import json
import re
from pathlib import Path
from typing import Any

import pytest

from knitter_common.convert import wish_from_proto, wish_to_proto
from knitter_common.errors import Invalid
from knitter_common.model import Bandwidth, NicType, Wish
from knitter_common.wishes import KNITTER_KEY, NPWG_KEY, from_annotations


def port(network: str = "control", **attributes: Any) -> dict[str, Any]:
    return {"attach_to_network": network, "attributes": attributes}


def ours(*ports: dict[str, Any]) -> tuple[Wish, ...]:
    return from_annotations({KNITTER_KEY: json.dumps({"ports": ports})})


def theirs(*entries: Any) -> tuple[Wish, ...]:
    return from_annotations({NPWG_KEY: json.dumps(entries)})


def both(role: str, **attributes: Any) -> dict[str, Any]:
    return port(function=role, combinable="true", **attributes)


# --- Knitter's own


def test_the_documented_annotation() -> None:
    text = """{"ports":[{"attach_to_network":"control",
  "attributes":{"nic_name":"eth1","function":"control","nic_type":"normal","accelerate":"false",
                "combinable":"true","ip_addr":"10.1.1.9","ip_group_name":"ig0","metadata":{"k":"v"}}}]}"""
    assert from_annotations({KNITTER_KEY: text}) == (
        Wish(network="control", interface="eth1", roles=("control",), addresses=("10.1.1.9",), ip_group="ig0", metadata={"k": "v"},
             place="networks: ports[0]"),
    )  # fmt: skip


def test_attributes_have_defaults() -> None:
    expected = Wish(network="control", interface="eth_control", roles=("std",), nic_type=NicType.NORMAL, place="networks: ports[0]")
    assert from_annotations({KNITTER_KEY: '{"ports":[{"attach_to_network":"control"}]}'}) == (expected,)
    assert ours(port(nic_name="", function="", nic_type="", accelerate="", combinable="", ip_addr="", ip_group_name="")) == (
        expected,
    )


def test_pretty_printed_json_is_accepted() -> None:
    text = json.dumps({"ports": [port(nic_name="x1")]}, indent=4)
    assert from_annotations({KNITTER_KEY: f"\n  {text}\n"})[0].interface == "x1"


def test_addresses_of_both_families_are_canonical() -> None:
    (wish,) = ours(port(ip_addr="10.1.1.9, 2001:DB8:0::9"))
    assert wish.addresses == ("10.1.1.9", "2001:db8::9")
    (wish,) = ours(port(ip_addr="2001:DB8::9"))
    assert wish.addresses == ("2001:db8::9",)


def test_metadata_is_handed_on_untouched() -> None:
    metadata = {"a": [1, 2.5, None, True, {"b": {}}], "": "", "ä": "\u2028", "n": 9007199254740992}
    (wish,) = ours(port(metadata=metadata))
    assert wish.metadata == metadata
    assert wish_from_proto(wish_to_proto(wish)).metadata == metadata


def test_what_is_as_deep_as_allowed_survives_the_contract() -> None:
    deep: dict[str, Any] = {}
    for _ in range(18):
        deep = {"a": deep}
    (wish,) = ours(port(metadata=deep))
    message = wish_to_proto(wish)
    assert wish_from_proto(type(message).FromString(message.SerializeToString())).metadata == deep


def test_accelerate_is_always_false_for_std() -> None:
    assert [wish.accelerate for wish in ours(port(accelerate="true"), port(accelerate="true", function="media"))] == [False, True]


def test_a_network_of_another_tenant_can_be_named() -> None:
    assert ours(port("admin/default"))[0].network == "admin/default"


# --- combine


def test_combinable_ports_of_one_network_become_one_interface() -> None:
    wishes = ours(both("media", nic_name="x1"), port("other"), both("control"), both("oam", nic_name="x2"))
    assert [(wish.network, wish.interface, wish.roles) for wish in wishes] == [
        ("control", "x1", ("media", "control", "oam")),
        ("other", "eth_other", ("std",)),
    ]
    assert wishes[0].place == "networks: ports[0], ports[2], ports[3]"


def test_a_combination_is_eth0_if_one_of_its_ports_claims_that() -> None:
    assert [wish.interface for wish in ours(both("media", nic_name="x1"), both("control", nic_name="eth0"))] == ["eth0"]
    assert [wish.interface for wish in ours(both("media"), both("control"))] == ["eth_control"]


@pytest.mark.parametrize(
    "second",
    [
        both("media", nic_type="direct"),
        both("media", accelerate="true"),
        both("media", ip_group_name="ig1"),
        port(function="media"),
        {**both("media"), "attach_to_network": "other"},
    ],
)
def test_ports_that_differ_are_not_combined(second: dict[str, Any]) -> None:
    assert len(ours(both("control"), second)) == 2


def test_the_same_name_twice_within_a_combination_is_fine() -> None:
    assert [wish.interface for wish in ours(both("media", nic_name="x1"), both("control", nic_name="x1"))] == ["x1"]


def test_addresses_and_metadata_of_a_combination_are_joined() -> None:
    (wish,) = ours(
        both("std", ip_addr="10.0.0.9", metadata={"a": 1}),
        both("control", ip_addr="2001:db8::9"),
        both("media", ip_addr="10.0.0.9", metadata={"b": 2, "a": 1}),
    )
    assert wish.addresses == ("10.0.0.9", "2001:db8::9")
    assert wish.metadata == {"a": 1, "b": 2}


def test_eio_can_be_combined_when_not_accelerated_or_with_std() -> None:
    assert len(ours(both("eio"), both("control"))) == 1
    assert ours(both("eio", accelerate="true"), both("std", accelerate="true"))[0].accelerate is True


def test_combinable_may_differ_where_the_rule_does_not_hold() -> None:
    assert len(ours(both("control"), port(function="media"))) == 2  # not accelerated
    assert len(ours(both("control", accelerate="true"), port("n2", function="media", accelerate="true"))) == 2  # other network
    assert len(ours(both("control", accelerate="true"), port(function="eio", accelerate="true"))) == 2  # eio


A = "ports[0].attributes"

BAD_OURS: list[tuple[str, str, str]] = [
    # JSON
    ("{", "", "line 1, column 2: not JSON: Expecting property name enclosed in double quotes"),
    ('{\n "ports": [\n  {"a" 1}]}', "", "line 3, column 8: not JSON: Expecting ':' delimiter"),
    ("net-a,net-b", "", "line 1, column 1: not JSON: Expecting value"),
    ("{'ports': []}", "", "line 1, column 2: not JSON"),
    ('{"ports": []} x', "", "line 1, column 15: not JSON: Extra data"),
    ("\ufeff{}", "", "line 1, column 1: not JSON: Unexpected UTF-8 BOM"),
    ('{"ports": [NaN]}', "ports[0]", "NaN fits no number"),
    ('{"ports": [1e999]}', "ports[0]", "1e999 fits no number of JSON readers; write it as a text"),
    ('{"ports": [-Infinity]}', "ports[0]", "-Infinity fits no number"),
    ('{"ports": [' + "9" * 5000 + "]}", "ports[0]", "fits no number of JSON readers"),
    ('{"ports": [], "ports": []}', "ports", "is written twice in one object; remove one of them"),
    ('{"ports": [{"attach_to_network": "a", "attach_to_network": "b"}]}', "ports[0].attach_to_network", "is written twice"),
    ('{"ports": ["\\ud800"]}', "ports[0]", "holds \\ud800, half of a pair of surrogates"),
    ('{"\\ud800": 1}', "", "half of a pair of surrogates"),
    ("[" * 100_000, "", "is nested deeper than 24 levels; make it flatter"),
    ('{"a":' * 50_000, "", "is nested deeper than 24 levels"),
    ('{"a":' * 50 + "1" + "}" * 50, "a.a.a", "is nested deeper than 24 levels"),
    ('"' + " " * 300_000, "", "is longer than 262144 bytes; make it shorter"),
    ("ä" * 140_000, "", "is longer than 262144 bytes"),
    # shape
    ("[]", "", 'must be an object, {"ports": [...]}, not a list; a list belongs in the annotation k8s.v1.cni.cncf.io/networks'),
    ("null", "", "must be an object, not null"),
    ("true", "", "must be an object, not true"),
    ("5", "", "must be an object, not the number 5"),
    ('"{}"', "", "must be an object, not the text '{}'"),
    ("{}", "", '"ports" is missing; write {"ports": [{"attach_to_network": "<network>"}]}'),
    ('{"port": []}', "", "'port' is not known here; did you mean 'ports'?"),
    ('{"ports": {}}', "ports", "must be a list, not an object"),
    ('{"ports": ["a"]}', "ports[0]", "must be an object, not the text 'a'"),
    ('{"ports": [{}]}', "ports[0].attach_to_network", "is missing; name the network"),
    ('{"ports": [{"network": "a"}]}', "ports[0]", "'network' is not known here; did you mean 'attach_to_network'?"),
    ('{"ports": [{"attach_to_network": "a", "nic_name": "x"}]}', "ports[0]", "'nic_name' is an attribute; write it below 'attributes'"),
    ('{"ports": [{"attach_to_network": "a", "attributes": []}]}', A, "must be an object, not a list"),
    ('{"ports": [{"attach_to_network": "a", "attributes": null}]}', A, "must be an object, not null"),
    # networks
    ('{"ports": [{"attach_to_network": ""}]}', "ports[0].attach_to_network", "is empty; name a network"),
    ('{"ports": [{"attach_to_network": 5}]}', "ports[0].attach_to_network", 'must be a text; write "5", with the quotes'),
    ('{"ports": [{"attach_to_network": "A"}]}', "ports[0].attach_to_network", "'A' names no network; write 'name' or 'tenant/name'"),
    ('{"ports": [{"attach_to_network": "a/b/c"}]}', "ports[0].attach_to_network", "'a/b/c' names no network"),
    ('{"ports": [{"attach_to_network": "/a"}]}', "ports[0].attach_to_network", "'/a' names no network"),
    ('{"ports": [{"attach_to_network": "a@b"}]}', "ports[0].attach_to_network", "'a@b' names no network"),
]  # fmt: skip

BAD_PORTS: list[tuple[list[dict[str, Any]], str, str]] = [
    ([port(nic_nam="x")], A, "'nic_nam' is not known here; did you mean 'nic_name'?"),
    ([port(nicName="x")], A, "'nicName' is not known here; did you mean 'nic_name'?"),
    ([port(accelerate=True)], f"{A}.accelerate", 'must be a text; write "true", with the quotes'),
    ([port(accelerate=1)], f"{A}.accelerate", 'must be a text; write "1", with the quotes'),
    ([port(accelerate=None)], f"{A}.accelerate", "must be a text, not null"),
    ([port(accelerate="yes")], f"{A}.accelerate", "'yes' is none of true, false"),
    ([port(combinable="True")], f"{A}.combinable", "'True' is none of true, false; did you mean 'true'?"),
    ([port(), port(nic_type="fast")], "ports[1].attributes.nic_type", "'fast' is none of normal, direct, physical"),
    ([port(nic_type=["normal"])], f"{A}.nic_type", "must be a text, not a list"),
    ([port(function="contrl")], f"{A}.function", "'contrl' is none of std, control, media, oam, eio; did you mean 'control'?"),
    ([port(nic_name="x" * 16)], f"{A}.nic_name", "is 16 bytes long; an interface's name has at most 15"),
    ([port(nic_name="ä" * 8)], f"{A}.nic_name", "is 16 bytes long"),
    ([port(nic_name="a/b")], f"{A}.nic_name", "'a/b' is no interface's name; use no '/', ':', '%' or white space"),
    ([port(nic_name="a b")], f"{A}.nic_name", "'a b' is no interface's name"),
    ([port(nic_name="a:1")], f"{A}.nic_name", "is no interface's name"),
    ([port(nic_name="eth%d")], f"{A}.nic_name", "is no interface's name"),
    ([port(nic_name="a\u00a0b")], f"{A}.nic_name", "is no interface's name"),
    ([port(nic_name="a\x00")], f"{A}.nic_name", "'a\\x00' is no interface's name"),
    ([port(nic_name="..")], f"{A}.nic_name", "'..' is no interface's name"),
    ([port(nic_name="lo")], f"{A}.nic_name", "'lo' is the system's; choose another name"),
    ([port(nic_name="x1"), port("b", nic_name="x1")], "ports[1]", "the interface 'x1' is that of 'networks: ports[0]' too; rename one"),
    ([port(ip_addr="10.1.1")], f"{A}.ip_addr", "'10.1.1' is no IPv4 or IPv6 address"),
    ([port(ip_addr="10.1.1.256")], f"{A}.ip_addr", "'10.1.1.256' is no IPv4 or IPv6 address"),
    ([port(ip_addr="010.1.1.1")], f"{A}.ip_addr", "'010.1.1.1' is no IPv4 or IPv6 address; write 10.1.1.1"),
    ([port(ip_addr="10.1.1.9/24")], f"{A}.ip_addr", "has a prefix length; write the address alone: 10.1.1.9"),
    ([port(ip_addr="127.0.0.1")], f"{A}.ip_addr", "'127.0.0.1' is loopback; no interface of a pod can have it"),
    ([port(ip_addr="0.0.0.0")], f"{A}.ip_addr", "means this host"),
    ([port(ip_addr="224.0.0.1")], f"{A}.ip_addr", "is multicast"),
    ([port(ip_addr="255.255.255.255")], f"{A}.ip_addr", "is the broadcast address"),
    ([port(ip_addr="ff02::1")], f"{A}.ip_addr", "is multicast"),
    ([port(ip_addr="fe80::1")], f"{A}.ip_addr", "is link-local"),
    ([port(ip_addr="::ffff:10.0.0.1")], f"{A}.ip_addr", "is an IPv4 address; write 10.0.0.1"),
    ([port(ip_addr="fe80::1%eth0")], f"{A}.ip_addr", "has a zone; write it without: fe80::1"),
    ([port(ip_addr="10.0.0.1,10.0.0.2")], f"{A}.ip_addr", "'10.0.0.1,10.0.0.2' holds two IPv4 addresses; write one, or one of each family"),
    ([port(ip_addr="10.0.0.1,")], f"{A}.ip_addr", "'' is no IPv4 or IPv6 address"),
    ([port(ip_addr=["10.0.0.1"])], f"{A}.ip_addr", "must be a text, not a list"),
    ([port(ip_group_name="a b")], f"{A}.ip_group_name", "'a b' is no name"),
    ([port(metadata="x")], f"{A}.metadata", "must be an object, not the text 'x'"),
    ([port(metadata=[])], f"{A}.metadata", "must be an object, not a list"),
    ([port(metadata={"n": 2**53 + 1})], f"{A}.metadata.n", "9007199254740993 fits no number of JSON readers; write it as a text"),
    # combine
    ([both("media"), both("media")], "ports[1].attributes.function", "'media' is that of ports[0] too, which is combined with it; a plane comes once"),
    ([both("control", accelerate="true"), both("eio", accelerate="true")], "ports[1].attributes.function", "'eio' cannot be combined with control when accelerated"),
    ([both("eio", accelerate="true"), both("media", accelerate="true")], "ports[1].attributes.function", "'eio' cannot be combined with media when accelerated"),
    ([both("control", accelerate="true"), port(function="media", accelerate="true")], "ports[1].attributes.combinable", "'false' differs from 'true' of ports[0]; accelerated control, media and oam ports on network 'control' must agree"),
    ([both("std", ip_addr="10.0.0.1"), both("oam", ip_addr="10.0.0.2")], "ports[1].attributes.ip_addr", "10.0.0.2 and 10.0.0.1 of ports[0] are wanted for one combined interface"),
    ([both("std", metadata={"a": 1}), both("oam", metadata={"a": 2})], "ports[1].attributes.metadata.a", "has another value in a port that is combined with this one"),
]  # fmt: skip


def refused(annotations: dict[str, str], key: str, place: str, fragment: str, reason: str = "ANNOTATION_INVALID") -> None:
    with pytest.raises(Invalid) as raised:
        from_annotations(annotations)
    error = raised.value
    lead = f"{key}: {place}" if place else f"{key}: "
    assert error.message.startswith(lead)
    assert fragment in error.message
    assert error.metadata["key"] == key
    assert error.metadata["place"].startswith(place)
    assert error.reason == reason
    assert len(error.message) < 500
    error.message.encode()


@pytest.mark.parametrize(("text", "place", "fragment"), BAD_OURS, ids=[fragment for _, _, fragment in BAD_OURS])
def test_bad_text_of_knitters_annotation(text: str, place: str, fragment: str) -> None:
    refused({KNITTER_KEY: text}, KNITTER_KEY, place, fragment)


@pytest.mark.parametrize(("ports", "place", "fragment"), BAD_PORTS, ids=[fragment for _, _, fragment in BAD_PORTS])
def test_bad_ports_of_knitters_annotation(ports: list[dict[str, Any]], place: str, fragment: str) -> None:
    refused({KNITTER_KEY: json.dumps({"ports": ports})}, KNITTER_KEY, place, fragment)


# --- the Network Plumbing Working Group's


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("net-a", [("net-a", "net1")]),
        ("net-a,net-b", [("net-a", "net1"), ("net-b", "net2")]),
        (" net-a ,\n\tns/net-b ", [("net-a", "net1"), ("ns/net-b", "net2")]),
        ("ns/net-a@x1, net-a@y1", [("ns/net-a", "x1"), ("net-a", "y1")]),
        ("net-a,net-a", [("net-a", "net1"), ("net-a", "net2")]),
        ('[{"name":"net-a"},{"name":"net-a","namespace":"ns"}]', [("net-a", "net1"), ("ns/net-a", "net2")]),
        ('[{"name":"net-a","namespace":"","interface":""}]', [("net-a", "net1")]),
        ('[\n  {\n    "name": "net-a",\n    "interface": "x1"\n  }\n]', [("net-a", "x1")]),
        ('[{"name":"net-a","interface-request":"x1"}]', [("net-a", "x1")]),
        ('[{"name":"net-a","interfaceRequest":"x1","interface":"x1"}]', [("net-a", "x1")]),
        ('[{"name":"net-a","org.example.key":{"a":1}}]', [("net-a", "net1")]),
    ],
)
def test_npwg_names_and_interfaces(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(wish.network, wish.interface) for wish in from_annotations({NPWG_KEY: text})] == expected


def test_npwg_requests() -> None:
    (wish,) = theirs({
        "name": "net-b", "ips": ["10.2.2.42", "2001:DB8::5/64"], "mac": "02:23:45:67:89:AB", "default-route": ["10.2.2.1", "fe80::1"],
        "bandwidth": {"ingressRate": 2048, "ingressBurst": 1600, "egressRate": 4096}, "cni-args": {"a": {"b": [1]}},
        "ipam-claim-reference": "vm.claim", "infiniband-guid": "", "portMappings": [],
    })  # fmt: skip
    assert wish == Wish(
        network="net-b", interface="net1", addresses=("10.2.2.42", "2001:db8::5/64"), mac="02:23:45:67:89:ab",
        default_routes=("10.2.2.1", "fe80::1"), bandwidth=Bandwidth(2048, 1600, 4096, 0), cni_args={"a": {"b": [1]}}, ip_claim="vm.claim",
        place=f"{NPWG_KEY}: [0]",
    )  # fmt: skip


BAD_THEIRS: list[tuple[str, str, str]] = [
    ("a,,b", "[1]", "is empty; remove a comma, or name a network"),
    ("a,", "[1]", "is empty"),
    (",", "[0]", "is empty"),
    ("a b", "[0]", "'a b' is no name"),
    ("A", "[0]", "'A' is no name"),
    ("a/b/c", "[0]", "'a/b' is no name"),
    ("/a", "[0]", "is empty; give it a name"),
    ("a/", "[0]", "is empty; give it a name"),
    ("a@", "[0]", "is empty; leave it out, or give a name"),
    ("a, @x", "[1]", "is empty; give it a name"),
    ("a@b/c", "[0]", "'b/c' is no interface's name"),
    ("a@x1,b@x1", "[1]", "the interface 'x1' is that of 'k8s.v1.cni.cncf.io/networks: [0]' too"),
    ("a@" + "x" * 16, "[0]", "is 16 bytes long"),
    ("a\ud800", "[0]", "is no name"),
    ("{", "", "line 1, column 2: not JSON"),
    ('{"name": "a"}', "", "must be a list, not an object; write it in square brackets"),
    ('"a"', "", "must be a list, not the text 'a'"),
    ("[", "", "line 1, column 2: not JSON"),
    ("[1]", "[0]", "must be an object, not the number 1"),
    ('["a"]', "[0]", "must be an object, not the text 'a'"),
    ("[{}]", "[0].name", "is missing; name the network"),
    ("a" * 300_000, "", "is longer than 262144 bytes"),
]  # fmt: skip

BAD_ENTRIES: list[tuple[dict[str, Any], str, str]] = [
    ({"name": 5}, "[0].name", 'must be a text; write "5"'),
    ({"name": ""}, "[0].name", "is empty; give it a name"),
    ({"name": "a/b"}, "[0].name", "'a/b' is no name"),
    ({"name": "a", "namespace": "A"}, "[0].namespace", "'A' is no name"),
    ({"name": "a", "nmespace": "x"}, "[0]", "'nmespace' is not known here; did you mean 'namespace'?"),
    ({"name": "a", "defaultRoute": []}, "[0]", "'defaultRoute' is not known here; did you mean 'default-route'?"),
    ({"name": "a", "interface": "a b"}, "[0].interface", "'a b' is no interface's name"),
    ({"name": "a", "interface": "x", "interfaceRequest": "y"}, "[0]", "interface and interfaceRequest differ; write interface alone"),
    ({"name": "a", "interface-request": "a b"}, "[0].interface-request", "'a b' is no interface's name"),
    ({"name": "a", "ips": "10.0.0.1"}, "[0].ips", "must be a list, not the text '10.0.0.1'"),
    ({"name": "a", "ips": None}, "[0].ips", "must be a list, not null"),
    ({"name": "a", "ips": []}, "[0].ips", "is empty; write at least one address, or leave it out"),
    ({"name": "a", "ips": [7]}, "[0].ips[0]", 'must be a text; write "7"'),
    ({"name": "a", "ips": ["10.0.0.1", "x"]}, "[0].ips[1]", "'x' is no IPv4 or IPv6 address"),
    ({"name": "a", "ips": ["10.0.0.1/33"]}, "[0].ips[0]", "the prefix length of IPv4 is a number from 1 to 32"),
    ({"name": "a", "ips": ["10.0.0.1", "10.0.0.1/24"]}, "[0].ips[1]", "10.0.0.1/24 is [0].ips[0] again; write each address once"),
    ({"name": "a", "mac": "02:00"}, "[0].mac", "'02:00' is no MAC; write six octets"),
    ({"name": "a", "mac": "03:00:00:00:00:01"}, "[0].mac", "is a multicast MAC"),
    ({"name": "a", "mac": "00:00:00:00:00:00"}, "[0].mac", "is no interface's MAC"),
    ({"name": "a", "mac": "02:00-00:00:00:01"}, "[0].mac", "is no MAC"),
    ({"name": "a", "default-route": "10.0.0.1"}, "[0].default-route", "must be a list"),
    ({"name": "a", "default-route": ["x"]}, "[0].default-route[0]", "'x' is no IPv4 or IPv6 address"),
    ({"name": "a", "default-route": ["10.0.0.1", "10.0.0.2"]}, "[0].default-route[1]", "10.0.0.2 is a second next hop of IPv4"),
    ({"name": "a", "bandwidth": 5}, "[0].bandwidth", "must be an object, not the number 5"),
    ({"name": "a", "bandwidth": {"rate": 5}}, "[0].bandwidth", "'rate' is not known here"),
    ({"name": "a", "bandwidth": {"ingressRate": "5"}}, "[0].bandwidth.ingressRate", "'5' is no rate; write a whole number of bits"),
    ({"name": "a", "bandwidth": {"ingressRate": -5}}, "[0].bandwidth.ingressRate", "-5 is no rate"),
    ({"name": "a", "bandwidth": {"egressBurst": 5}}, "[0].bandwidth.egressBurst", "needs egressRate beside it"),
    ({"name": "a", "cni-args": []}, "[0].cni-args", "must be an object, not a list"),
    ({"name": "a", "ipam-claim-reference": "A"}, "[0].ipam-claim-reference", "'A' is no name"),
]  # fmt: skip

UNSUPPORTED: list[tuple[dict[str, Any], str, str]] = [
    ({"name": "a", "infiniband-guid": "c2:11:22:33:44:55:66:77"}, "[0].infiniband-guid", "is not supported: no network type here carries InfiniBand; remove it"),
    ({"name": "a", "portMappings": [{"hostPort": 80}]}, "[0].portMappings", "is not supported: no network type here maps ports; remove it"),
    ({"name": "a", "mac": ":".join(["02"] * 20)}, "[0].mac", "is an InfiniBand address: not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "fragment"), BAD_THEIRS, ids=[ascii(text[:20]) for text, _, _ in BAD_THEIRS])
def test_bad_text_of_the_npwg_annotation(text: str, place: str, fragment: str) -> None:
    refused({NPWG_KEY: text}, NPWG_KEY, place, fragment)


@pytest.mark.parametrize(("entry", "place", "fragment"), BAD_ENTRIES, ids=[fragment for _, _, fragment in BAD_ENTRIES])
def test_bad_entries_of_the_npwg_annotation(entry: dict[str, Any], place: str, fragment: str) -> None:
    refused({NPWG_KEY: json.dumps([entry])}, NPWG_KEY, place, fragment)


@pytest.mark.parametrize(("entry", "place", "fragment"), UNSUPPORTED)
def test_what_is_asked_for_and_cannot_be_done_fails(entry: dict[str, Any], place: str, fragment: str) -> None:
    refused({NPWG_KEY: json.dumps([entry])}, NPWG_KEY, place, fragment, "CNI_FIELD_UNSUPPORTED")


def test_too_many_addresses_in_one_entry() -> None:
    entry = {"name": "a", "ips": [f"10.0.0.{n}" for n in range(1, 50)]}
    refused(
        {NPWG_KEY: json.dumps([entry])}, NPWG_KEY, "[0].ips", "49 addresses are too many; a pod has at most 48", "LIMIT_EXCEEDED"
    )


def test_what_the_documents_show_is_read() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "annotations.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert [wish.interface for wish in from_annotations({KNITTER_KEY: first, NPWG_KEY: second})] == [
        "eth1",
        "eth_media",
        "net1",
        "net2",
    ]
    assert len(from_annotations({NPWG_KEY: "control, t2/media@net7"})) == 2
