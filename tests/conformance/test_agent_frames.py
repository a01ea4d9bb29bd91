"""The agent's socket under what is no conversation: half, garbled and hostile HTTP/2. It answers others meanwhile, and afterwards
it holds no descriptor and no thread more than before."""

import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from harness.agent import AgentProcess, agent_in
from harness.netns import network_namespace
from harness.plugin import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    header,
    setting,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from knitter.v1 import agent_pb2, agent_pb2_grpc

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

NOBODY = "unix:/nonexistent/manager.sock"
STDIN = b'{"cniVersion":"1.1.0","name":"knitter","type":"knitter-cni"}'


class Target:
    """The agent, and a well-behaved caller beside the others."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent, self.path, self.pid = agent, str(agent.home / "agent.sock"), agent.daemon.pid
        self._channel = grpc.insecure_channel(agent.address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._stub = agent_pb2_grpc.AgentServiceStub(self._channel)
        self.answers()
        self.descriptors, self.threads = self.held()

    def answers(self) -> None:
        """STATUS is answered, and soon."""
        invocation = agent_pb2.Invocation(environment={"CNI_COMMAND": b"STATUS"}, stdin=STDIN)
        response = self._stub.Status(agent_pb2.StatusRequest(invocation=invocation), timeout=2)
        assert (response.answer.exit_code, response.answer.stdout) == (0, b"")
        assert self.agent.daemon.running

    def say(self, data: bytes, wait: float = 0.0) -> bytes:
        """Says it on a connection of its own, listens as long as there is something to hear, and goes without a word."""
        with socket.socket(socket.AF_UNIX) as sock:
            self.start(sock, data)
            heard = b""
            sock.settimeout(wait or 0.005)
            try:
                while more := sock.recv(65536):
                    heard += more
            except (TimeoutError, ConnectionResetError):
                return heard
            return heard

    def start(self, sock: socket.socket, data: bytes) -> None:
        """Connects and says it; an agent that hangs up before the end is right."""
        sock.settimeout(2)
        sock.connect(self.path)
        try:
            sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def held(self) -> tuple[int, int]:
        """How many descriptors and threads the agent has."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        threads = int(next(line.split()[1] for line in status.splitlines() if line.startswith("Threads:")))
        return len(os.listdir(f"/proc/{self.pid}/fd")), threads  # noqa: PTH208

    def let_go(self) -> None:
        """Waits until the agent holds no more than at the beginning: ends of connections are noticed, not waited for."""
        until = time.monotonic() + 10
        while self.held()[0] > self.descriptors and time.monotonic() < until:
            time.sleep(0.02)
        descriptors, threads = self.held()
        assert descriptors <= self.descriptors
        assert threads <= self.threads + 8  # gRPC's own, which come and go by its load

    def close(self) -> None:
        """Ends the caller."""
        self._channel.close()


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with network_namespace("node") as node, agent_in(node, NOBODY, managerPatience=0.05) as agent:
        made = Target(agent)
        yield made
        made.let_go()
        made.close()


