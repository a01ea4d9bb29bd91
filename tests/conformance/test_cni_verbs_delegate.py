"""Delegates and chains: another plugin makes the primary interface, Knitter the further ones. Reference and scripted plugins."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess, SmallManager, agent_in, gone
from harness.netns import ip, network_namespace, ping

from knitter.v1.agent_pb2 import ATTACHMENT_STATE_ATTACHED

REFERENCE = Path("/usr/lib/cni")
FURTHER = {"networks": "t1/control@net1"}
RESULT = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "eth0", "sandbox": "/x"}],
    "ips": [{"address": "10.9.0.2/24", "interface": 0}],
    "mine": 7,
}
SCRIPT = """#!/bin/sh
# Logs each call; answers RESULT to ADD; fails a verb while the file fail-<name>-<verb> exists.
home=${0%/*}
name=${0##*/}
cat > "$home/stdin-$name-$CNI_COMMAND"
echo "$name $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME netns=${CNI_NETNS:+set} $CNI_ARGS" >> "$home/log"
if [ -e "$home/fail-$name-$CNI_COMMAND" ]; then
    echo '{"cniVersion":"1.0.0","code":104,"msg":"no luck","details":"today"}'
    exit 1
fi
[ "$CNI_COMMAND" != ADD ] || cat "$home/result"
"""


class Scripts:
    """A directory of plugins that log what they are asked."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "result").write_text(json.dumps(RESULT))
        for name in ("first", "second"):
            (home / name).write_text(SCRIPT)
            (home / name).chmod(0o755)

    def log(self) -> list[str]:
        """The calls since the last look."""
        path = self.home / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return lines

    def stdin(self, name: str, verb: str) -> Any:
        """What the plugin was given last."""
        return json.loads((self.home / f"stdin-{name}-{verb}").read_text())

    def failing(self, name: str, verb: str, fails: bool = True) -> None:
        """Has a verb fail, or not any more."""
        path = self.home / f"fail-{name}-{verb}"
        path.touch() if fails else path.unlink()

    @property
    def path(self) -> dict[str, str]:
        """CNI_PATH."""
        return {"CNI_PATH": f"/nonexistent:{self.home}", "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=a"}


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path)


@pytest.fixture
def sandbox() -> Iterator[str]:
    with network_namespace("pod") as path:
        yield path


@pytest.fixture
async def manager() -> AsyncIterator[SmallManager]:
    async with SmallManager() as made:
        yield made


@pytest.fixture
def agent(manager: SmallManager) -> Iterator[AgentProcess]:
    with network_namespace("node") as node, agent_in(node, manager.address) as started:
        yield started


CHAIN = {
    "delegate": {"name": "lan", "cniVersion": "1.0.0", "plugins": [{"type": "first", "key": 1}, {"type": "second"}]},
    **FURTHER,
}


async def test_a_delegate_makes_the_primary_and_knitter_the_others(
    agent: AgentProcess, manager: SmallManager, scripts: Scripts, sandbox: str
) -> None:
    code, result = await agent.call("ADD", "c1", sandbox, "eth0", CHAIN, scripts.path)
    assert (code, result) == (0, RESULT), agent.daemon.log()
    args = "IgnoreUnknown=1;K8S_POD_NAME=a"
    assert scripts.log() == [f"first ADD c1 eth0 netns=set {args}", f"second ADD c1 eth0 netns=set {args}"]
    assert scripts.stdin("first", "ADD") == {"type": "first", "key": 1, "name": "lan", "cniVersion": "1.0.0"}
    assert scripts.stdin("second", "ADD")["prevResult"] == RESULT
    assert {link["ifname"] for link in ip(sandbox, "link", "show")} == {"lo", "net1"}
    assert [wish.interface for wish in manager.sets.allocated[0].wishes] == ["net1"]

    assert await agent.call("CHECK", "c1", sandbox, "eth0", {**CHAIN, "prevResult": result}, scripts.path) == (0, None)
    assert [line.split()[:2] for line in scripts.log()] == [["first", "CHECK"], ["second", "CHECK"]]

    assert await agent.call("DEL", "c1", sandbox, "eth0", CHAIN, scripts.path) == (0, None)
    assert scripts.log() == [f"second DEL c1 eth0 netns=set {args}", f"first DEL c1 eth0 netns=set {args}"]
    assert scripts.stdin("first", "DEL")["prevResult"] == RESULT


