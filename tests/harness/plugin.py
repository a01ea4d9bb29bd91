"""The CNI plugin as a process, and two peers for it: a real gRPC agent that answers what a test says, and one scripted in frames.

plugin = Plugin(tmp)                        # installed once per test run
outcome = plugin.run("ADD", stdin=b"{…}")   # or: await plugin.call(…), where the peer lives in the test's own loop
outcome.code, outcome.stdout, outcome.error # the CNI error object
"""

import asyncio
import atexit
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from knitter.v1 import agent_pb2, agent_pb2_grpc

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIGURATION = b'{"cniVersion":"1.0.0","name":"knitter","type":"knitter-cni"}'
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM = ACK = 1
END_HEADERS, PADDED, PRIORITY = 4, 8, 32


@functools.cache
def plugin_path() -> Path:
    """The installed plugin, made once per test run."""
    directory = tempfile.mkdtemp(prefix="kn-plugin-")
    atexit.register(shutil.rmtree, directory, True)
    path = Path(directory) / "knitter-cni"
    subprocess.run([sys.executable, str(ROOT / "deploy" / "install_plugin.py"), str(path)], check=True)
    return path


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose name leaves room for a unix socket's (108 octets)."""
    directory = Path(tempfile.mkdtemp(prefix="kn-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True)
class Outcome:
    """How a call of the plugin ended."""

    code: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def json(self) -> Any:
        """Standard output, parsed."""
        return json.loads(self.stdout)

    @property
    def error(self) -> dict[str, Any]:
        """The error object; asserts that it is a well-formed one, alone on standard output, without noise on standard error."""
        told = self.json
        assert self.code == 1, self
        assert set(told) <= {"cniVersion", "code", "msg", "details"}, told
        assert isinstance(told["code"], int), told
        assert told["msg"], told
        assert told["cniVersion"], told
        assert self.stderr == b"", self
        return dict(told)


class Plugin:
    """Runs the plugin against `directory`/agent.sock, with its queue below `directory`/state."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "agent.sock"
        self.state = directory / "state"
        self.path = plugin_path()

    @property
    def queue(self) -> list[Path]:
        """The entries of the DEL queue, oldest first."""
        return sorted((self.state / "delq").glob("*.del"))

    def environment(self, verb: str, extra: Mapping[str, str | bytes | None] | None = None) -> dict[bytes, bytes]:
        """What a runtime sets for `verb`; `extra` adds, and with None removes."""
        variables: dict[str, str | bytes | None] = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "sandbox1",
            "CNI_NETNS": "/run/netns/sandbox1",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
            "KNITTER_SOCKET": str(self.socket),
            "KNITTER_STATE": str(self.state),
            **(extra or {}),
        }
        return {os.fsencode(name): os.fsencode(value) for name, value in variables.items() if value is not None}

    def start(self, verb: str, stdin: bytes = CONFIGURATION, env: Mapping[str, str | bytes | None] | None = None,
              arguments: tuple[str, ...] = (), **options: Any) -> "subprocess.Popen[bytes]":  # fmt: skip
        """Starts it and writes its standard input from a thread of its own, since it may be more than a pipe takes."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        command = arguments or (str(self.path),)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=self.environment(verb, env), **options)
        threading.Thread(target=_feed, args=(process, stdin), daemon=True).start()
        return process

    def run(self, verb: str, stdin: bytes = CONFIGURATION, env: Mapping[str, str | bytes | None] | None = None,
            arguments: tuple[str, ...] = ()) -> Outcome:  # fmt: skip
        """One call, to its end."""
        begin = time.monotonic()
        with self.start(verb, stdin, env, arguments) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            stdout, stderr = process.stdout.read(), process.stderr.read()
            code = process.wait(60)
        return Outcome(code, stdout, stderr, time.monotonic() - begin)

    async def call(self, verb: str, stdin: bytes = CONFIGURATION, env: Mapping[str, str | bytes | None] | None = None) -> Outcome:
        """One call, while the test's event loop goes on."""
        return await asyncio.to_thread(self.run, verb, stdin, env)


def _feed(process: "subprocess.Popen[bytes]", stdin: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(stdin)
        process.stdin.close()
    except (BrokenPipeError, ValueError):
        return  # it ended without reading all


Handler = Callable[[str, agent_pb2.Invocation, Any], Awaitable[agent_pb2.Answer]]


class Agent(agent_pb2_grpc.AgentServiceServicer):
    """A real grpc.aio server in the agent's place. `handler(verb, invocation, context)` gives the answer."""

    def __init__(self, path: Path, handler: Handler | None = None) -> None:
        self.calls: list[tuple[str, agent_pb2.Invocation]] = []
        self._handler = handler
        self.server = grpc.aio.server()
        agent_pb2_grpc.add_AgentServiceServicer_to_server(self, self.server)
        self.server.add_insecure_port(f"unix:{path}")

    async def __aenter__(self) -> Self:
        await self.server.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.server.stop(None)

    async def _answer(self, verb: str, request: Any, context: Any) -> agent_pb2.Answer:
        self.calls.append((verb, request.invocation))
        if self._handler is not None:
            return await self._handler(verb, request.invocation, context)
        return agent_pb2.Answer(stdout=request.invocation.stdin)

    async def Attach(self, request: Any, context: Any) -> Any:
        return agent_pb2.AttachResponse(answer=await self._answer("ADD", request, context))

    async def Detach(self, request: Any, context: Any) -> Any:
        return agent_pb2.DetachResponse(answer=await self._answer("DEL", request, context))

    async def Check(self, request: Any, context: Any) -> Any:
        return agent_pb2.CheckResponse(answer=await self._answer("CHECK", request, context))

    async def CollectGarbage(self, request: Any, context: Any) -> Any:
        return agent_pb2.CollectGarbageResponse(answer=await self._answer("GC", request, context))

    async def Status(self, request: Any, context: Any) -> Any:
        return agent_pb2.StatusResponse(answer=await self._answer("STATUS", request, context))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def setting(name: int, value: int) -> bytes:
    """One entry of a SETTINGS frame."""
    return name.to_bytes(2, "big") + value.to_bytes(4, "big")


def text(value: bytes) -> bytes:
    """A string literal of HPACK, below 127 octets."""
    return bytes((len(value),)) + value


def header(name: bytes, value: bytes) -> bytes:
    """A literal header that is not indexed."""
    return b"\0" + text(name) + text(value)


OK_HEADERS = b"\x88" + header(b"content-type", b"application/grpc")
OK_TRAILERS = header(b"grpc-status", b"0")


def message(stdout: bytes, exit_code: int = 0) -> bytes:
    """A gRPC message with an answer."""
    body = agent_pb2.AttachResponse(answer=agent_pb2.Answer(stdout=stdout, exit_code=exit_code)).SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + body


def reply(stdout: bytes, exit_code: int = 0) -> bytes:
    """The frames of a plain answer, for a body below one frame."""
    answer = message(stdout, exit_code)
    return frame(HEADERS, 4, 1, OK_HEADERS) + frame(DATA, 0, 1, answer) + frame(HEADERS, 5, 1, OK_TRAILERS)


@dataclass(frozen=True)
class Frame:
    """A frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class Connection:
    """The peer's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.frames: list[Frame] = []

    def send(self, *parts: bytes) -> None:
        """Sends bytes."""
        self.sock.sendall(b"".join(parts))

    def octets(self, count: int) -> bytes:
        """Exactly so many; raises EOFError."""
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def preface(self) -> None:
        """Reads and checks the client's first bytes."""
        assert self.octets(len(PREFACE)) == PREFACE

    def frame(self) -> Frame:
        """The next frame; raises EOFError."""
        head = self.octets(9)
        payload = self.octets(int.from_bytes(head[:3], "big"))
        self.frames.append(Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), payload))
        return self.frames[-1]

    def until(self, kind: int, flags: int = 0) -> Frame:
        """Reads up to a frame of that kind which carries all of `flags`."""
        while True:
            came = self.frame()
            if came.kind == kind and came.flags & flags == flags:
                return came

    def request(self) -> agent_pb2.Invocation:
        """Reads the whole request, where the windows suffice, and parses it."""
        self.preface()
        self.until(DATA, 1)
        return self.invocation()

    def invocation(self) -> agent_pb2.Invocation:
        """The request out of the DATA frames so far."""
        body = b"".join(came.payload for came in self.frames if came.kind == DATA)
        assert body[0] == 0
        assert len(body) == 5 + int.from_bytes(body[1:5], "big")
        return agent_pb2.AttachRequest.FromString(body[5:]).invocation

    def drain(self) -> None:
        """Reads until the client closes."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            return


class Peer:
    """A peer scripted in frames: `script(connection)` runs, in a thread, for each connection. What it raises, `__exit__` raises."""

    def __init__(self, path: Path, script: Callable[[Connection], None]) -> None:
        self.connections: list[Connection] = []
        self._script = script
        self._errors: list[BaseException] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(sock)
            self.connections.append(connection)
            try:
                sock.settimeout(20)
                self._script(connection)
            except BaseException as error:  # noqa: BLE001 raised again by the test
                self._errors.append(error)
            finally:
                sock.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(25)
        if error is None and self._errors:
            raise self._errors[0]
