"""grpcurl (github.com/fullstorydev/grpcurl) where it can be had: on the path, in our cache, or built with Go."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "knitter" / "bin"
_MODULE = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3"


class Absent(Exception):
    """It cannot be had here; the message says why."""


def find(within: float = 300.0) -> str:
    """The path of grpcurl. Builds it once, in at most `within` seconds. Raises Absent."""
    known = shutil.which("grpcurl") or shutil.which("grpcurl", path=str(_CACHE))
    if known:
        return known
    go = shutil.which("go")
    if go is None:
        raise Absent("grpcurl is not installed, and there is no Go to build it with")
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "grpcurl.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command, env = [go, "install", _MODULE], {**os.environ, "GOBIN": str(_CACHE)}
        try:
            done = subprocess.run(command, env=env, capture_output=True, timeout=within, check=False)
        except subprocess.TimeoutExpired as error:
            raise Absent(f"{' '.join(command)} took longer than {within:g} s") from error
    if done.returncode:
        raise Absent(f"{' '.join(command)} failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return str(_CACHE / "grpcurl")
