"""DEL without an agent: kept on disk, whole or not at all, found by the agent later; told as "try again" if it cannot be kept."""

import asyncio
import binascii
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.plugin import Agent, Connection, Peer, Plugin, frame, reply, short_directory

from knitter.v1 import agent_pb2

BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    with short_directory() as directory:
        yield Plugin(directory)


def entry(path: Path) -> agent_pb2.QueuedDetach:
    """Reads an entry as the agent does."""
    data = path.read_bytes()
    assert data[:4] == b"KDQ1"
    assert int.from_bytes(data[4:8], "big") == binascii.crc32(data[8:])
    return agent_pb2.QueuedDetach.FromString(data[8:])


def test_a_del_without_an_agent_succeeds_and_is_kept_whole(plugin: Plugin) -> None:
    before = time.time_ns()
    outcome = plugin.run("DEL", b'{"\xff', {"CNI_NETNS": "", "CNI_ARGS": b"A=\xff"})
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, b"", b"")
    (path,) = plugin.queue
    queued = entry(path)
    assert before <= queued.time_ns <= time.time_ns()
    assert queued.boot_id == BOOT_ID
    assert queued.invocation.stdin == b'{"\xff'
    assert dict(queued.invocation.environment) == {
        "CNI_COMMAND": b"DEL",
        "CNI_CONTAINERID": b"sandbox1",
        "CNI_NETNS": b"",
        "CNI_IFNAME": b"eth0",
        "CNI_PATH": b"/opt/cni/bin",
        "CNI_ARGS": b"A=\xff",
    }
    assert path.name == f"{queued.time_ns}-{queued.invocation.request_id}.del"


def test_the_queue_is_the_owners_alone(plugin: Plugin) -> None:
    plugin.run("DEL")
    assert stat.S_IMODE(plugin.queue[0].parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(plugin.queue[0].stat().st_mode) == 0o600
    assert {path.name for path in plugin.queue[0].parent.iterdir()} == {".lock", plugin.queue[0].name}


def test_entries_sort_in_the_order_in_which_they_came(plugin: Plugin) -> None:
    for number in range(3):
        plugin.run("DEL", env={"CNI_CONTAINERID": f"c{number}"})
    assert [entry(path).invocation.environment["CNI_CONTAINERID"] for path in plugin.queue] == [b"c0", b"c1", b"c2"]


def test_a_large_configuration_is_kept_too(plugin: Plugin) -> None:
    stdin = os.urandom(1_048_576)
    assert plugin.run("DEL", stdin).code == 0
    assert entry(plugin.queue[0]).invocation.stdin == stdin


@pytest.mark.parametrize("how", ["mute", "cut", "garbage", "aborted"])
def test_a_del_that_got_no_answer_is_kept_too(plugin: Plugin, how: str) -> None:
    def script(peer: Connection) -> None:
        if how == "mute":
            peer.drain()
        elif how == "garbage":
            peer.send(b"garbage garbage garbage")
        elif how == "aborted":
            peer.request()
            peer.send(frame(4, 0, 0), frame(1, 5, 1, b"\x88\0\x0bgrpc-status\x0213"))
            peer.drain()

    with Peer(plugin.socket, script):
        outcome = plugin.run("DEL", env={"KNITTER_TIMEOUT": "0.5"})
    assert outcome.code == 0
    assert len(plugin.queue) == 1


async def test_an_error_that_the_agent_answers_is_not_kept_but_told(plugin: Plugin) -> None:
    async def answer(_verb: str, _invocation: object, _context: object) -> agent_pb2.Answer:
        return agent_pb2.Answer(stdout=b'{"cniVersion":"1.0.0","code":112,"msg":"delegate"}', exit_code=1)

    async with Agent(plugin.socket, answer):
        outcome = await plugin.call("DEL")
    assert outcome.error["code"] == 112
    assert not plugin.state.exists()


def hold_lock(plugin: Plugin) -> int:
    directory = plugin.state / "delq"
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def wait_until_blocked_on_lock(process: "subprocess.Popen[bytes]") -> None:
    """Until the kernel shows the process waiting for a file lock."""
    end = time.monotonic() + 10
    while f"-> FLOCK  ADVISORY  WRITE {process.pid} " not in Path("/proc/locks").read_text(encoding="ascii"):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_agent_that_came_back_while_the_plugin_waited_for_the_lock_answers_itself(plugin: Plugin) -> None:
    def script(peer: Connection) -> None:
        peer.request()
        peer.send(frame(4, 0, 0), reply(b""))
        peer.drain()

    lock = hold_lock(plugin)
    with plugin.start("DEL") as process:
        wait_until_blocked_on_lock(process)
        with Peer(plugin.socket, script) as peer:
            os.close(lock)
            assert process.wait(10) == 0
        assert len(peer.connections) == 1
    assert plugin.queue == []


def test_a_lock_held_for_too_long_is_told(plugin: Plugin) -> None:
    lock = hold_lock(plugin)
    try:
        outcome = plugin.run("DEL", env={"KNITTER_TIMEOUT": "0.2"})
    finally:
        os.close(lock)
    assert outcome.error["code"] == 11
    assert "another process holds" in outcome.error["details"]
    assert outcome.seconds < 10
    assert plugin.queue == []


def test_a_full_queue_is_told_and_takes_nothing(plugin: Plugin) -> None:
    directory = plugin.state / "delq"
    directory.mkdir(parents=True)
    for number in range(10_000):
        (directory / f"{number}-0.del").touch()
    outcome = plugin.run("DEL")
    assert outcome.error["code"] == 11
    assert "full" in outcome.error["details"]
    assert len(plugin.queue) == 10_000
    plugin.queue[0].unlink()
    assert plugin.run("DEL").code == 0


def test_a_queue_of_too_many_octets_is_full(plugin: Plugin) -> None:
    directory = plugin.state / "delq"
    directory.mkdir(parents=True)
    with (directory / "1-0.del").open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    assert "full" in plugin.run("DEL").error["details"]


@pytest.mark.parametrize("obstacle", ["a-file-above", "a-file-instead", "lock-is-a-directory"])
def test_a_queue_that_cannot_be_written_is_told(plugin: Plugin, obstacle: str) -> None:
    if obstacle == "a-file-above":
        plugin.state.write_bytes(b"")
    elif obstacle == "a-file-instead":
        plugin.state.mkdir()
        (plugin.state / "delq").write_bytes(b"")
    else:
        (plugin.state / "delq" / ".lock").mkdir(parents=True)
    error = plugin.run("DEL").error
    assert error["code"] == 11
    assert str(plugin.state) in error["details"]
    assert "cannot be kept" in error["msg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("options", ["size=16k", "ro"])
def test_a_full_and_a_read_only_disk_are_told_and_leave_nothing(plugin: Plugin, options: str) -> None:
    plugin.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(plugin.state)], check=True)
    try:
        error = plugin.run("DEL", b" " * 100_000).error
        left = [path.name for path in (plugin.state / "delq").glob("*")] if (plugin.state / "delq").exists() else []
        if options != "ro":
            assert plugin.run("DEL", b"{}").code == 0  # a small one still fits
    finally:
        subprocess.run(["umount", str(plugin.state)], check=True)
    assert error["code"] == 11
    assert ("No space left" if options != "ro" else "Read-only") in error["details"]
    assert set(left) <= {".lock"}


