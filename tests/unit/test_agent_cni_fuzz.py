"""Whatever a runtime sends is judged: a Call, or Invalid with a code of the specification. Nothing else comes out of the parser."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from knitter_agent.attachment.intent import allocation_of
from knitter_agent.cni import failure, parse_call
from knitter_agent.cni.result import read, written
from knitter_agent.record import Key
from knitter_common.errors import Denied, Invalid

VERBS = some.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS"])
TEXTS = some.text(max_size=20)
VALUES: Any = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | TEXTS,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
KEYS = [
    "tenant",
    "defaultNetwork",
    "delegate",
    "networks",
    "runtimeConfig",
    "prevResult",
    "dns",
    "cni.dev/valid-attachments",
    "capabilities",
]
CONFS = some.fixed_dictionaries(
    {"name": some.just("knitter") | VALUES, "type": some.just("knitter-cni") | VALUES, "cniVersion": some.just("1.1.0") | VALUES},
    optional=dict.fromkeys(KEYS, VALUES),
)
ENVIRONMENT = {"CNI_CONTAINERID": b"c1", "CNI_NETNS": b"/run/netns/a", "CNI_IFNAME": b"eth0"}


def _judged(verb: str, environment: dict[str, bytes], stdin: bytes) -> None:
    try:
        call = parse_call(verb, environment, stdin, "r")
        if verb == "ADD":
            allocation_of(call, Key(call.conf.name, call.container_id, call.interface), "n", "", 1)
    except (Invalid, Denied) as error:
        body = json.loads(failure(error).stdout)
        assert body["code"] in (1, 2, 4, 6, 7, 120, 121, 141, 142)
        assert body["msg"]


@given(verb=VERBS, stdin=some.binary(max_size=200))
def test_any_bytes_on_standard_input(verb: str, stdin: bytes) -> None:
    _judged(verb, ENVIRONMENT, stdin)


@given(verb=VERBS, conf=CONFS)
def test_any_json_in_any_key(verb: str, conf: dict[str, Any]) -> None:
    _judged(verb, ENVIRONMENT, json.dumps(conf).encode())


@given(
    verb=VERBS,
    environment=some.dictionaries(
        some.sampled_from([*ENVIRONMENT, "CNI_ARGS", "CNI_PATH", "CNI_COMMAND"]), some.binary(max_size=40)
    ),
)
def test_any_environment(verb: str, environment: dict[str, bytes]) -> None:
    _judged(verb, environment, b'{"cniVersion":"1.1.0","name":"knitter","type":"knitter-cni","cni.dev/valid-attachments":[]}')


@given(
    raw=some.dictionaries(some.sampled_from(["cniVersion", "ips", "interfaces", "routes", "dns", "x"]), VALUES),
    version=some.sampled_from(["0.3.1", "1.1.0"]),
)
def test_any_previous_result(raw: dict[str, Any], version: str) -> None:
    try:
        json.dumps(written(read(raw, version), version))
    except Invalid as error:
        assert error.reason == "CNI_CONFIG_INVALID"  # noqa: PT017 - it may as well be readable
