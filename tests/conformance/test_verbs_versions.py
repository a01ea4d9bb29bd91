"""Every version of the specification, through the plugin and the real agent: what is asked for is what is answered."""

import ipaddress
import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from harness.agent import SmallManager, agent_in
from harness.netns import network_namespace
from harness.plugin import Plugin

from knitter_agent.cni import versions
from knitter_cni import plugin as plugin_file

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

SUPPORTED = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]
MAY_HAVE = {
    "interfaces": {"name", "mac", "sandbox"},
    "ips": {"address", "gateway", "interface"},
    "routes": {"dst", "gw"},
    "dns": {"nameservers", "domain", "search", "options"},
}


@pytest.fixture
def sandbox() -> Iterator[str]:
    with network_namespace("pod") as path:
        yield path


@pytest.fixture
async def plugin() -> AsyncIterator[Plugin]:
    with network_namespace("node") as node:
        async with SmallManager() as manager:
            with agent_in(node, manager.address) as agent:
                yield Plugin(agent.home)


def test_plugin_and_agent_speak_the_same_versions() -> None:
    assert list(plugin_file.SUPPORTED) == list(versions.SUPPORTED) == SUPPORTED


@pytest.mark.parametrize("version", SUPPORTED)
async def test_a_life_in_each_version(plugin: Plugin, sandbox: str, version: str) -> None:
    conf: dict[str, Any] = {"cniVersion": version, "name": "knitter", "type": "knitter-cni"}
    env = {"CNI_NETNS": sandbox}
    added = await plugin.call("ADD", json.dumps(conf).encode(), env)
    assert added.code == 0, added
    result = added.json
    judge(result, version, sandbox)
    with_result = json.dumps({**conf, "prevResult": result}).encode()
    checked = await plugin.call("CHECK", with_result, env)
    if version == "0.3.1":
        assert checked.error["code"] == 1
    else:
        assert (checked.code, checked.stdout) == (0, b""), checked
    again = await plugin.call("ADD", json.dumps(conf).encode(), env)
    assert again.error["cniVersion"] == version
    deleted = await plugin.call("DEL", with_result, env)
    assert (deleted.code, deleted.stdout) == (0, b"")
    twice = await plugin.call("DEL", json.dumps(conf).encode(), {"CNI_NETNS": ""})
    assert (twice.code, twice.stdout) == (0, b"")


def judge(result: dict[str, Any], version: str, netns: str) -> None:
    """The specification's "Section 5: Result Types" for that version."""
    assert result["cniVersion"] == version
    assert set(result) <= {"cniVersion", *MAY_HAVE}
    may_have = {key: set(fields) for key, fields in MAY_HAVE.items()}
    if version == "1.1.0":
        may_have["interfaces"] |= {"mtu", "socketPath", "pciID"}
        may_have["routes"] |= {"mtu", "advmss", "priority", "table", "scope"}
    if version < "1":
        may_have["ips"] |= {"version"}
    for key in ("interfaces", "ips", "routes"):
        for entry in result.get(key, ()):
            assert set(entry) <= may_have[key], (key, entry)
    assert set(result.get("dns", {})) <= may_have["dns"]
    inside = [entry for entry in result["interfaces"] if entry.get("sandbox")]
    assert [(entry["name"], entry["sandbox"]) for entry in inside] == [("eth0", netns)]
    assert {ipaddress.ip_interface(entry["address"]).version for entry in result["ips"]} == {4, 6}
    for entry in result["ips"]:
        assert result["interfaces"][entry["interface"]]["name"] == "eth0"
        address = ipaddress.ip_interface(entry["address"])
        assert entry.get("version") == (str(address.version) if version < "1" else None)


async def test_the_version_verb_needs_no_agent_and_tells_all(plugin: Plugin) -> None:
    assert (await plugin.call("VERSION", b"")).json["supportedVersions"] == SUPPORTED


@pytest.mark.parametrize(("verb", "conf"), [("GC", {"cni.dev/valid-attachments": []}), ("STATUS", {})])
async def test_verbs_of_the_newest_version_print_nothing(plugin: Plugin, verb: str, conf: dict[str, Any]) -> None:
    stdin = json.dumps({"cniVersion": "1.1.0", "name": "knitter", "type": "knitter-cni", **conf}).encode()
    outcome = await plugin.call(verb, stdin)
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, b"", b"")
