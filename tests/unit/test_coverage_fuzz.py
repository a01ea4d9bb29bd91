"""Inputs that coverage finds (atheris) for everything that reads what others write; KNITTER_FUZZ_SECONDS says how long, for each.

atheris is no dependency: where it is not installed (`./build.sh fuzz` installs it), the tests are skipped. hypothesis covers the
same parsers without it.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = int(os.environ.get("KNITTER_FUZZ_SECONDS", "3"))
SCRIPT = Path(__file__).resolve().parent.parent / "harness" / "fuzzing.py"

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed (./build.sh fuzz)"),
    pytest.mark.timeout(SECONDS + 120),
]


@pytest.mark.parametrize("target", ["annotations", "objects", "configuration", "daemon_file", "answer", "snapshot"])
def test_what_coverage_finds_ends_cleanly(target: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    command = [
        sys.executable,
        str(SCRIPT),
        target,
        str(corpus),
        f"-max_total_time={SECONDS}",
        f"-artifact_prefix={tmp_path}/found-",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    found = {path.name: path.read_bytes()[:500] for path in tmp_path.glob("found-*")}
    assert done.returncode == 0, f"{found}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert "DONE" in done.stderr
