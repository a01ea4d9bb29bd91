"""knitter_agent.cni: what of a runtime's call is refused, with which code, naming what."""

import json
from typing import Any

import pytest

from knitter_agent.attachment.intent import allocation_of
from knitter_agent.cni import failure, parse_call
from knitter_agent.record import Key
from knitter_common.errors import Denied, Invalid

CONF: dict[str, Any] = {"cniVersion": "1.0.0", "name": "knitter", "type": "knitter-cni"}
ENVIRONMENT = {"CNI_COMMAND": b"ADD", "CNI_CONTAINERID": b"c1", "CNI_NETNS": b"/run/netns/a", "CNI_IFNAME": b"eth0"}


def _parse(verb: str = "ADD", environment: dict[str, Any] | None = None, conf: Any = None, stdin: bytes | None = None) -> Any:
    changed = {**ENVIRONMENT, "CNI_COMMAND": verb.encode(), **(environment or {})}
    told = {key: value for key, value in changed.items() if value is not None}
    return parse_call(verb, told, stdin if stdin is not None else json.dumps(CONF if conf is None else conf).encode(), "0" * 16)


def _refused(code: int, *words: str, **call: Any) -> None:
    with pytest.raises(Invalid) as caught:
        _parse(**call)
    body = json.loads(failure(caught.value).stdout)
    assert body["code"] == code
    for word in words:
        assert word in body["msg"]


@pytest.mark.parametrize(
    ("verb", "variable"),
    [
        ("ADD", "CNI_CONTAINERID"),
        ("ADD", "CNI_NETNS"),
        ("ADD", "CNI_IFNAME"),
        ("DEL", "CNI_CONTAINERID"),
        ("DEL", "CNI_IFNAME"),
        ("CHECK", "CNI_CONTAINERID"),
        ("CHECK", "CNI_NETNS"),
        ("CHECK", "CNI_IFNAME"),
    ],
)
@pytest.mark.parametrize("value", [None, b""])
def test_a_missing_variable_is_code_4_and_named(verb: str, variable: str, value: bytes | None) -> None:
    _refused(4, variable, verb, verb=verb, environment={variable: value})


def test_del_needs_no_namespace() -> None:
    assert _parse("DEL", {"CNI_NETNS": b""}).netns == ""
    assert _parse("DEL", {"CNI_NETNS": None}).netns == ""


@pytest.mark.parametrize("value", [b"-a", b".a", b"_a", b"a/b", b"a b", b"a\n", "ä".encode(), b"a" * 1025, b"\xff"])
def test_a_bad_container_id_is_code_4(value: bytes) -> None:
    _refused(4, "CNI_CONTAINERID", environment={"CNI_CONTAINERID": value})


@pytest.mark.parametrize("value", [b"a", b"0", b"a.b_c-D9", b"f" * 64])
def test_a_good_container_id(value: bytes) -> None:
    assert _parse(environment={"CNI_CONTAINERID": value}).container_id == value.decode()


@pytest.mark.parametrize(
    "value", [b".", b"..", b"a/b", b"a:b", b"a b", b"a\tb", b"a\n", b"sixteen_letters_", "éééééééé".encode(), b"a\x01"]
)
def test_a_bad_interface_name_is_code_4(value: bytes) -> None:
    _refused(4, "CNI_IFNAME", environment={"CNI_IFNAME": value})


@pytest.mark.parametrize("value", [b"eth0", b"fifteen_letters", "é".encode(), b"..."])
def test_a_good_interface_name(value: bytes) -> None:
    assert _parse(environment={"CNI_IFNAME": value}).interface == value.decode()


@pytest.mark.parametrize("value", [b"A", b"A=1;B", b"=x", b"A=1;=2", b"\xc3"])
def test_bad_arguments_are_code_4(value: bytes) -> None:
    _refused(4, "CNI_ARGS", environment={"CNI_ARGS": value})


def test_a_namespace_that_cannot_be_one_is_code_4() -> None:
    _refused(4, "K8S_POD_NAMESPACE", environment={"CNI_ARGS": b"K8S_POD_NAMESPACE=No/Such"})


def test_arguments_of_kubernetes_and_unknown_ones() -> None:
    call = _parse(
        environment={"CNI_ARGS": b"IgnoreUnknown=1;K8S_POD_NAMESPACE=t1;K8S_POD_NAME=web-0;FOO=a=b;"}, conf={**CONF, "tenant": "t2"}
    )
    assert call.tenant == "t1"
    assert call.args["K8S_POD_NAME"] == "web-0"
    assert call.args["FOO"] == "a=b"
    assert _parse(conf={**CONF, "tenant": "t2"}).tenant == "t2"


def test_a_namespace_of_the_operators_name_gets_nothing() -> None:
    call = _parse(environment={"CNI_ARGS": b"K8S_POD_NAMESPACE=admin"})  # its DEL is served
    with pytest.raises(Denied, match="namespace admin cannot be a tenant") as refused:
        allocation_of(call, Key("knitter", "c1", "eth0"), "n1", "", 1)
    assert refused.value.cni_code == 142