def request_headers(path: bytes = b"/knitter.v1.AgentService/Attach", *more: tuple[bytes, bytes], method: bytes = b"POST") -> bytes:
    """A request's header block, as HPACK literals."""
    plain = ((b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"), (b"te", b"trailers"))
    return b"".join(header(name, value) for name, value in (*plain, *more))


TYPE = (b"content-type", b"application/grpc")
OPEN = PREFACE + frame(SETTINGS, 0, 0)
CALL = request_headers(b"/knitter.v1.AgentService/Attach", TYPE)
BEGUN = OPEN + frame(HEADERS, END_HEADERS, 1, CALL)
INVOCATION = agent_pb2.Invocation(environment={"CNI_COMMAND": b"ADD"}, stdin=STDIN)
BODY = agent_pb2.AttachRequest(invocation=INVOCATION).SerializeToString()


def grpc_message(body: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message; `length` may lie."""
    return bytes((flag,)) + (len(body) if length is None else length).to_bytes(4, "big") + body


CONVERSATIONS: dict[str, bytes] = {
    "nothing": b"",
    "one octet": b"P",
    "half a preface": PREFACE[:12],
    "another protocol": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a TLS hello": bytes.fromhex("160301003c0100003803035b"),
    "noise": random.Random(1).randbytes(4096),
    "zeros": bytes(100_000),
    "a preface alone": PREFACE,
    "no SETTINGS first": PREFACE + frame(PING, 0, 0, b"12345678"),
    "SETTINGS of a strange length": PREFACE + frame(SETTINGS, 0, 0, b"12345"),
    "SETTINGS on a stream": PREFACE + frame(SETTINGS, 0, 1),
    "SETTINGS that cannot be": PREFACE + frame(SETTINGS, 0, 0, setting(4, 2**31) + setting(5, 1) + setting(2, 7)),
    "a thousand SETTINGS": OPEN + frame(SETTINGS, 0, 0, setting(4, 65535)) * 1000,
    "a thousand PINGs": OPEN + frame(PING, 0, 0, b"12345678") * 1000,
    "PING of a strange length": OPEN + frame(PING, 0, 0, b"1"),
    "a call without DATA": BEGUN,
    "a call that ends before it begins": OPEN + frame(HEADERS, END_HEADERS | END_STREAM, 1, CALL),
    "half a header block": OPEN + frame(HEADERS, 0, 1, CALL[:40]),
    "half a header block and another stream": OPEN + frame(HEADERS, 0, 1, CALL[:40]) + frame(HEADERS, END_HEADERS, 3, CALL),
    "a CONTINUATION of nothing": OPEN + frame(CONTINUATION, END_HEADERS, 1, CALL),
    "a thousand CONTINUATIONs": OPEN + frame(HEADERS, 0, 1, CALL) + frame(CONTINUATION, 0, 1) * 1000,
    "HPACK that is none": OPEN + frame(HEADERS, END_HEADERS, 1, b"\xff" * 64),
    "a header of a mebibyte": OPEN + frame(HEADERS, 0, 1, CALL) + frame(CONTINUATION, 0, 1, header(b"x", b"y" * 100) * 120) * 85,
    "HEADERS on stream 0": OPEN + frame(HEADERS, END_HEADERS, 0, CALL),
    "HEADERS on an even stream": OPEN + frame(HEADERS, END_HEADERS, 2, CALL),
    "HEADERS twice": BEGUN + frame(HEADERS, END_HEADERS, 1, CALL),
    "padding beyond the frame": OPEN + frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + CALL[:20]),
    "a stream that depends on itself": OPEN + frame(HEADERS, END_HEADERS | PRIORITY, 1, b"\0\0\0\1\0" + CALL),
    "an unknown method": OPEN + frame(HEADERS, END_HEADERS | END_STREAM, 1, request_headers(b"/x/y", TYPE)),
    "another content": OPEN + frame(HEADERS, END_HEADERS | END_STREAM, 1, request_headers(b"/x", (b"content-type", b"text/html"))),
    "GET": OPEN + frame(HEADERS, END_HEADERS | END_STREAM, 1, request_headers(method=b"GET")),
    "a deadline that is none": OPEN
    + frame(HEADERS, END_HEADERS, 1, request_headers(b"/knitter.v1.AgentService/Attach", TYPE, (b"grpc-timeout", b"soon"))),
    "half a message": BEGUN + frame(DATA, 0, 1, grpc_message(BODY)[:20]),
    "half a message, and the end": BEGUN + frame(DATA, END_STREAM, 1, grpc_message(BODY)[:20]),
    "a message that is none": BEGUN + frame(DATA, END_STREAM, 1, grpc_message(b"\xff" * 50)),
    "a message of 4 GiB": BEGUN + frame(DATA, 0, 1, grpc_message(b"x", length=2**32 - 1)),
    "a compressed message": BEGUN + frame(DATA, END_STREAM, 1, grpc_message(BODY, flag=1)),
    "a message with a strange flag": BEGUN + frame(DATA, END_STREAM, 1, grpc_message(BODY, flag=9)),
    "two messages": BEGUN + frame(DATA, END_STREAM, 1, grpc_message(BODY) * 2),
    "DATA on a stream that is not open": OPEN + frame(DATA, END_STREAM, 7, grpc_message(BODY)),
    "DATA beyond the window": BEGUN + frame(DATA, 0, 1, bytes(16384)) * 64,
    "a frame longer than allowed": OPEN + frame(DATA, 0, 1, bytes(2**20)),
    "a frame that never ends": OPEN + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(1000),
    "a frame of no known kind": OPEN + frame(99, 255, 1, b"x" * 100) + frame(PING, 0, 0, b"12345678"),
    "a promise": OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + CALL),
    "a call taken back": BEGUN + frame(RST_STREAM, 0, 1, b"\0\0\0\x08"),
    "a thousand calls taken back": OPEN
    + b"".join(frame(HEADERS, END_HEADERS, 2 * n + 1, CALL) + frame(RST_STREAM, 0, 2 * n + 1, b"\0\0\0\x08") for n in range(1000)),
    "a thousand calls begun": OPEN + b"".join(frame(HEADERS, END_HEADERS, 2 * n + 1, CALL) for n in range(1000)),
    "a goodbye in the middle": BEGUN + frame(GOAWAY, 0, 0, bytes(8)),
    "a window of nothing": BEGUN + frame(WINDOW_UPDATE, 0, 1, bytes(4)),
    "a window beyond 2^31": OPEN + frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2,
}


def test_a_whole_conversation_is_answered(target: Target) -> None:
    heard = target.say(BEGUN + frame(DATA, END_STREAM, 1, grpc_message(BODY)), wait=0.5)
    assert b"CNI_CONTAINERID is missing" in heard


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_half_a_conversation_disturbs_nobody(target: Target, name: str) -> None:
    target.say(CONVERSATIONS[name], wait=0.05)
    target.answers()


@pytest.mark.parametrize("name", ["nothing", "half a preface", "a preface alone", "a call without DATA", "half a message"])
def test_many_that_fall_silent_disturb_nobody(target: Target, name: str) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            target.start(stack.enter_context(socket.socket(socket.AF_UNIX)), CONVERSATIONS[name])
        target.answers()
    target.let_go()


FLAGS = some.sampled_from([0, END_STREAM, END_HEADERS, END_STREAM | END_HEADERS, PADDED, PRIORITY, 255])
PIECES = some.one_of(
    some.builds(frame, some.integers(0, 10) | some.integers(0, 255), FLAGS, some.integers(0, 5), some.binary(max_size=40)),
    some.builds(lambda flags, stream: frame(HEADERS, flags, stream, CALL), FLAGS, some.sampled_from([1, 3, 5])),
    some.builds(
        lambda flags, stream, body: frame(DATA, flags, stream, grpc_message(body)),
        FLAGS, some.sampled_from([1, 3, 5]), some.just(BODY) | some.binary(max_size=60),
    ),
    some.binary(max_size=60),
)  # fmt: skip
OPENINGS = some.sampled_from([OPEN, OPEN, OPEN, BEGUN, PREFACE, b""])


@given(opening=OPENINGS, pieces=some.lists(PIECES, max_size=8), cut=some.integers(0, 20))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_any_frames_disturb_nobody(target: Target, opening: bytes, pieces: list[bytes], cut: int) -> None:
    said = opening + b"".join(pieces)
    target.say(said[: len(said) - cut] if cut else said)
    target.answers()
