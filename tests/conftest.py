"""Puts tests/ on the path, so that tests import what they share as `harness.…`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