async def test_many_at_once_are_all_kept(plugin: Plugin) -> None:
    outcomes = await asyncio.gather(*(plugin.call("DEL", env={"CNI_CONTAINERID": f"c{number}"}) for number in range(24)))
    assert [outcome.code for outcome in outcomes] == [0] * 24
    kept = {entry(path).invocation.environment["CNI_CONTAINERID"] for path in plugin.queue}
    assert kept == {b"c%d" % number for number in range(24)}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_killed_while_it_writes_it_leaves_no_half_entry(plugin: Plugin, call: str) -> None:
    which = {"write": "write", "fsync": "fsync", "rename": "rename"}[call]
    outcome = plugin.run("DEL", b"x" * 10_000, arguments=(
        "strace", "-qq", "-o", str(plugin.directory / "trace"), "-e", f"inject={which}:signal=SIGKILL:when=1", str(plugin.path),
    ))  # fmt: skip
    assert outcome.code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    for path in plugin.queue:
        entry(path)
    assert plugin.run("DEL", env={"CNI_CONTAINERID": "next"}).code == 0
    assert entry(plugin.queue[-1]).invocation.environment["CNI_CONTAINERID"] == b"next"
    assert [path.name for path in (plugin.state / "delq").glob(".tmp-*")] == []


def test_killed_at_any_moment_it_leaves_no_half_entry(plugin: Plugin) -> None:
    stdin = os.urandom(2_000_000)
    for step in range(12):
        with plugin.start("DEL", stdin) as process:
            time.sleep(0.008 + step * 0.003)
            process.kill()
    for path in plugin.queue:
        assert entry(path).invocation.stdin == stdin
    assert plugin.run("DEL").code == 0
    assert list((plugin.state / "delq").glob(".tmp-*")) == []


def test_a_missing_state_directory_is_made_with_all_above_it(plugin: Plugin) -> None:
    deep = plugin.directory / "a" / "b" / "c"
    assert plugin.run("DEL", env={"KNITTER_STATE": str(deep)}).code == 0
    assert len(list((deep / "delq").glob("*.del"))) == 1
    assert stat.S_IMODE((plugin.directory / "a").stat().st_mode) == 0o700