def test_another_command_than_the_plugin_asked_for_is_code_4() -> None:
    _refused(4, "CNI_COMMAND", environment={"CNI_COMMAND": b"DEL"})


@pytest.mark.parametrize(
    ("stdin", "words"),
    [
        (b"", ("line 1", "column 1")),
        (b"{", ("line 1", "column 2")),
        (b'{"a": 1,\n "b": }', ("line 2", "column 7")),
        (b"[]", ("object",)),
        (b"null", ("object",)),
        (b'"x"', ("object",)),
        (b"\xff\xfe", ("UTF-8",)),
        (b'{"name": "\xc3"}', ("UTF-8",)),
        (b"[" * 100_000, ("deep",)),
    ],
)
def test_bad_json_is_code_6(stdin: bytes, words: tuple[str, ...]) -> None:
    _refused(6, *words, stdin=stdin)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": None}, ("name", "missing")),
        ({"name": ""}, ("name", "missing")),
        ({"name": 7}, ("name", "text")),
        ({"name": "a/b"}, ("name",)),
        ({"name": ".a"}, ("name",)),
        ({"name": "a" * 254}, ("name",)),
        ({"type": None}, ("type", "missing")),
        ({"type": []}, ("type",)),
        ({"tenant": 1}, ("tenant",)),
        ({"defaultNetwork": {}}, ("defaultNetwork",)),
        ({"delegate": "bridge"}, ("delegate",)),
        ({"delegate": {}}, ("delegate.type", "missing")),
        ({"delegate": {"type": "../x"}}, ("delegate.type",)),
        ({"delegate": {"plugins": []}}, ("delegate.plugins",)),
        ({"delegate": {"plugins": [{"type": "a"}, {}]}}, ("delegate.plugins[1].type",)),
        ({"runtimeConfig": []}, ("runtimeConfig",)),
        ({"runtimeConfig": {"ips": "10.0.0.1"}}, ("runtimeConfig.ips",)),
        ({"runtimeConfig": {"mac": 1}}, ("runtimeConfig.mac",)),
        ({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"a": 1}}}, ("pod-annotations",)),
        ({"prevResult": []}, ("prevResult",)),
        ({"dns": []}, ("dns",)),
        ({"dns": {"nameservers": "8.8.8.8"}}, ("dns.nameservers",)),
    ],
)
def test_a_bad_key_is_code_7_and_named(change: dict[str, Any], words: tuple[str, ...]) -> None:
    _refused(7, *words, conf={key: value for key, value in {**CONF, **change}.items() if value is not None})


@pytest.mark.parametrize("version", [None, "", "0.2.0", "0.3.0", "1.2.0", "2.0.0", 1, ["1.0.0"]])
def test_a_version_that_is_not_spoken_is_code_1(version: Any) -> None:
    conf = {**CONF, "cniVersion": version} if version is not None else {key: CONF[key] for key in ("name", "type")}
    _refused(1, "cniVersion", "1.1.0", conf=conf)


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_versions_that_are_spoken(version: str) -> None:
    assert _parse(conf={**CONF, "cniVersion": version}).conf.version == version


@pytest.mark.parametrize(("verb", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "0.4.0")])
def test_a_verb_newer_than_the_version_is_code_1(verb: str, version: str) -> None:
    _refused(1, verb, verb=verb, conf={**CONF, "cniVersion": version})


def test_unknown_keys_are_ignored() -> None:
    assert _parse(conf={**CONF, "cilium": {"x": 1}, "args": {"cni": {}}}).conf.name == "knitter"


def test_a_del_does_not_fail_over_what_only_add_needs() -> None:
    conf = {**CONF, "tenant": 1, "networks": 3, "delegate": "x", "runtimeConfig": 7, "prevResult": [], "dns": 1}
    assert _parse("DEL", conf=conf).conf.delegates == ()


def test_delegates_get_a_complete_configuration() -> None:
    conf = _parse(conf={**CONF, "delegate": {"plugins": [{"type": "bridge"}, {"type": "tuning", "x": 1}]}}).conf
    assert [dict(one) for one in conf.delegates] == [
        {"type": "bridge", "cniVersion": "1.0.0", "name": "knitter"},
        {"type": "tuning", "x": 1, "cniVersion": "1.0.0", "name": "knitter"},
    ]
    other = _parse(conf={**CONF, "delegate": {"type": "bridge", "name": "lan", "cniVersion": "0.4.0"}}).conf.delegates[0]
    assert (other["name"], other["cniVersion"]) == ("lan", "0.4.0")


def test_what_is_valid_for_gc() -> None:
    key, conf = "cni.dev/valid-attachments", {**CONF, "cniVersion": "1.1.0"}
    assert _parse("GC", conf={**conf, key: []}).conf.valid == ()
    assert _parse("GC", conf={**conf, key: [{"containerID": "a", "ifname": "eth0"}]}).conf.valid == (("a", "eth0"),)
    _refused(7, key, "missing", verb="GC", conf=conf)
    _refused(7, key, verb="GC", conf={**conf, key: {}})
    _refused(7, f"{key}[0]", verb="GC", conf={**conf, key: [{"containerID": "a"}]})
