"""The plugin as a process against a real grpc.aio server in the agent's place."""

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from harness.plugin import CONFIGURATION, Agent, Plugin, short_directory

from knitter.v1 import agent_pb2

RPCS = ["ADD", "DEL", "CHECK", "GC", "STATUS"]


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    with short_directory() as directory:
        yield Plugin(directory)


@pytest.mark.parametrize("verb", RPCS)
async def test_a_verb_reaches_its_rpc_with_environment_and_stdin_untouched(plugin: Plugin, verb: str) -> None:
    stdin = b' {"cniVersion": "1.0.0",\n "name": "knitter", "x": "\xc3\xa4"}\n'
    async with Agent(plugin.socket) as agent:
        more = {"CNI_ARGS": "K8S_POD_NAME=a;B=c", "OTHER": "no", "CNI_": b"\xff\xfe", "CNI_EMPTY": ""}
        outcome = await plugin.call(verb, stdin, more)
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, stdin, b"")
    ((called, invocation),) = agent.calls
    assert called == verb
    assert invocation.stdin == stdin
    assert dict(invocation.environment) == {
        "CNI_COMMAND": verb.encode(),
        "CNI_CONTAINERID": b"sandbox1",
        "CNI_NETNS": b"/run/netns/sandbox1",
        "CNI_IFNAME": b"eth0",
        "CNI_PATH": b"/opt/cni/bin",
        "CNI_ARGS": b"K8S_POD_NAME=a;B=c",
        "CNI_": b"\xff\xfe",
        "CNI_EMPTY": b"",
    }
    assert len(invocation.request_id) == 16
    int(invocation.request_id, 16)


async def test_every_call_has_a_request_id_of_its_own(plugin: Plugin) -> None:
    async with Agent(plugin.socket) as agent:
        await asyncio.gather(*(plugin.call("CHECK") for _ in range(3)))
    assert len({invocation.request_id for _, invocation in agent.calls}) == 3


@pytest.mark.parametrize(("stdout", "code"), [(b"", 0), (b"", 1), (b'{"code":7}', 1), (b"\0\xff\n", 0), (b"x", 3), (b"x", 255)])
async def test_the_answer_is_printed_and_its_exit_code_taken(plugin: Plugin, stdout: bytes, code: int) -> None:
    async def answer(_verb: str, _invocation: Any, _context: Any) -> agent_pb2.Answer:
        return agent_pb2.Answer(stdout=stdout, exit_code=code)

    async with Agent(plugin.socket, answer):
        outcome = await plugin.call("ADD")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (code, stdout, b"")


@pytest.mark.parametrize("size", [1, 16_000, 65_535, 65_536, 1_048_576, 3_900_000])
async def test_a_configuration_of_any_size_goes_both_ways(plugin: Plugin, size: int) -> None:
    stdin = os.urandom(size)
    async with Agent(plugin.socket) as agent:
        outcome = await plugin.call("ADD", stdin)
    assert outcome.code == 0
    assert agent.calls[0][1].stdin == stdin
    assert outcome.stdout == stdin


async def test_a_huge_environment_arrives(plugin: Plugin) -> None:
    values = {f"CNI_X{number}": "v" * 100_000 for number in range(8)}
    async with Agent(plugin.socket) as agent:
        outcome = await plugin.call("ADD", env=values)
    assert outcome.code == 0
    assert all(agent.calls[0][1].environment[name] == value.encode() for name, value in values.items())


async def test_a_name_that_protobuf_cannot_hold_is_left_out(plugin: Plugin) -> None:
    async with Agent(plugin.socket) as agent:
        outcome = await plugin.call("ADD", env={"CNI_\udcff": "x", "CNI_ä": "y"})
    assert outcome.code == 0
    assert all(name.isascii() for name in agent.calls[0][1].environment)


