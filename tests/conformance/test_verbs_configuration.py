"""Bad configurations, through the plugin and the real agent: codes 1, 6 and 7 (CNI 1.1.0) and the annotations' own 120, a message
that names the key and the place, nothing changed."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from harness.verbs import CONF, Bench, bench

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

VERBS = ["ADD", "DEL", "CHECK", "GC", "STATUS"]
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"


@pytest.fixture(scope="module")
def place() -> Iterator[Bench]:
    with bench() as made:
        yield made


def names_value(error: dict[str, Any], value: Any) -> None:
    """The message shows what was wrong: the innermost value, as it was written or as JSON, or the part of it, or that it is
    missing."""
    while isinstance(value, (dict, list)) and value:
        value = list(value.values() if isinstance(value, dict) else value)[-1]
    said = error["msg"]
    written = [json.dumps(value), json.dumps(value, ensure_ascii=False), str(value), str(value)[:40], repr(value)[1:-1]]
    if isinstance(value, str) and said.startswith("networks"):
        written += [value.rpartition("@")[2], value.rpartition("/")[0]]
    assert any(text in said for text in written if text) or any(
        word in said for word in ("missing", "empty", "needs", "not known")
    ), (value, said)


BROKEN = [
    (b"", "line 1"),
    (b"   \n", "line"),
    (b"{", "line 1, column 2"),
    (b"}", "line 1, column 1"),
    (b'{"cniVersion":"1.1.0","name":"knitter"', "line 1"),
    (b'{"cniVersion":"1.1.0",\n"name":}', "line 2, column 8"),
    (b'{"a":1,}', "line 1"),
    (b"{'a':1}", "line 1"),
    (b'{"a":1} trailing', "line 1, column 9"),
    (b'{"a":1}{"b":2}', "line 1, column 8"),
    (b'{"a":"\n"}', "line 1"),
    (b'{"a":"\\x"}', "line 1"),
    (b"[]", "object"),
    (b"null", "object"),
    (b"17", "object"),
    (b'"knitter"', "object"),
    (b"true", "object"),
    (b"\xff\xfe{\x00}\x00", "UTF-8"),
    (b'{"name":"\xc3"}', "UTF-8"),
    (b"\xef\xbb\xbf{}", ""),
    (b"\x00" * 100, ""),
    (b"[" * 100_000, "deep"),
    (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "deep"),
    (os.urandom(4096), ""),
]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("stdin", "words"), BROKEN, ids=lambda value: repr(value)[:24])
async def test_what_is_no_json_object(place: Bench, verb: str, stdin: bytes, words: str) -> None:
    error = await place.refused(verb, 6, stdin=stdin)
    assert "standard input" in error["msg"]
    assert words in error["msg"]


BAD_VERSIONS = [
    None,
    "",
    "0.1.0",
    "0.2.0",
    "0.3.0",
    "1.2.0",
    "2.0.0",
    "1.1",
    "v1.0.0",
    "1.0.0 ",
    1,
    1.1,
    True,
    ["1.0.0"],
    "1" * 5000,
]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("version", BAD_VERSIONS, ids=repr)
async def test_a_version_that_is_not_spoken(place: Bench, verb: str, version: Any) -> None:
    error = await place.refused(verb, 1, {"cniVersion": version})
    assert error["msg"].startswith("cniVersion")
    assert "1.1.0" in error["msg"]
    names_value(error, version)


TOO_OLD = [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("GC", "0.4.0"), ("STATUS", "1.0.0"), ("STATUS", "0.3.1")]


@pytest.mark.parametrize(("verb", "version"), TOO_OLD)
async def test_a_verb_that_the_version_does_not_have(place: Bench, verb: str, version: str) -> None:
    error = await place.refused(verb, 1, {"cniVersion": version, "cni.dev/valid-attachments": []})
    assert verb in error["msg"]


BAD_NAMES = [("name", value) for value in (None, "", 7, [], {}, "a/b", ".a", "-a", "a b", "ä", "a" * 254, "a\n")]
BAD_TYPES = [("type", value) for value in (None, "", 7, [], {})]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("key", "value"), [*BAD_NAMES, *BAD_TYPES], ids=lambda value: repr(value)[:24])
async def test_a_name_or_type_that_cannot_be_one(place: Bench, verb: str, key: str, value: Any) -> None:
    error = await place.refused(verb, 7, {key: value})
    assert error["msg"].startswith(key)
    names_value(error, value)


BAD_KEYS: list[tuple[dict[str, Any], str]] = [
    ({"tenant": 1}, "tenant"),
    ({"tenant": {}}, "tenant"),
    ({"defaultNetwork": {}}, "defaultNetwork"),
    ({"defaultNetwork": ["a"]}, "defaultNetwork"),
    ({"delegate": "bridge"}, "delegate"),
    ({"delegate": []}, "delegate"),
    ({"delegate": {}}, "delegate.type"),
    ({"delegate": {"type": 1}}, "delegate.type"),
    ({"delegate": {"type": "../x"}}, "delegate.type"),
    ({"delegate": {"type": "/bin/sh"}}, "delegate.type"),
    ({"delegate": {"type": ""}}, "delegate.type"),
    ({"delegate": {"plugins": []}}, "delegate.plugins"),
    ({"delegate": {"plugins": {}}}, "delegate.plugins"),
    ({"delegate": {"plugins": [{"type": "a"}, {}]}}, "delegate.plugins[1].type"),
    ({"delegate": {"plugins": ["a"]}}, "delegate.plugins[0]"),
    ({"delegate": {"type": "bridge", "cniVersion": "0.3.0"}}, "delegate.cniVersion"),
    ({"delegate": {"type": "bridge", "cniVersion": None}}, "delegate.cniVersion"),
    ({"delegate": {"type": "bridge", "name": 7}}, "delegate.name"),
    ({"delegate": {"type": "a", "name": ""}}, "delegate.name"),
    ({"runtimeConfig": []}, "runtimeConfig"),
    ({"runtimeConfig": "x"}, "runtimeConfig"),
    ({"runtimeConfig": {"ips": "10.0.0.1"}}, "runtimeConfig.ips"),
    ({"runtimeConfig": {"ips": [1]}}, "runtimeConfig.ips"),
    ({"runtimeConfig": {"mac": 1}}, "runtimeConfig.mac"),
    ({"runtimeConfig": {ANNOTATIONS: []}}, ANNOTATIONS),
    ({"runtimeConfig": {ANNOTATIONS: {"a": 1}}}, ANNOTATIONS),
    ({"prevResult": []}, "prevResult"),
    ({"prevResult": "x"}, "prevResult"),
    ({"dns": []}, "dns"),
    ({"dns": {"nameservers": "8.8.8.8"}}, "dns.nameservers"),
    ({"dns": {"search": [1]}}, "dns.search"),
    ({"dns": {"options": {"a": 1}}}, "dns.options"),
    ({"dns": {"domain": 1}}, "dns.domain"),
    ({"networks": 7}, "networks"),
    ({"networks": True}, "networks"),
    ({"networks": [7]}, "networks"),
    ({"networks": [{"name": 7}]}, "networks"),
    ({"networks": [{}]}, "networks"),
    ({"networks": {"ports": 1}}, "networks"),
    ({"networks": {"ports": [{}]}}, "networks"),
    ({"networks": {"ports": [{"attach_to_network": ""}]}}, "attach_to_network"),
    ({"networks": "a@eth0"}, "eth0"),
    ({"networks": "a@net1,b@net1"}, "net1"),
    ({"networks": "a@" + "x" * 16}, "networks"),
    ({"networks": "a/b/c"}, "networks"),
    ({"runtimeConfig": {"ips": ["x"]}}, "ips"),
    ({"runtimeConfig": {"ips": ["10.0.0.300"]}}, "ips"),
    ({"runtimeConfig": {"mac": "zz"}}, "mac"),
    ({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, "mac"),
    ({"runtimeConfig": {"bandwidth": 7}}, "runtimeConfig: bandwidth"),
    ({"runtimeConfig": {"bandwidth": {"ingressRate": "fast"}}}, "bandwidth.ingressRate"),
    ({"runtimeConfig": {"bandwidth": {"EgressBurst": 8}}}, "bandwidth.egressBurst"),
    ({"runtimeConfig": {"bandwidth": {"rate": 8}}}, "bandwidth"),
    ({"defaultNetwork": "a/b/c"}, "defaultNetwork"),
    ({"tenant": "No Such"}, "tenant"),
    ({"tenant": "a/b"}, "tenant"),
]


@pytest.mark.parametrize(("change", "words"), BAD_KEYS, ids=lambda value: json.dumps(value)[:50])
async def test_a_key_that_is_wrong(place: Bench, change: dict[str, Any], words: str) -> None:
    error = await place.refused("ADD", 7, change)
    assert words in error["msg"]
    names_value(error, change)


@pytest.mark.parametrize(("change", "words"), BAD_KEYS, ids=lambda value: json.dumps(value)[:50])
async def test_del_does_not_mind_keys_that_only_add_needs(place: Bench, change: dict[str, Any], words: str) -> None:
    await place.passed("DEL", change)


ASKED: list[tuple[dict[str, Any], str]] = [
    ({"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}, "portMappings"),
    ({"ipRanges": [[{"subnet": "10.0.0.0/24"}]]}, "ipRanges"),
    ({"infinibandGUID": "c2:11:22:33:44:55:66:77"}, "infinibandGUID"),
    ({"deviceID": "0000:04:00.5"}, "deviceID"),
    ({"aliases": ["web"]}, "aliases"),
]


@pytest.mark.parametrize(("asked", "key"), ASKED, ids=lambda value: str(value)[:20])
async def test_a_capability_that_nobody_takes_is_refused_rather_than_dropped(place: Bench, asked: dict[str, Any], key: str) -> None:
    result = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}], "ips": []}
    for more in ({}, {"delegate": {"type": "bridge"}}, {"prevResult": result}):
        error = await place.refused("ADD", 2, {"runtimeConfig": asked, **more})
        assert error["msg"].startswith(f"runtimeConfig.{key} ")
    await place.passed("DEL", {"runtimeConfig": asked})


@pytest.mark.parametrize(
    "asked", [{"ips": ["10.0.0.9"]}, {"mac": "02:00:00:00:00:09"}, {"bandwidth": {"ingressRate": 1000}}], ids=str
)
async def test_what_is_asked_for_an_interface_that_another_plugin_made_is_refused(place: Bench, asked: dict[str, Any]) -> None:
    result = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}], "ips": []}
    for more in ({"prevResult": result}, {"delegate": {"type": "bridge", "capabilities": {next(iter(asked)): False}}}):
        error = await place.refused("ADD", 2, {"runtimeConfig": asked, **more})
        assert next(iter(asked)) in error["msg"]


NOTHING = [{"portMappings": []}, {"bandwidth": None}, {"aliases": [], "dns": {"servers": ["10.0.0.1"]}, "x": 1}]


@pytest.mark.parametrize("asked", NOTHING, ids=str)
async def test_what_is_not_really_asked_for_hinders_nobody(place: Bench, asked: dict[str, Any]) -> None:
    await place.refused("ADD", 11, {"runtimeConfig": asked})  # no manager is there, which is all that is missing


async def test_more_interfaces_than_a_pod_can_have(place: Bench) -> None:
    error = await place.refused("ADD", 141, {"networks": ",".join(f"a@i{number}" for number in range(40))})
    assert "networks" in error["msg"]
    assert "32" in error["msg"]


BAD_ANNOTATIONS: list[tuple[str, str, str]] = [
    ("networks", "{", "networks"),
    ("networks", "[]", "networks"),
    ("networks", "7", "networks"),
    ("networks", '{"ports":7}', "ports"),
    ("networks", '{"ports":[7]}', "ports[0]"),
    ("networks", '{"ports":[{}]}', "attach_to_network"),
    ("networks", '{"ports":[{"attach_to_network":7}]}', "attach_to_network"),
    ("networks", '{"ports":[{"attach_to_network":"a","attributes":7}]}', "attributes"),
    ("networks", '{"ports":[{"attach_to_network":"a","attributes":{"nic_name":"a/b"}}]}', "nic_name"),
    ("networks", '{"ports":[{"attach_to_network":"a","attributes":{"nic_name":"sixteen_letters_"}}]}', "nic_name"),
    ("networks", '{"ports":[{"attach_to_network":"a","attributes":{"nic_type":"virtual"}}]}', "nic_type"),
    ("networks", '{"ports":[{"attach_to_network":"a","attributes":{"accelerate":"yes"}}]}', "accelerate"),
    ("networks", '{"ports":[{"attach_to_network":"a","attributes":{"accelerate":true}}]}', "accelerate"),
    ("networks", '{"ports":[{"attach_to_network":"a","attributes":{"combinable":"maybe"}}]}', "combinable"),
    ("networks", '{"ports":[{"attach_to_network":"a","attributes":{"ip_addr":"10.0.0.300"}}]}', "ip_addr"),
    ("networks", '{"ports":[{"attach_to_network":"a","attributes":{"ip_addr":"10.0.0.1/24"}}]}', "ip_addr"),
    ("networks", '{"ports":[{"attach_to_network":"a","attributes":{"nic_name":"x"}},'
                 '{"attach_to_network":"b","attributes":{"nic_name":"x"}}]}', "x"),
    ("k8s.v1.cni.cncf.io/networks", "[", "networks"),
    ("k8s.v1.cni.cncf.io/networks", '[{"name":7}]', "name"),
    ("k8s.v1.cni.cncf.io/networks", '[{"interface":"a"}]', "name"),
    ("k8s.v1.cni.cncf.io/networks", '[{"name":"a","interface":"a/b"}]', "interface"),
    ("k8s.v1.cni.cncf.io/networks", '[{"name":"a","ips":"10.0.0.1"}]', "ips"),
    ("k8s.v1.cni.cncf.io/networks", '[{"name":"a","ips":["x"]}]', "ips"),
    ("k8s.v1.cni.cncf.io/networks", '[{"name":"a","mac":"zz"}]', "mac"),
    ("k8s.v1.cni.cncf.io/networks", "a/b/c", "a/b"),
    ("k8s.v1.cni.cncf.io/networks", "a@", "[0]"),
    ("k8s.v1.cni.cncf.io/networks", "a@x,b@x", "x"),
    ("k8s.v1.cni.cncf.io/networks", "a,,b", ""),
]  # fmt: skip


@pytest.mark.parametrize(("key", "text", "words"), BAD_ANNOTATIONS, ids=lambda value: value[:60])
async def test_an_annotation_that_is_wrong(place: Bench, key: str, text: str, words: str) -> None:
    error = await place.refused("ADD", 120, {"runtimeConfig": {ANNOTATIONS: {key: text}}})
    assert key in error["msg"]
    assert words in error["msg"]


HALF = [[{"containerID": "a"}], [{"ifname": "eth0"}], [{"containerID": 1, "ifname": "eth0"}]]
BAD_LISTS = [None, "x", 7, {}, [1], ["a"], [{}], *HALF]


@pytest.mark.parametrize("value", BAD_LISTS, ids=repr)
async def test_gc_without_a_proper_list_does_nothing(place: Bench, value: Any) -> None:
    error = await place.refused("GC", 7, {"cni.dev/valid-attachments": value})
    assert "cni.dev/valid-attachments" in error["msg"]


async def test_check_without_the_result_of_add(place: Bench) -> None:
    error = await place.refused("CHECK", 7)
    assert "prevResult" in error["msg"]


BAD_RESULTS = [{"cniVersion": "9.0.0"}, {"cniVersion": 1}, {"interfaces": 7}, {"interfaces": [7]}, {"ips": {}}, {"routes": "x"}]


@pytest.mark.parametrize("result", BAD_RESULTS, ids=repr)
async def test_a_previous_result_that_cannot_be_passed_on(place: Bench, result: dict[str, Any]) -> None:
    error = await place.refused("ADD", 7, {"prevResult": result})
    assert f"prevResult.{next(iter(result))}" in error["msg"]
    names_value(error, result)


async def test_unknown_keys_are_others_business(place: Bench) -> None:
    await place.passed("STATUS", {"x": 1, "ipam": {"type": "x"}, "args": [1], "capabilities": 7, "disableCheck": "x"})


async def test_an_add_without_a_manager_says_try_again(place: Bench) -> None:
    error = await place.refused("ADD", 11)
    assert "manager" in error["msg"]
    assert error["cniVersion"] == CONF["cniVersion"]
