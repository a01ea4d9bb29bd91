"""Brings the CNI plugin to a node, from the agent's image: `install_host.py --bin-dir DIR [--host DIR]`.

The image holds, in /opt/knitter, the interpreter for nodes (`python-<id>`, made by host_python.py) and the plugin that names it in
its first line. The interpreter goes to the same path on the node, under a temporary name first; the plugin comes after it, by
rename. So a runtime that calls the plugin at any moment runs the old one or the new one, whole. Older interpreters stay, but for
all except the one before: a call under way may still need it.
"""

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import install_plugin

HOME = Path("/opt/knitter")
PLUGIN = "knitter-cni"


def install(home: Path, host: Path, bin_dir: Path) -> list[Path]:
    """Installs from `home` to the node whose root is at `host`; returns what was written. Raises SystemExit, OSError."""
    content = (home / PLUGIN).read_bytes()
    interpreter = Path(os.fsdecode(content.partition(b"\n")[0].removeprefix(b"#!").split()[0]))
    source = interpreter.parent.parent
    target = _below(host, source)
    written = []
    if not (target / "complete").exists():
        _copy_tree(source, target)
        written.append(target)
    place = _below(host, bin_dir)
    place.mkdir(parents=True, exist_ok=True)
    if not (place / PLUGIN).exists() or (place / PLUGIN).read_bytes() != content:
        install_plugin.install(content, place / PLUGIN)
        written.append(place / PLUGIN)
    _forget_old(target)
    return written


def _below(host: Path, path: Path) -> Path:
    return host / path.relative_to("/")


def _copy_tree(source: Path, target: Path) -> None:
    """Whole or not at all; the file `complete` is its last."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, symlinks=True)
    (temporary / "complete").touch()
    os.sync()
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _forget_old(current: Path) -> None:
    others = [path for path in current.parent.glob("python-*") if path != current]
    for path in sorted(others, key=lambda path: path.stat().st_mtime_ns)[:-1]:
        shutil.rmtree(path, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Arguments, then one line for each thing written."""
    parser = argparse.ArgumentParser(description="brings the CNI plugin and its interpreter to a node")
    parser.add_argument("--host", type=Path, default=Path("/host"), help="where the node's root is mounted (default /host)")
    bin_help = "where the node's runtime looks for plugins (default /opt/cni/bin)"
    parser.add_argument("--bin-dir", type=Path, default=Path("/opt/cni/bin"), help=bin_help)
    parser.add_argument("--home", type=Path, default=HOME, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    for path in install(arguments.home, arguments.host, arguments.bin_dir):
        print(f"installed {path}")


if __name__ == "__main__":
    main()
