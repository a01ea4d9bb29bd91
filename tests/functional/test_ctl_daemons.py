"""The harness that starts daemons: address by the ready descriptor, log of what failed, end by pid."""

from pathlib import Path

import pytest
from harness.daemons import Daemons, NotStarted, start_soon

SERVES = """
import asyncio
from dataclasses import dataclass
from knitter_common import serve
from knitter_common.serve.logs import LogSettings
from knitter_common.settings import setting

@dataclass(frozen=True)
class Settings:
    listen: str = setting("where")
    log: LogSettings = LogSettings()

class Probe:
    def __init__(self, settings): self.server = serve.GrpcServer(settings.listen, serve.ServerSettings(), [])
    async def start(self): return await self.server.start()
    async def wait(self): await self.server.wait()
    async def stop(self): await self.server.stop()

def main(): return serve.run("knitter-probe", Settings, Probe)
"""


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A component made for this test."""
    package = tmp_path / "path" / "knitter_probe"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "main.py").write_text(SERVES)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return "knitter-probe"


def test_a_daemon_tells_its_address_and_ends_gracefully(daemons: Daemons, probe: str) -> None:
    daemon = daemons.start(probe, {"listen": "127.0.0.1:0"})
    assert daemon.address.startswith("127.0.0.1:")
    assert daemon.running
    assert daemon.terminate() == 0
    assert '"ended"' in daemon.log()


def test_a_daemon_that_fails_tells_why(daemons: Daemons, probe: str) -> None:
    with pytest.raises(NotStarted, match="did you mean 'listen'"):
        daemons.start(probe, {"listn": "127.0.0.1:0"})


async def test_a_killed_daemon_can_be_started_again(tmp_path: Path, probe: str) -> None:
    config = {"listen": f"unix:{tmp_path}/s/probe.sock"}
    first = await start_soon(probe, config, tmp_path)
    first.kill()
    with await start_soon(probe, config, tmp_path) as second:
        assert second.address == config["listen"]
        assert second.pid != first.pid
    assert not second.running