async def test_delegates_are_deleted_by_the_record_of_add(agent: AgentProcess, scripts: Scripts, sandbox: str) -> None:
    await agent.call("ADD", "c1", sandbox, "eth0", CHAIN, scripts.path)
    scripts.log()
    assert await agent.call("DEL", "c1", "", "eth0", {}, {"CNI_PATH": "/elsewhere"}) == (
        0,
        None,
    )  # the configuration was replaced meanwhile
    assert [line.split()[:2] for line in scripts.log()] == [["second", "DEL"], ["first", "DEL"]]


async def test_without_a_record_todays_configuration_is_used(agent: AgentProcess, scripts: Scripts) -> None:
    assert await agent.call("DEL", "never", "", "eth0", CHAIN, scripts.path) == (0, None)
    assert [line.split()[:2] for line in scripts.log()] == [["second", "DEL"], ["first", "DEL"]]


async def test_a_delegate_that_fails_to_add_fails_all_and_is_deleted(
    agent: AgentProcess, manager: SmallManager, scripts: Scripts, sandbox: str
) -> None:
    scripts.failing("second", "ADD")
    code, error = await agent.call("ADD", "c1", sandbox, "eth0", CHAIN, scripts.path)
    assert (code, error["code"]) == (1, 112)
    assert "second: ADD failed: no luck (code 104): today" in error["msg"]
    assert [line.split()[:2] for line in scripts.log()] == [
        ["first", "ADD"],
        ["second", "ADD"],
        ["second", "DEL"],
        ["first", "DEL"],
    ]
    assert {link["ifname"] for link in ip(sandbox, "link", "show")} == {"lo"}
    await gone(agent)
    assert not manager.sets.held


async def test_what_a_delegate_made_goes_when_a_later_step_fails(manager: SmallManager, scripts: Scripts, sandbox: str) -> None:
    with network_namespace("node") as node:
        for kind in ("error", "panic"):
            with agent_in(node, manager.address, env={"KNITTER_FAILPOINTS": "add.after-delegates=" + kind}) as agent:
                assert (await agent.call("ADD", "c1", sandbox, "eth0", CHAIN, scripts.path))[0] == 1
                assert [line.split()[:2] for line in scripts.log()][2:] == [["second", "DEL"], ["first", "DEL"]]
                assert scripts.stdin("second", "DEL")["prevResult"] == RESULT
                await gone(agent)
    assert not manager.sets.held


async def test_a_delegates_del_error_is_told_and_the_del_repeated(
    agent: AgentProcess, manager: SmallManager, scripts: Scripts, sandbox: str
) -> None:
    await agent.call("ADD", "c1", sandbox, "eth0", CHAIN, scripts.path)
    scripts.failing("second", "DEL")
    scripts.log()
    code, error = await agent.call("DEL", "c1", sandbox, "eth0", CHAIN, scripts.path)
    assert (code, error["code"]) == (1, 112)
    assert [line.split()[:2] for line in scripts.log()][:2] == [["second", "DEL"], ["first", "DEL"]]
    assert not manager.sets.held  # ours is free already
    scripts.failing("second", "DEL", False)
    assert await agent.call("DEL", "c1", "", "eth0", CHAIN, scripts.path) == (0, None)
    await gone(agent)


async def test_a_plugin_that_is_not_there(agent: AgentProcess, sandbox: str) -> None:
    code, error = await agent.call("ADD", "c1", sandbox, "eth0", {"delegate": {"type": "nowhere"}}, {"CNI_PATH": "/a:/b"})
    assert (code, error["code"]) == (1, 112)
    for word in ("nowhere", "/a:/b"):
        assert word in error["msg"]


async def test_output_that_is_no_result(agent: AgentProcess, scripts: Scripts, sandbox: str) -> None:
    for output in ("", "{", "[]", '{"cniVersion":"0.2.0"}', '{"cniVersion":"1.0.0","ips":7}'):
        (scripts.home / "result").write_text(output)
        code, error = await agent.call("ADD", "c1", sandbox, "eth0", CHAIN, scripts.path)
        assert (code, error["code"]) == (1, 112)
        assert "first: its result" in error["msg"]
    await gone(agent)


