"""Puts tests/ on the path, so that tests import what they share as `harness.…`; fixtures that many tests use."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness.daemons import Daemons


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """Starts real daemons with files in tmp_path; ends what the test left running."""
    started = Daemons(tmp_path)
    yield started
    started.close()
