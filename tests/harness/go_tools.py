"""Tools that Go builds, kept in a cache outside the checkout; a test that needs one is skipped where it can't be had."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "knitter" / "go"
BUILD_SECONDS = 300


def go_tool(package: str, version: str) -> Path:
    """The path of the executable, built at the first use. Skips the test where there is no Go or no module proxy."""
    target = CACHE / f"{package.rpartition('/')[2]}-{version}"
    if target.exists():
        return target
    go = shutil.which("go") or ("/usr/local/go/bin/go" if Path("/usr/local/go/bin/go").exists() else None)
    if go is None:
        pytest.skip(f"{package}: no Go on this machine")
    building = CACHE / f".{os.getpid()}"
    building.mkdir(parents=True, exist_ok=True)
    try:
        environment = {**os.environ, "GOBIN": str(building), "GOFLAGS": "-mod=mod"}
        command = [go, "install", f"{package}@{version}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS)
        if done.returncode != 0:
            pytest.skip(f"{package}@{version} cannot be built here: {done.stderr.strip().splitlines()[-1:]}")
        (building / package.rpartition("/")[2]).replace(target)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{package}@{version} is not built within {BUILD_SECONDS} s")
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target
