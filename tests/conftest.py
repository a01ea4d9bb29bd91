"""Puts tests/ on the path, so that tests import what they share as `harness.…`; fixtures that many tests use."""

import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness.daemons import Daemons

# A loaded machine is no failure, and two runs share no database.
hypothesis.settings.register_profile("knitter", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("knitter")


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """Starts real daemons with files in tmp_path; ends what the test left running."""
    started = Daemons(tmp_path)
    yield started
    started.close()
