"""The server that every daemon has: who may have its socket, and that it bears its own clients' keepalive."""

import asyncio
import importlib.util
import os
import re
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from knitter_common import managers
from knitter_common.errors import Invalid, Unavailable
from knitter_common.serve import GrpcServer, ServerSettings
from knitter_common.serve import server as serving

ROOT = Path(__file__).resolve().parents[2]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1


@asynccontextmanager
async def served(address: str) -> AsyncIterator[str]:
    server = GrpcServer(address, ServerSettings(), [])
    try:
        yield await server.start()
    finally:
        await server.stop()


def frame(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, 0)) + bytes(4) + payload


async def answered_pings(reader: asyncio.StreamReader) -> list[int]:
    """The kinds of frames that came until a PING was acknowledged, or the server said good-bye."""
    kinds = []
    while not kinds or kinds[-1] not in (PING, GOAWAY):
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] != PING or head[4] & ACK:
            kinds.append(head[3])
    return kinds


async def test_a_client_that_pings_at_the_agreed_pace_is_never_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "PING_INTERVAL_MS", 20)
    async with served("127.0.0.1:0") as address:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(PREFACE + frame(SETTINGS))
        for _ in range(8):  # without a call under way, gRPC's own default would bear two
            await asyncio.sleep(0.04)
            writer.write(frame(PING, bytes(8)))
            assert GOAWAY not in await asyncio.wait_for(answered_pings(reader), 5)
        writer.close()


def test_our_clients_ping_no_faster_than_our_servers_bear() -> None:
    assert dict(managers.OPTIONS)["grpc.keepalive_time_ms"] >= 1.5 * serving.PING_INTERVAL_MS


def test_every_option_for_grpc_is_one_that_the_library_knows() -> None:
    """One that it does not know is ignored without a word."""
    spec = importlib.util.find_spec("grpc._cython.cygrpc")
    assert spec is not None
    assert spec.origin is not None
    library = Path(spec.origin).read_bytes()
    told = {
        name
        for file in ROOT.glob("knitter_*/**/*.py")
        for name in re.findall(r'\("(grpc\.[a-z0-9_.]+)",', file.read_text(encoding="utf-8"))
    }
    assert len(told) > 5
    assert [name for name in sorted(told) if name.encode() not in library] == []


async def test_a_socket_and_its_directory_are_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"
    async with served(f"unix:{path}"):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.with_name("agent.sock.lock").stat().st_mode) == 0o600
    assert not path.exists()


async def test_an_empty_directory_is_made_private_and_one_of_others_is_left_alone(tmp_path: Path) -> None:
    shared = tmp_path / "run"
    shared.mkdir()
    shared.chmod(0o755)
    async with served(f"unix:{shared}/agent.sock"):
        assert stat.S_IMODE(shared.stat().st_mode) == 0o700
    shared.chmod(0o755)
    async with served(f"unix:{shared}/agent.sock"):  # it has been ours before
        assert stat.S_IMODE(shared.stat().st_mode) == 0o700
    shared.chmod(0o755)
    with pytest.raises(Invalid, match=r"holds other things; give the socket other\.sock a directory of its own"):
        GrpcServer(f"unix:{shared}/other.sock", ServerSettings(), []).take()
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755


async def test_a_second_server_is_refused_and_the_first_serves_on(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"
    async with served(f"unix:{path}"):
        before = path.stat().st_ino
        with pytest.raises(Unavailable) as caught:
            GrpcServer(f"unix:{path}", ServerSettings(), []).take()
        assert caught.value.reason == "LISTEN_FAILED"
        assert path.stat().st_ino == before
    async with served("127.0.0.1:0") as address:
        with pytest.raises(Unavailable, match="cannot listen on"):
            await GrpcServer(address, ServerSettings(), []).start()


@pytest.mark.parametrize("component", ["agent", "manager", "monitor"])
def test_a_daemon_chooses_grpcs_polling_before_grpc_reads_the_choice(component: str) -> None:
    watch = (
        "import sys; sys.addaudithook(lambda event, args: event == 'import' and args[0] == 'grpc' and print(os.environ.get(NAME)))"
    )
    code = f"import os; NAME = 'GRPC_EXPERIMENTS'; {watch}; import knitter_{component}.main"
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "-event_engine_client,-event_engine_listener"


def test_the_pinned_grpc_has_that_choice() -> None:
    code = "import knitter_common, grpc; grpc.insecure_channel('unix:/nonexistent').close()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "nknown experiment" not in done.stderr
    spoiled = {**os.environ, "GRPC_EXPERIMENTS": "-there_is_no_such_thing"}
    done = subprocess.run([sys.executable, "-c", code], env=spoiled, capture_output=True, text=True, check=True)
    assert "nknown experiment" in done.stderr, "grpc tells it in other words by now"
