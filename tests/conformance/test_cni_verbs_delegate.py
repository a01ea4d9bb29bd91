"""Delegates and chains: another plugin makes the primary interface, Knitter the further ones. Reference and scripted plugins."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess, SmallManager, agent_in, gone
from harness.netns import ip, network_namespace, ping
from harness.plugin import Plugin

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


async def test_delegates_get_what_they_declare_of_what_the_runtime_asks(
    agent: AgentProcess, scripts: Scripts, sandbox: str
) -> None:
    asked = {"portMappings": [{"hostPort": 1, "containerPort": 2}], "ips": ["10.9.0.7"], "dns": {}, "x": {"y": 1}}
    first = {"type": "first", "capabilities": {"ips": True, "x": True, "bandwidth": True, "portMappings": False}}
    second = {"type": "second", "capabilities": {"portMappings": True}}
    conf = {"delegate": {"plugins": [first, second]}, "runtimeConfig": asked, "capabilities": dict.fromkeys(asked, True)}
    code, result = await agent.call("ADD", "c1", sandbox, "eth0", conf, scripts.path)
    assert code == 0, result
    for verb in ("CHECK", "DEL"):
        assert (await agent.call(verb, "c1", sandbox, "eth0", {**conf, "prevResult": result}, scripts.path))[0] == 0
    for verb in ("ADD", "CHECK", "DEL"):
        told = [scripts.stdin(name, verb) for name in ("first", "second")]
        assert [one["runtimeConfig"] for one in told] == [
            {"ips": asked["ips"], "x": asked["x"]},
            {"portMappings": asked["portMappings"]},
        ]
        assert not any("capabilities" in one for one in told)


async def test_each_delegate_gets_results_in_its_own_version(agent: AgentProcess, scripts: Scripts, sandbox: str) -> None:
    old = {**RESULT, "cniVersion": "0.4.0", "ips": [{"version": "4", **RESULT["ips"][0]}]}  # type: ignore[index]
    (scripts.home / "result").write_text(json.dumps(old))
    conf: dict[str, Any] = {"cniVersion": "1.1.0", **CHAIN, "delegate": {**CHAIN["delegate"], "cniVersion": "0.4.0"}}
    code, result = await agent.call("ADD", "c1", sandbox, "eth0", conf, scripts.path)
    assert (code, result["cniVersion"], "version" in result["ips"][0]) == (0, "1.1.0", False)
    told = {**conf, "prevResult": result}
    assert await agent.call("CHECK", "c1", sandbox, "eth0", told, scripts.path) == (0, None)
    assert await agent.call("DEL", "c1", sandbox, "eth0", told, scripts.path) == (0, None)
    assert await agent.call("DEL", "c1", sandbox, "eth0", told, scripts.path) == (0, None)  # without a record any more
    await gone(agent)
    assert await agent.call("DEL", "c1", sandbox, "eth0", told, scripts.path) == (0, None)
    for verb in ("CHECK", "DEL"):
        assert scripts.stdin("first", verb)["prevResult"] == old


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


async def test_after_a_reboot_delegates_are_told_without_a_namespace(agent: AgentProcess, scripts: Scripts, sandbox: str) -> None:
    await agent.call("ADD", "c1", sandbox, "eth0", CHAIN, scripts.path)
    agent.daemon.kill()
    scripts.log()
    agent.reboot()
    await agent.restart()
    await gone(agent)
    args = "IgnoreUnknown=1;K8S_POD_NAME=a"
    assert scripts.log() == [f"second DEL c1 eth0 netns= {args}", f"first DEL c1 eth0 netns= {args}"]


async def test_delegates_of_an_attachment_that_the_journal_lost_are_those_of_todays_configuration(
    agent: AgentProcess, scripts: Scripts, sandbox: str
) -> None:
    _, result = await agent.call("ADD", "c1", sandbox, "eth0", CHAIN, scripts.path)
    agent.daemon.kill()
    agent.lose_journal()
    await agent.restart()
    async with asyncio.timeout(10):
        while not await agent.attachments():  # noqa: ASYNC110 - another process's journal
            await asyncio.sleep(0.02)
    scripts.log()
    assert await agent.call("DEL", "c1", sandbox, "eth0", {**CHAIN, "prevResult": result}, scripts.path) == (0, None)
    assert [line.split()[:4] for line in scripts.log()] == [["second", "DEL", "c1", "eth0"], ["first", "DEL", "c1", "eth0"]]
    assert scripts.stdin("first", "DEL")["prevResult"] == RESULT
    await gone(agent)
    assert {link["ifname"] for link in ip(sandbox, "link", "show")} == {"lo"}


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
        assert (code, error["code"]) == (1, 50)
        assert "second: STATUS failed: no luck (code 104): today" in error["msg"]


async def test_a_status_that_hangs_is_bounded(agent: AgentProcess, tmp_path: Path) -> None:
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    plugin = Plugin(agent.home)
    stdin = json.dumps({"cniVersion": "1.1.0", "name": "knitter", "type": "knitter-cni", "delegate": {"type": "hanging"}})
    outcome = await plugin.call("STATUS", stdin.encode(), {"CNI_PATH": str(tmp_path)})
    assert outcome.error["code"] == 50
    assert outcome.seconds < 5


async def test_a_delegate_shared_by_networks_keeps_what_is_valid_in_each(
    agent: AgentProcess, scripts: Scripts, sandbox: str
) -> None:
    shared = {"cniVersion": "1.1.0", **CHAIN, "delegate": {**CHAIN["delegate"], "cniVersion": "1.1.0"}}
    own = {**shared, "networks": "t1/control@net2", "delegate": {**shared["delegate"], "name": "own"}}
    confs = {"one": {**shared, "name": "one"}, "two": {**shared, "name": "two"}, "three": {**own, "name": "three"}}
    with contextlib.ExitStack() as stack:
        for name, conf in confs.items():
            pod = stack.enter_context(network_namespace(name))
            assert (await agent.call("ADD", f"c-{name}", pod, "eth0", conf, scripts.path))[0] == 0
        listed = [{"containerID": "c-one", "ifname": "eth0"}, {"containerID": "unrecorded", "ifname": "eth0"}]
        conf = {**confs["one"], "cni.dev/valid-attachments": listed}
        assert await agent.call("GC", "", "", "", conf, scripts.path) == (0, None)
        told = {entry["containerID"] for entry in scripts.stdin("first", "GC")["cni.dev/valid-attachments"]}
        assert told == {"c-one", "c-two", "unrecorded"}  # of its own name; what the journal lost is the runtime's to know
        assert await agent.call("GC", "", "", "", {**conf, "cni.dev/valid-attachments": []}, scripts.path) == (0, None)
        told = {entry["containerID"] for entry in scripts.stdin("first", "GC")["cni.dev/valid-attachments"]}
        assert told == {"c-two"}


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


DELEGATES: dict[str, dict[str, Any]] = {
    "bridge": {"type": "bridge", "bridge": "cni-test0", "isGateway": True},
    "ptp": {"type": "ptp"},
    "macvlan": {"type": "macvlan", "master": "uplink", "mode": "bridge"},
}
RANGES = [[{"subnet": "10.77.0.0/24"}], [{"subnet": "2001:db8:77::/64"}]]


@pytest.mark.skipif(not (REFERENCE / "bridge").exists(), reason="Debian's containernetworking-plugins are not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.parametrize("kind", DELEGATES)
async def test_the_reference_plugins_as_delegates(agent: AgentProcess, sandbox: str, tmp_path: Path, kind: str) -> None:
    ip(agent.netns, "link", "add", "uplink", "up", "type", "veth", "peer", "name", "wire")
    ip(agent.netns, "link", "set", "wire", "up")
    before = {link["ifname"] for link in ip(agent.netns, "link", "show")}
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    ipam = {"type": "host-local", "dataDir": str(tmp_path / "ipam"), "ranges": RANGES, "routes": routes, "resolvConf": ""}
    plugins = [{**DELEGATES[kind], "ipam": ipam}, {"type": "tuning", "mtu": 1300}]
    delegate = {"name": "lan", "cniVersion": "1.0.0", "plugins": plugins}
    conf: dict[str, Any] = {"cniVersion": "1.1.0", "delegate": delegate, **FURTHER}
    path = {"CNI_PATH": str(REFERENCE)}
    code, result = await agent.call("ADD", "c1", sandbox, "eth0", conf, path)
    assert code == 0, result
    assert (result["cniVersion"], [one["address"] for one in result["ips"]]) == ("1.1.0", ["10.77.0.2/24", "2001:db8:77::2/64"])
    links = {link["ifname"]: link["mtu"] for link in ip(sandbox, "link", "show")}
    assert (set(links), links["eth0"]) == ({"lo", "eth0", "net1"}, 1300)
    ping(sandbox, "10.1.0.1")
    with network_namespace("pod2") as other:
        code, second = await agent.call("ADD", "c2", other, "eth0", conf, path)
        assert code == 0, second
        ping(sandbox, "10.77.0.1" if kind == "bridge" else "10.77.0.3")
        told = {**conf, "prevResult": result}
        assert await agent.call("CHECK", "c1", sandbox, "eth0", told, path) == (0, None)
        ip(sandbox, "addr", "del", "2001:db8:77::2/64", "dev", "eth0")
        code, error = await agent.call("CHECK", "c1", sandbox, "eth0", told, path)
        assert (code, error["code"]) == (1, 112)
        assert f"{kind}: CHECK failed: " in error["msg"]
        assert await agent.call("DEL", "c1", sandbox, "eth0", told, path) == (0, None)
        assert {link["ifname"] for link in ip(sandbox, "link", "show")} == {"lo"}
        gc = {**conf, "cni.dev/valid-attachments": []}
        assert await agent.call("GC", "", "", "", gc, path) == (0, None)
        assert {link["ifname"] for link in ip(other, "link", "show")} == {"lo"}
    await gone(agent)
    assert {link["ifname"] for link in ip(agent.netns, "link", "show")} - before <= {"cni-test0"}
    assert not [entry for entry in (tmp_path / "ipam" / "lan").iterdir() if entry.name[0].isdigit()]