async def test_an_abort_is_no_answer_and_its_reason_is_told(plugin: Plugin) -> None:
    async def refuse(_verb: str, _invocation: Any, context: Any) -> agent_pb2.Answer:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "nicht für dich: 100 %")
        raise AssertionError

    async with Agent(plugin.socket, refuse):
        error = (await plugin.call("ADD")).error
    assert error["code"] == 11
    assert "grpc-status 7" in error["details"]
    assert "nicht für dich: 100 %" in error["details"]


async def test_a_server_without_the_service_is_no_answer(plugin: Plugin) -> None:
    server = grpc.aio.server()
    server.add_insecure_port(f"unix:{plugin.socket}")
    await server.start()
    try:
        outcome = await plugin.call("CHECK")
    finally:
        await server.stop(None)
    assert outcome.error["code"] == 11
    assert "grpc-status 12" in outcome.error["details"]


async def test_a_slow_agent_meets_the_deadline_and_sees_its_caller_leave(plugin: Plugin) -> None:
    left = asyncio.Event()

    async def slow(_verb: str, _invocation: Any, context: Any) -> agent_pb2.Answer:
        assert 0 < context.time_remaining() <= 0.5
        try:
            await asyncio.sleep(30)
        finally:
            left.set()
        raise AssertionError

    async with Agent(plugin.socket, slow):
        outcome = await plugin.call("ADD", env={"KNITTER_TIMEOUT": "0.5"})
        await asyncio.wait_for(left.wait(), 5)
    assert outcome.error["code"] == 11
    assert outcome.seconds < 3


@pytest.mark.parametrize(("verb", "seconds"), [("ADD", 60), ("DEL", 30), ("CHECK", 60), ("GC", 60), ("STATUS", 1)])
async def test_the_deadline_of_a_verb_is_told_to_the_agent(plugin: Plugin, verb: str, seconds: int) -> None:
    remaining = []

    async def answer(_verb: str, _invocation: Any, context: Any) -> agent_pb2.Answer:
        remaining.append(context.time_remaining())
        return agent_pb2.Answer()

    async with Agent(plugin.socket, answer):
        assert (await plugin.call(verb)).code == 0
    assert seconds - 1 < remaining[0] <= seconds


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
async def test_a_plugin_that_is_killed_ends_the_call_at_the_agent(plugin: Plugin, number: signal.Signals) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(_verb: str, _invocation: Any, _context: Any) -> agent_pb2.Answer:
        begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async with Agent(plugin.socket, slow):
        with plugin.start("ADD") as process:
            await asyncio.wait_for(begun.wait(), 10)
            process.send_signal(number)
            await asyncio.wait_for(cancelled.wait(), 10)
            assert await asyncio.to_thread(process.wait, 10) != 0
            assert process.stderr is not None
            assert process.stderr.read() == b""


async def test_many_at_once_are_all_answered(plugin: Plugin) -> None:
    async with Agent(plugin.socket) as agent:
        outcomes = await asyncio.gather(*(plugin.call("ADD", b"%d" % number) for number in range(24)))
    assert [outcome.stdout for outcome in outcomes] == [b"%d" % number for number in range(24)]
    assert len(agent.calls) == 24


async def test_a_call_under_way_survives_the_agents_graceful_stop(plugin: Plugin) -> None:
    begun = asyncio.Event()

    async def answer(_verb: str, _invocation: Any, _context: Any) -> agent_pb2.Answer:
        begun.set()
        await asyncio.sleep(0.3)
        return agent_pb2.Answer(stdout=b"late")

    async with Agent(plugin.socket, answer) as agent:
        pending = asyncio.create_task(plugin.call("ADD"))
        await asyncio.wait_for(begun.wait(), 10)
        await agent.server.stop(5)
        outcome = await pending
    assert (outcome.code, outcome.stdout) == (0, b"late")


async def test_a_request_beyond_the_agents_limit_is_refused_by_name(plugin: Plugin) -> None:
    async with Agent(plugin.socket) as agent:
        outcome = await plugin.call("ADD", CONFIGURATION + b" " * 5_000_000)
    assert outcome.error["code"] == 7
    assert "octets" in outcome.error["msg"]
    assert agent.calls == []