async def test_gc_and_status_reach_delegates_that_have_them(agent: AgentProcess, scripts: Scripts, sandbox: str) -> None:
    conf: dict[str, Any] = {"cniVersion": "1.1.0", **CHAIN, "delegate": {**CHAIN["delegate"], "cniVersion": "1.1.0"}}
    await agent.call("ADD", "c1", sandbox, "eth0", conf, scripts.path)
    with network_namespace("pod2") as other:
        await agent.call("ADD", "c2", other, "eth0", conf, scripts.path)
        scripts.log()
        assert await agent.call("STATUS", "", "", "", conf, scripts.path) == (0, None)
        valid = [{"containerID": "c2", "ifname": "eth0"}]
        assert await agent.call("GC", "", "", "", {**conf, "cni.dev/valid-attachments": valid}, scripts.path) == (0, None)
        assert [line.split()[:2] for line in scripts.log()] == [
            ["first", "STATUS"], ["second", "STATUS"], ["second", "DEL"], ["first", "DEL"], ["first", "GC"], ["second", "GC"],
        ]  # fmt: skip
        assert scripts.stdin("first", "GC")["cni.dev/valid-attachments"] == valid
        attached = [one.container_id for one in await agent.attachments() if one.state == ATTACHMENT_STATE_ATTACHED]
        assert attached == ["c2"]
        scripts.failing("second", "STATUS")
        code, error = await agent.call("STATUS", "", "", "", conf, scripts.path)
        assert (code, error["code"]) == (1, 112)


async def test_a_previous_result_is_passed_through_and_its_maker_left_alone(
    agent: AgentProcess, scripts: Scripts, sandbox: str
) -> None:
    code, result = await agent.call("ADD", "c1", sandbox, "eth0", {**FURTHER, "prevResult": RESULT}, scripts.path)
    assert (code, result) == (0, RESULT)
    code, result = await agent.call(
        "ADD", "c2", sandbox, "eth1", {"networks": "t1/b@net2", "cniVersion": "0.4.0", "prevResult": RESULT}, scripts.path
    )
    assert result["ips"] == [{"version": "4", **RESULT["ips"][0]}]  # type: ignore[index]
    assert await agent.call("CHECK", "c1", sandbox, "eth0", {**FURTHER, "prevResult": RESULT}) == (0, None)
    assert await agent.call("DEL", "c1", sandbox, "eth0", {**FURTHER, "prevResult": RESULT}) == (0, None)
    assert scripts.log() == []


@pytest.mark.skipif(not (REFERENCE / "bridge").exists(), reason="Debian's containernetworking-plugins are not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
async def test_the_reference_plugins_as_delegates(agent: AgentProcess, sandbox: str, tmp_path: Path) -> None:
    ranges = [[{"subnet": "10.77.0.0/24"}]]
    ipam = {"type": "host-local", "dataDir": str(tmp_path / "ipam"), "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni-test0", "isGateway": True, "ipam": ipam}
    conf = {"delegate": {"name": "lan", "plugins": [bridge, {"type": "tuning", "mtu": 1300}]}, **FURTHER}
    path = {"CNI_PATH": str(REFERENCE)}
    code, result = await agent.call("ADD", "c1", sandbox, "eth0", conf, path)
    assert code == 0, result
    assert result["ips"][0]["address"] == "10.77.0.2/24"
    links = {link["ifname"]: link["mtu"] for link in ip(sandbox, "link", "show")}
    assert (set(links), links["eth0"]) == ({"lo", "eth0", "net1"}, 1300)
    ping(sandbox, "10.77.0.1")
    ping(sandbox, "10.1.0.1")
    assert await agent.call("CHECK", "c1", sandbox, "eth0", {**conf, "prevResult": result}, path) == (0, None)
    assert await agent.call("DEL", "c1", sandbox, "eth0", conf, path) == (0, None)
    assert {link["ifname"] for link in ip(sandbox, "link", "show")} == {"lo"}
    assert not [entry for entry in (tmp_path / "ipam" / "lan").iterdir() if entry.name.startswith("10.")]
