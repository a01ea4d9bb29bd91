"""Puts tests/ on the path, so that tests import what they share as `harness.…`; fixtures that many tests use."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness.daemons import Daemons
from harness.stores import KINDS, Site, open_site

# A loaded machine is no failure, and two runs share no database.
hypothesis.settings.register_profile("knitter", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("knitter")

# A shell has what it starts with `&` ignore SIGINT, and so would all that the tests start, those that they interrupt too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """A place for a store, once of each kind."""
    async with open_site(request.param, tmp_path) as site:
        yield site


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """Starts real daemons with files in tmp_path; ends what the test left running."""
    started = Daemons(tmp_path)
    yield started
    started.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "knitter-test", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
