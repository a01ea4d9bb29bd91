"""knitter_agent.cni.result: results of every version, in and out."""

import json
from typing import Any

import pytest

from knitter_agent.cni import failure
from knitter_agent.cni.result import changed_since, differences, of_port, read, written
from knitter_agent.drivers import Changed, settle_defaults
from knitter_common.errors import REASONS, Invalid
from knitter_common.model import Dns, Port, PortAddress, Route

PORT = Port(
    "p1", "n1", "t1/a", "eth0", "02:00:00:00:00:01", (PortAddress("10.1.0.2/24", "10.1.0.1"), PortAddress("fd00::2/64")),
    (Route("0.0.0.0/0"), Route("192.168.0.0/16", "10.1.0.9", 100, 1300), Route("fd01::/64")), mtu=1400,
)  # fmt: skip
RESULT = of_port(PORT, [("kv1", "02:00:00:00:00:02")], "/ns/a", Dns(("10.1.0.53",), "", ("a.b",)), 1400)


def test_a_result_of_1_1() -> None:
    assert written(RESULT, "1.1.0") == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "kv1", "mac": "02:00:00:00:00:02"},
            {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/ns/a", "mtu": 1400},
        ],
        "ips": [{"address": "10.1.0.2/24", "interface": 1, "gateway": "10.1.0.1"}, {"address": "fd00::2/64", "interface": 1}],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "10.1.0.1"},
            {"dst": "192.168.0.0/16", "gw": "10.1.0.9", "priority": 100, "mtu": 1300},
            {"dst": "fd01::/64"},
        ],
        "dns": {"nameservers": ["10.1.0.53"], "search": ["a.b"]},
    }


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_older_results_have_nothing_newer(version: str) -> None:
    result = written(RESULT, version)
    assert result["cniVersion"] == version
    assert all(set(entry) <= {"name", "mac", "sandbox"} for entry in result["interfaces"])
    assert all(set(entry) <= {"dst", "gw"} for entry in result["routes"])
    assert [entry.get("version") for entry in result["ips"]] == ([None, None] if version == "1.0.0" else ["4", "6"])


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
@pytest.mark.parametrize("wanted", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_any_version_in_and_out(version: str, wanted: str) -> None:
    there = written({**RESULT, "x": 1}, version)
    back = written(read(there, "1.0.0"), wanted)
    assert back["x"] == 1
    assert written(read(back, "1.0.0"), "0.3.1") == written({**RESULT, "x": 1}, "0.3.1")


def test_the_primary_interface_is_told_with_its_default_routes() -> None:
    addresses = (PortAddress("10.1.0.2/24", "10.1.0.1"), PortAddress("fd00::2/64", "fd00::1"))
    port = Port("p", "n", "t/a", "eth0", "m", addresses, primary=True)
    both = [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "::/0", "gw": "fd00::1"}]
    assert of_port(port, [], "/ns", None, 0)["routes"] == both
    other = Port("q", "m", "t/b", "eth1", "m", (PortAddress("10.2.0.2/24"),), (Route("0.0.0.0/0", "10.2.0.9"),))
    settled, _ = settle_defaults((port, other))
    spare = [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "priority": 4096}, both[1]]
    assert of_port(settled, [], "/ns", None, 0)["routes"] == spare


def test_a_name_servers_network_wins() -> None:
    own = of_port(Port("p", "n", "t/a", "eth0", "m", dns=Dns(("1.1.1.1",))), [], "/ns", Dns(("2.2.2.2",)), 0)
    assert own["dns"] == {"nameservers": ["1.1.1.1"]}
    assert own["interfaces"] == [{"name": "eth0", "mac": "m", "sandbox": "/ns"}]


@pytest.mark.parametrize("raw", [{"cniVersion": "0.2.0"}, {"cniVersion": 1}, {"ips": {}}, {"interfaces": ["eth0"]}, {"routes": 7}])
def test_a_result_that_cannot_be_read_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        read(raw, "1.0.0")


def test_what_a_runtime_tells_differently() -> None:
    told = read(json.loads(json.dumps(written(RESULT, "0.4.0"))), "0.4.0")
    assert differences(told, RESULT, "eth0") == []
    told["ips"] = told["ips"][:1]
    assert len(differences(told, RESULT, "eth0")) == 1
    assert differences({"interfaces": []}, RESULT, "eth0") == ["prevResult has no interface eth0"]


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_what_later_plugins_changed_is_read_from_the_result(version: str) -> None:
    told = json.loads(json.dumps(written(RESULT, version)))
    mac = RESULT["interfaces"][1]["mac"]
    mtu = RESULT["interfaces"][1]["mtu"] if version == "1.1.0" else 0
    assert changed_since(read(told, version), RESULT, "eth0") == Changed(mac, mtu)
    told["interfaces"][1] |= {"mac": "02:00:00:00:00:AA"} | ({"mtu": 1300} if version == "1.1.0" else {})
    gone = told["routes"].pop(0)["dst"]
    expected = Changed("02:00:00:00:00:aa", 1300 if version == "1.1.0" else 0, frozenset((gone,)))
    assert changed_since(read(told, version), RESULT, "eth0") == expected


@pytest.mark.parametrize("reason", sorted(REASONS))
@pytest.mark.parametrize("version", ["0.3.1", "1.1.0", "", "9.9.9"])
def test_every_error_is_a_complete_object(reason: str, version: str) -> None:
    answer = failure(REASONS[reason].kind(reason, "“eth0” is wrong"), version)
    body = json.loads(answer.stdout)
    assert answer.exit_code == 1
    assert set(body) == {"cniVersion", "code", "msg", "details"}
    assert body["cniVersion"] == (version if version in ("0.3.1", "1.1.0") else "1.0.0")
    assert body["code"] == REASONS[reason].cni_code
    assert body["msg"] == "“eth0” is wrong"
