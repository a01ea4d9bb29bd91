"""The plugin as a process: what it imports, and what it does when its descriptors are not as they should be."""

import asyncio
import os
import pty
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from harness.plugin import Agent, Connection, Peer, Plugin, frame, reply, short_directory

from knitter.v1 import agent_pb2


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    with short_directory() as directory:
        yield Plugin(directory)


def fine(peer: Connection) -> None:
    peer.request()
    peer.send(frame(4, 0, 0), reply(b"fine"))
    peer.drain()


def interpreter(plugin: Plugin) -> tuple[str, str]:
    """What the plugin's first line says: the interpreter and its one argument."""
    python, argument = plugin.path.read_bytes().split(b"\n", 1)[0].removeprefix(b"#!").decode().split(" ", 1)
    return python, argument


def telling_imports(plugin: Plugin) -> tuple[str, ...]:
    """The arguments of a call that tells on standard error what it imports."""
    python, argument = interpreter(plugin)
    return python, "-X", "importtime", argument, str(plugin.path)


def imported(stderr: bytes) -> set[str]:
    """The modules that `-X importtime` tells."""
    return {line.rpartition("|")[2].strip() for line in stderr.decode().splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_a_call_that_is_answered_imports_nothing_but_the_socket(plugin: Plugin, verb: str) -> None:
    python, _ = interpreter(plugin)
    empty = subprocess.run([python, "-X", "importtime", "-IS", "-c", "pass"], capture_output=True, check=True)
    with Peer(plugin.socket, fine):
        outcome = plugin.run(verb, arguments=telling_imports(plugin))
    assert outcome.stdout == b"fine"
    assert imported(outcome.stderr) - imported(empty.stderr) <= {"_socket"}


def test_a_del_that_is_kept_imports_no_library(plugin: Plugin) -> None:
    outcome = plugin.run("DEL", arguments=telling_imports(plugin))
    assert outcome.code == 0
    assert not imported(outcome.stderr) & {"json", "socket", "re", "enum", "os", "grpc", "struct", "signal"}


def test_the_file_is_all_that_it_needs(plugin: Plugin) -> None:
    moved = plugin.directory / "renamed"
    shutil.copy(plugin.path, moved)
    with Peer(plugin.socket, fine):
        outcome = plugin.run("ADD", arguments=(str(moved),))
    assert outcome.stdout == b"fine"


def test_another_interpreter_version_runs_the_source(plugin: Plugin) -> None:
    content = plugin.path.read_bytes()
    before, found, after = content.partition(b"MAGIC_NUMBER == b'")
    assert found
    other = plugin.directory / "knitter-cni"
    other.write_bytes(before + found + b"x" + after[1:].replace(b"marshal.loads", b"must_not_call", 1))
    other.chmod(0o755)
    with Peer(plugin.socket, fine):
        outcome = plugin.run("ADD", arguments=(str(other),))
    assert (outcome.stdout, outcome.stderr) == (b"fine", b"")


def test_nothing_in_environment_or_directory_reaches_the_interpreter(plugin: Plugin) -> None:
    (plugin.directory / "_socket.py").write_text("raise SystemExit(9)")
    (plugin.directory / "sitecustomize.py").write_text("raise SystemExit(9)")
    env = {"PYTHONPATH": str(plugin.directory), "PYTHONSTARTUP": str(plugin.directory / "_socket.py"), "PYTHONHOME": "/nonexistent"}
    with Peer(plugin.socket, fine):
        outcome = plugin.run("ADD", env=env)
    assert (outcome.stdout, outcome.stderr) == (b"fine", b"")


def shell(plugin: Plugin, redirections: str, verb: str = "ADD") -> "subprocess.CompletedProcess[bytes]":
    command = ["/bin/sh", "-c", f'exec "$0" {redirections}', str(plugin.path)]
    return subprocess.run(command, env=plugin.environment(verb), input=b"{}", capture_output=True, check=False, timeout=20)


@pytest.mark.parametrize("redirections", [">&-", ">/dev/full", "2>&- >&-", "<&- >&- 2>&-"])
def test_an_answer_that_cannot_be_written_ends_with_an_error_and_no_traceback(plugin: Plugin, redirections: str) -> None:
    with Peer(plugin.socket, fine):
        done = shell(plugin, redirections)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_a_reader_that_is_gone_ends_with_an_error_and_no_traceback(plugin: Plugin) -> None:
    def wait_then_answer(peer: Connection) -> None:
        peer.request()
        assert process.stdout is not None
        process.stdout.close()
        peer.send(frame(4, 0, 0), reply(b"fine"))
        peer.drain()

    with Peer(plugin.socket, wait_then_answer), plugin.start("ADD") as process:
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait(10) == 1
    assert b"Broken pipe" in told
    assert b"Traceback" not in told


@pytest.mark.parametrize("redirections", [">&-", ">/dev/full", "2>&- >&-"])
async def test_an_add_that_nobody_can_be_told_of_is_undone(plugin: Plugin, redirections: str) -> None:
    async with Agent(plugin.socket) as agent:
        done = await asyncio.to_thread(shell, plugin, redirections)
    assert done.returncode == 1
    (add, added), (delete, deleted) = agent.calls
    assert (add, delete) == ("ADD", "DEL")
    assert dict(deleted.environment) == {**added.environment, "CNI_COMMAND": b"DEL"}
    assert deleted.stdin == added.stdin == b"{}"


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS"])
async def test_of_any_other_verb_nothing_is_undone(plugin: Plugin, verb: str) -> None:
    async with Agent(plugin.socket) as agent:  # it answers with what it was sent
        assert (await asyncio.to_thread(shell, plugin, ">/dev/full", verb)).returncode == 1
    assert [called for called, _ in agent.calls] == [verb]


async def test_an_add_that_failed_needs_no_undoing(plugin: Plugin) -> None:
    async def refuse(_verb: str, _invocation: object, _context: object) -> agent_pb2.Answer:
        return agent_pb2.Answer(stdout=b'{"cniVersion":"1.0.0","code":110,"msg":"exists"}', exit_code=1)

    async with Agent(plugin.socket, refuse) as agent:
        assert (await asyncio.to_thread(shell, plugin, ">/dev/full")).returncode == 1
    assert [called for called, _ in agent.calls] == ["ADD"]


def test_the_undoing_of_an_add_is_kept_where_the_agent_went_away(plugin: Plugin) -> None:
    def once(peer: Connection) -> None:
        if len(server.connections) == 1:
            fine(peer)

    with Peer(plugin.socket, once) as server:
        assert shell(plugin, ">&-").returncode == 1
    (entry,) = plugin.queue
    queued = agent_pb2.QueuedDetach.FromString(entry.read_bytes()[8:])
    assert queued.invocation.environment["CNI_COMMAND"] == b"DEL"


@pytest.mark.parametrize("redirections", ["<&-", "</dev/null", "2>&-", "<&- 2>&-"])
def test_standard_input_that_cannot_be_read_is_taken_as_empty(plugin: Plugin, redirections: str) -> None:
    seen = []

    def script(peer: Connection) -> None:
        seen.append(peer.request().stdin)
        peer.send(frame(4, 0, 0), reply(b"fine"))
        peer.drain()

    with Peer(plugin.socket, script):
        done = shell(plugin, redirections)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"fine", b"")
    if redirections != "2>&-":
        assert seen == [b""]


def test_a_person_who_starts_it_in_a_terminal_is_told_what_it_is(plugin: Plugin) -> None:
    master, slave = pty.openpty()
    try:
        done = subprocess.run([str(plugin.path)], stdin=slave, env={}, capture_output=True, check=False, timeout=20)
    finally:
        os.close(master)
        os.close(slave)
    assert done.returncode == 1
    assert b"CNI plugin" in done.stdout


def test_a_large_answer_goes_through_a_slow_pipe(plugin: Plugin) -> None:
    def script(peer: Connection) -> None:
        peer.request()
        body = os.urandom(500_000)
        seen.append(body)
        from harness.plugin import DATA, HEADERS, OK_HEADERS, message

        answer = message(body)
        data = b"".join(frame(DATA, 0, 1, answer[place : place + 16384]) for place in range(0, len(answer), 16384))
        peer.send(frame(4, 0, 0), frame(HEADERS, 4, 1, OK_HEADERS), data, frame(HEADERS, 5, 1, b""))
        peer.drain()

    seen: list[bytes] = []
    with Peer(plugin.socket, script):
        assert plugin.run("ADD").stdout == seen[0]
