"""Makes an interpreter that needs nothing of the machine it runs on: `host_python.py DEST [--root DIR]`.

A node may have no Python, or another libc. DEST (the path it will have on the node) gets the running interpreter, the loader and
the libraries it is linked with, and the standard library without its large optional parts. The executable names its own loader and
looks for libraries beside itself, so it starts on any Linux of the same architecture. `{id}` in DEST becomes eight digits that are
others for another interpreter, so that a node can hold two while one replaces the other. With --root the files are written below
DIR, to be moved to DEST later. Needs ldd and patchelf.
"""

import argparse
import compileall
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

LEFT_OUT = (
    "test", "tests", "idlelib", "lib2to3", "ensurepip", "distutils", "tkinter", "turtledemo", "turtle.py", "pydoc_data", "venv",
    "site-packages", "dist-packages", "config-*", "__pycache__", "sqlite3", "unittest", "wsgiref", "xmlrpc", "curses", "dbm",
    "_test*.so",
)  # fmt: skip


def make(pattern: str, root: Path) -> Path:
    """Writes it; returns the executable's path on the node. Raises SystemExit naming the command that failed."""
    executable = Path(os.path.realpath(sys.executable))
    destination = Path(pattern.replace("{id}", identity(executable)))
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    target = root / destination.relative_to("/")
    shutil.rmtree(target, ignore_errors=True)
    libraries = target / "lib"
    (target / "bin").mkdir(parents=True)
    libraries.mkdir()
    shutil.copy2(executable, target / "bin" / name)
    standard = Path(sysconfig.get_paths()["stdlib"])
    shutil.copytree(standard, libraries / name, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=False)
    (libraries / name / "lib-dynload").mkdir(exist_ok=True)  # its absence would be complained of at every start
    loader = _copy_libraries(executable, libraries)
    if not loader:
        raise SystemExit(f"{executable}: is not dynamically linked; copy it as it is")
    modules = sorted((libraries / name / "lib-dynload").glob("*.so"))
    for module in modules:
        _copy_libraries(module, libraries)
    _run("patchelf", "--set-interpreter", str(destination / "lib" / loader), str(target / "bin" / name))
    for file in (target / "bin" / name, *libraries.glob("*.so*"), *modules):
        if file.name not in (loader, "libc.so.6"):  # these two need nobody else
            _run("patchelf", "--force-rpath", "--set-rpath", str(destination / "lib"), str(file))
    compileall.compile_dir(libraries / name, quiet=2, stripdir=str(target), prependdir=str(destination))
    return destination / "bin" / name


def identity(executable: Path) -> str:
    """Eight digits made of the interpreter, its version and what it is linked with."""
    digest = hashlib.sha256(sys.version.encode())
    for file in (executable, *_linked(executable).values()):
        digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
    return digest.hexdigest()[:8]


def _copy_libraries(linked: Path, libraries: Path) -> str:
    """Copies what an executable or a module is linked with; returns the loader's file name, "" where none is told."""
    loader = ""
    for name, path in _linked(linked).items():
        shutil.copy2(path, libraries / Path(name).name)
        if name.startswith("/"):
            loader = Path(name).name
    return loader


def _linked(file: Path) -> dict[str, str]:
    """Name → real path of what a file is linked with; the loader's name is a path."""
    lines = (re.match(r"\s*(?:(\S+) => )?(/\S+) \(", line) for line in _run("ldd", str(file)).splitlines())
    return {line[1] or line[2]: os.path.realpath(line[2]) for line in lines if line}


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except OSError as error:
        raise SystemExit(f"{command[0]}: {error.strerror}; install it") from error
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{' '.join(command)}: {error.stderr.strip()}") from error
    return done.stdout


def main() -> None:
    """Arguments, then the path on one line."""
    parser = argparse.ArgumentParser(description="an interpreter for nodes without one")
    parser.add_argument("destination", metavar="DEST", help="its folder on the node, absolute; may hold {id}")
    parser.add_argument("--root", type=Path, default=Path("/"), help="write below this folder instead of /")
    arguments = parser.parse_args()
    if not arguments.destination.startswith("/"):
        parser.error("DEST must be absolute")
    print(make(arguments.destination, arguments.root))


if __name__ == "__main__":
    main()
