"""The CNI project's own caller: libcni with its cache, its negotiation of versions, its chains, CHECK, GC and STATUS."""

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness.go_tools import go_tool
from harness.netns import entered, ip, network_namespace, ping
from harness.node import Node, node_up

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

REFERENCE = Path("/usr/lib/cni")
NETWORKS = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: front}
spec: {mtu: 1450, subnets: [{cidr: 10.81.0.0/24, gateway: 10.81.0.1}, {cidr: "2001:db8:81::/64", gateway: "2001:db8:81::1"}]}
---
apiVersion: knitter.io/v1
kind: Network
metadata: {name: back}
spec: {subnets: [{cidr: 10.82.0.0/24, gateway: 10.82.0.1}]}
"""
KNITTER: dict[str, Any] = {"type": "knitter-cni", "defaultNetwork": "admin/front", "networks": "back@net1"}


class Cnitool:
    """cnitool in a node's namespace, with one network of a name of its own: libcni's cache is the machine's."""

    def __init__(self, node: Node, sandbox: str) -> None:
        self.node, self.sandbox = node, sandbox
        self.network = f"functions-{secrets.token_hex(4)}"
        self._path = go_tool("github.com/containernetworking/cni/cnitool", "v1.2.3")
        (Path(node.lines["conf_dir"]) / "10-knitter.conflist").unlink()
        self.configure(KNITTER)

    def configure(self, *plugins: Mapping[str, Any], **more: Any) -> None:
        """The network's chain of plugins."""
        conflist = {"cniVersion": "1.0.0", "name": self.network, "plugins": plugins, **more}
        (Path(self.node.lines["conf_dir"]) / "10-functions.conflist").write_text(json.dumps(conflist))

    def run(self, verb: str, capabilities: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """Exit code and what was printed."""
        environment = {**os.environ, "NETCONFPATH": self.node.lines["conf_dir"], "CNI_PATH": self.node.lines["bin_dir"]}
        if capabilities is not None:
            environment["CAP_ARGS"] = json.dumps(capabilities)
        with entered(self.node.netns):
            done = subprocess.run(
                [self._path, verb, self.network, self.sandbox],
                env=environment, capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def __call__(self, verb: str, capabilities: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A call that must succeed; returns the result of an `add`."""
        code, said = self.run(verb, capabilities)
        assert code == 0, f"{verb}: {said}\n{self.node.log('knitter-agent')[-2000:]}"
        return dict(json.loads(said)) if said.strip() else {}

    def links(self) -> dict[str, Any]:
        """The interfaces of the sandbox."""
        return {link["ifname"]: link for link in ip(self.sandbox, "addr", "show")}


@pytest.fixture
def tool() -> Iterator[Cnitool]:
    with network_namespace("cnitool") as sandbox, node_up("cnitool") as node:
        node.ctl("apply", "-f", "-", text=NETWORKS)
        made = Cnitool(node, sandbox)
        yield made
        made.run("del")  # or libcni's cache would keep what a failed test added


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_add_check_and_del_in_each_version(tool: Cnitool, version: str) -> None:
    tool.configure(KNITTER, cniVersion=version)
    result = tool("add")
    assert result["cniVersion"] == version
    assert [address["address"].partition("::")[0] for address in result["ips"]] == ["10.81.0.2/24", "2001:db8:81"]
    assert {route["dst"] for route in result["routes"]} == {"0.0.0.0/0", "::/0"}
    if version == "0.3.1":
        assert "does not support the CHECK command" in tool.run("check")[1]  # libcni's own words: the version does not have it
    else:
        tool("check")
    assert tool.links().keys() == {"lo", "eth0", "net1"}
    for _ in range(2):
        tool("del")
    tool.node.assert_nothing_left()
    assert tool.links().keys() == {"lo"}


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [(["0.4.0", "1.0.0", "1.1.0"], "1.1.0"), (["0.4.0"], "1.0.0"), (["0.4.0", "9.9.9"], "1.0.0")],
    ids=lambda value: "-".join(value),
)
def test_the_newest_of_cni_versions_that_both_speak_is_used(tool: Cnitool, versions: list[str], chosen: str) -> None:
    tool.configure(KNITTER, cniVersions=versions)
    result = tool("add")
    assert result["cniVersion"] == chosen
    inside = next(interface for interface in result["interfaces"] if interface.get("sandbox"))
    assert inside.get("mtu") == (1450 if chosen == "1.1.0" else None)
    tool("check")
    tool("del")
    tool.node.assert_nothing_left()


def test_status_and_a_gc_that_lists_nothing(tool: Cnitool) -> None:
    tool.configure(KNITTER, cniVersion="1.1.0")
    tool("status")
    tool("add")
    code, said = tool.run("gc")  # cnitool sends no list: libcni deletes what it has in its cache, and Knitter guesses nothing
    assert (code, "cni.dev/valid-attachments is missing" in said) == (1, True), said
    tool.node.assert_nothing_left()
    tool.node.kill("knitter-agent")
    tool("status")
    (Path(tool.node.lines["agent"]).parent / "served").unlink()
    code, said = tool.run("status")
    assert (code, "does not serve on this node" in said) == (1, True), said


def test_check_tells_what_was_tampered_with(tool: Cnitool) -> None:
    tool("add")
    tool("check")
    ip(tool.sandbox, "link", "set", "net1", "mtu", "1400")
    code, said = tool.run("check")
    assert (code, "interface net1: expected MTU 1500, found 1400" in said) == (1, True), said


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_del_while_the_agent_is_away(tool: Cnitool, sign: signal.Signals) -> None:
    tool("add")
    if sign == signal.SIGKILL:
        tool.node.kill("knitter-agent")
    else:
        tool.node.down()
    tool("del")
    tool.node.up()
    tool.node.assert_nothing_left()
    assert tool.links().keys() == {"lo"}


def test_what_the_runtime_asks_for_the_primary_interface(tool: Cnitool) -> None:
    tool.configure({**KNITTER, "capabilities": {"ips": True, "mac": True}})
    asked = {"ips": ["10.81.0.77/24", "2001:db8:81::77"], "mac": "02:00:00:00:81:77"}
    result = tool("add", asked)
    assert [address["address"] for address in result["ips"]] == ["10.81.0.77/24", "2001:db8:81::77/64"]
    links = tool.links()
    assert links["eth0"]["address"] == "02:00:00:00:81:77"
    assert {one["local"] for one in links["eth0"]["addr_info"]} >= {"10.81.0.77", "2001:db8:81::77"}
    assert links["net1"]["address"] != "02:00:00:00:81:77"
    tool("check", asked)
    tool("del", asked)
    tool.node.assert_nothing_left()


needs_reference = pytest.mark.skipif(
    not all((REFERENCE / name).exists() for name in ("bridge", "host-local", "bandwidth", "tuning")),
    reason="Debian's containernetworking-plugins are not installed",
)


@needs_reference
def test_knitter_after_another_plugin(tool: Cnitool, tmp_path: Path) -> None:
    ranges = [[{"subnet": "10.89.0.0/24"}], [{"subnet": "2001:db8:89::/64"}]]
    ipam = {"type": "host-local", "dataDir": str(tmp_path), "ranges": ranges}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam}
    tool.configure(bridge, {"type": "knitter-cni", "networks": "back@net1"})
    result = tool("add")
    assert [address["address"] for address in result["ips"]] == ["10.89.0.2/24", "2001:db8:89::2/64"]
    assert tool.links().keys() == {"lo", "eth0", "net1"}
    ping(tool.sandbox, "10.89.0.1")
    ping(tool.sandbox, "10.82.0.1")
    tool("check")
    ip(tool.sandbox, "link", "set", "net1", "down")
    assert "interface net1: expected up, found down" in tool.run("check")[1]
    tool("del")
    ip(tool.node.netns, "link", "del", "cni0")  # which its plugin leaves behind
    tool.node.assert_nothing_left()


RATES = {f"{way}{what}": 8_000_000 for way in ("ingress", "egress") for what in ("Rate", "Burst")}
CHAINS: dict[str, list[dict[str, Any]]] = {
    "tuning's MAC": [{"type": "tuning", "mac": "02:00:00:00:77:02"}],
    "tuning's sysctl": [{"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_notify": "1"}, "promisc": True, "allmulti": True}],
    "bandwidth": [{"type": "bandwidth", **RATES}],
}  # fmt: skip


@needs_reference
@pytest.mark.parametrize("chain", CHAINS)
def test_check_allows_for_what_a_later_plugin_of_the_chain_changed(tool: Cnitool, chain: str) -> None:
    tool.configure(KNITTER, *CHAINS[chain])
    tool("add")
    ping(tool.sandbox, "10.81.0.1")
    tool("check")
    ip(tool.sandbox, "link", "set", "eth0", "address", "02:00:00:00:77:99")
    assert "02:00:00:00:77:99" in tool.run("check")[1]
    tool("del")
    tool.node.assert_nothing_left()
