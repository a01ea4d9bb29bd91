"""Code in a process of its own that gets no inotify instance: a user has 128 of them for all that runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).resolve().parent.parent
_NONE = 'from pathlib import Path; Path("/proc/sys/user/max_inotify_instances").write_text("0")  # of this user namespace alone\n'


def run_without_inotify(code: str, *arguments: str) -> str:
    """What it prints; it must end well. Skips the test where no user namespace can be made."""
    into = ["unshare", "--user", "--map-root-user"]
    probe = subprocess.run([*into, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no user namespace can be made: {probe.stderr.strip()}")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(_TESTS), str(_TESTS.parent)))}
    command = [*into, sys.executable, "-c", _NONE + code, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
