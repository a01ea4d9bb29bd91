"""What the plugin says itself, without an agent: the environment's errors, VERSION, and STATUS."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.plugin import CONFIGURATION, Agent, Connection, Peer, Plugin, frame, reply, short_directory

from knitter.v1 import agent_pb2

BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
SUPPORTED = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    with short_directory() as directory:
        yield Plugin(directory)


MISSING = [
    (verb, name)
    for verb, names in {
        "ADD": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        "CHECK": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        "DEL": ["CNI_CONTAINERID", "CNI_IFNAME"],
        "GC": ["CNI_PATH"],
    }.items()
    for name in names
]


@pytest.mark.parametrize("value", [None, ""], ids=["missing", "empty"])
@pytest.mark.parametrize(("verb", "name"), MISSING)
async def test_a_required_variable_that_is_not_set_is_named(plugin: Plugin, verb: str, name: str, value: str | None) -> None:
    async with Agent(plugin.socket) as agent:
        error = (await plugin.call(verb, env={name: value})).error
    assert error["code"] == 4
    assert name in error["msg"]
    assert verb in error["msg"]
    assert agent.calls == []


def test_all_that_is_missing_is_named_at_once(plugin: Plugin) -> None:
    error = plugin.run("ADD", env={"CNI_CONTAINERID": None, "CNI_NETNS": None, "CNI_IFNAME": ""}).error
    assert error["code"] == 4
    assert all(name in error["msg"] for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"))


OPTIONAL = {
    "ADD": ["CNI_ARGS", "CNI_PATH"],
    "CHECK": ["CNI_ARGS", "CNI_PATH"],
    "DEL": ["CNI_ARGS", "CNI_PATH", "CNI_NETNS"],
    "GC": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"],
    "STATUS": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"],
}


@pytest.mark.parametrize("verb", OPTIONAL)
async def test_a_verb_does_without_what_it_does_not_need(plugin: Plugin, verb: str) -> None:
    async with Agent(plugin.socket) as agent:
        outcome = await plugin.call(verb, env=dict.fromkeys(OPTIONAL[verb]))
    assert outcome.code == 0
    assert agent.calls[0][0] == verb


@pytest.mark.parametrize("command", [None, "", "add", "UPDATE", "ADD ", "ADD\n", b"\xff", "x" * 5000, "VERSION2"])
async def test_a_command_that_is_none_is_refused(plugin: Plugin, command: str | bytes | None) -> None:
    async with Agent(plugin.socket) as agent:
        error = (await plugin.call("ADD", env={"CNI_COMMAND": command})).error
    assert error["code"] == 4
    assert "CNI_COMMAND" in error["msg"]
    assert len(error["msg"]) < 300
    assert agent.calls == []


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e9", "soon", b"\xff"])
def test_a_bad_timeout_is_named(plugin: Plugin, value: str | bytes) -> None:
    error = plugin.run("ADD", env={"KNITTER_TIMEOUT": value}).error
    assert error["code"] == 4
    assert "KNITTER_TIMEOUT" in error["msg"]


@pytest.mark.parametrize(
    ("stdin", "told"),
    [
        (b'{"cniVersion":"0.3.1","name":"x"}', "0.3.1"),
        (b'{"prevResult":{"cniVersion":"0.3.1"},"cniVersion":"1.0.0"}', "1.0.0"),
        (b'{"cniVersion": "9.9.9"}', None),
        (b'{"cniVersion": 1}', ""),
        (b'{"cniVersion": ""}', ""),
        (b'["cniVersion"]', ""),
        (b"", ""),
        (b"{", ""),
        (b"\xff\xfe\x00", ""),
        (b"[" * 200_000, ""),
    ],
)
def test_the_cni_version_told_is_the_configurations_if_it_is_usable(plugin: Plugin, stdin: bytes, told: str | None) -> None:
    assert plugin.run("ADD", stdin).json["cniVersion"] == (told or "1.0.0")
    assert plugin.run("VERSION", stdin).json["cniVersion"] == ("9.9.9" if told is None else told or "1.1.0")


@pytest.mark.parametrize("stdin", [b"", b'{"cniVersion":"0.4.0"}', b"not json"])
def test_version_is_answered_without_an_agent(plugin: Plugin, stdin: bytes) -> None:
    nothing = dict.fromkeys(["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"])
    outcome = plugin.run("VERSION", stdin, nothing)
    assert (outcome.code, outcome.stderr) == (0, b"")
    assert outcome.json["supportedVersions"] == SUPPORTED
    assert set(outcome.json) == {"cniVersion", "supportedVersions"}


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "GC"])
@pytest.mark.parametrize("away", ["missing", "refused", "no-directory", "a-file", "too-long"])
def test_without_an_agent_a_verb_says_try_again(plugin: Plugin, verb: str, away: str) -> None:
    socket: str | Path = plugin.socket
    if away == "refused":
        with Peer(plugin.socket, lambda peer: None):
            pass
    elif away == "no-directory":
        socket = plugin.directory / "no" / "agent.sock"
    elif away == "a-file":
        plugin.socket.write_bytes(b"")
    elif away == "too-long":
        socket = "/" + "x" * 200
    error = plugin.run(verb, env={"KNITTER_SOCKET": str(socket)}).error
    assert error["code"] == 11
    assert str(socket) in error["details"]
    assert "knitter-agent" in error["details"]
    assert error["cniVersion"] == "1.0.0"


def test_add_without_an_agent_does_not_mind_bad_standard_input(plugin: Plugin) -> None:
    assert plugin.run("ADD", b"{{{").error["code"] == 11


async def test_what_stdin_holds_is_the_agents_to_judge(plugin: Plugin) -> None:
    async with Agent(plugin.socket) as agent:
        assert (await plugin.call("ADD", b"\xff{{{")).code == 0
    assert agent.calls[0][1].stdin == b"\xff{{{"


def served(plugin: Plugin, marker: str | None) -> None:
    if marker is not None:
        (plugin.directory / "served").write_text(marker, encoding="ascii")


@pytest.mark.parametrize(
    ("marker", "code"),
    [
        (None, 50),
        (BOOT_ID, 0),
        (BOOT_ID.strip(), 0),
        (BOOT_ID + "lenient\n", 0),
        (BOOT_ID + "strict\n", 50),
        (BOOT_ID + "strict", 50),
        ("", 50),
        ("\n", 50),
        ("00000000-0000-0000-0000-000000000000\n", 50),
    ],
)
@pytest.mark.parametrize("agent", ["away", "mute"])
def test_status_without_an_answer_goes_by_whether_the_agent_served_in_this_boot(
    plugin: Plugin, marker: str | None, code: int, agent: str
) -> None:
    served(plugin, marker)
    if agent == "away":
        outcome = plugin.run("STATUS")
    else:
        with Peer(plugin.socket, Connection.drain):
            outcome = plugin.run("STATUS", env={"KNITTER_TIMEOUT": "0.2"})
    if code == 0:
        assert (outcome.code, outcome.stdout, outcome.stderr) == (0, b"", b"")
    else:
        assert outcome.error["code"] == code


def test_status_is_bounded_to_a_second(plugin: Plugin) -> None:
    served(plugin, BOOT_ID)
    with Peer(plugin.socket, Connection.drain):
        outcome = plugin.run("STATUS")
    assert outcome.code == 0
    assert 0.9 < outcome.seconds < 3


async def test_status_of_an_agent_that_answers_is_its_own(plugin: Plugin) -> None:
    served(plugin, BOOT_ID)
    error = json.dumps({"cniVersion": "1.1.0", "code": 51, "msg": "limited"}).encode()

    async def answer(_verb: str, _invocation: object, _context: object) -> agent_pb2.Answer:
        return agent_pb2.Answer(stdout=error, exit_code=1)

    async with Agent(plugin.socket, answer):
        outcome = await plugin.call("STATUS")
    assert outcome.error["code"] == 51


def test_a_relative_socket_and_the_scheme_of_the_agents_own_setting_are_understood(plugin: Plugin) -> None:
    def script(peer: Connection) -> None:
        peer.request()
        peer.send(frame(4, 0, 0), reply(b"fine"))
        peer.drain()

    with Peer(plugin.socket, script):
        outcome = plugin.run("ADD", CONFIGURATION, {"KNITTER_SOCKET": f"unix:{plugin.socket}"})
    assert outcome.stdout == b"fine"
