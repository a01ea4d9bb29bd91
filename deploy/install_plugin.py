"""Installs the CNI plugin: writes the one executable file DEST, and nothing else.

    install_plugin.py [--python PATH] [--socket PATH] [--state PATH] DEST

The file is `knitter_cni/plugin.py` with a first line that names the interpreter. Python compiles a script anew at each start,
which for this one takes longer than the call itself (docs/cni-plugin.md has the figures), so the file carries the code compiled by
that very interpreter, and the source for the day on which the interpreter is replaced by another version.

It is written beside DEST, synced and renamed, so that a runtime that calls DEST at any moment runs the old one or the new one.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTION = "/usr/bin/python3"
# Linux before 5.1 cuts a script's first line after this many octets.
LONGEST_FIRST_LINE = 127

# Run by the interpreter that will run the plugin: source in, its magic number and its compiled code out. Without line tables: the
# plugin shows no traceback, and unpacking them would be a part of every call.
COMPILE = r"""
import _frozen_importlib_external, marshal, sys
if sys.version_info < (3, 11):
    sys.exit("Python 3.11 or newer is needed")
def bare(code):
    consts = (bare(const) if hasattr(const, "co_code") else const for const in code.co_consts)
    return code.replace(co_linetable=b"", co_filename="knitter-cni", co_consts=tuple(consts))
code = compile(sys.stdin.buffer.read(), "knitter-cni", "exec", dont_inherit=True, optimize=2)
sys.stdout.buffer.write(_frozen_importlib_external.MAGIC_NUMBER + marshal.dumps(bare(code)))
"""

TEMPLATE = """\
#!{python} -IS
# Knitter's CNI plugin {version}, made from knitter_cni/plugin.py by deploy/install_plugin.py; see docs/cni-plugin.md.
import _frozen_importlib_external, marshal
if _frozen_importlib_external.MAGIC_NUMBER == {magic!r}:
    exec(marshal.loads({code!r}))
else:
    exec(compile({source!r}, "knitter-cni", "exec", dont_inherit=True, optimize=2))
"""


def own_python() -> str:
    """The distribution's interpreter if it is new enough, else this one; itself: neither a virtual environment's link nor a version
    manager's shim. A distribution builds it with profiles and in one piece, which makes it start 1 ms of 7 earlier."""
    try:
        subprocess.run([DISTRIBUTION, "-IS", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=True)
        return os.path.realpath(DISTRIBUTION)
    except (OSError, subprocess.CalledProcessError):
        return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def executable(python: str, source: bytes, version: str) -> bytes:
    """The file's content. Raises SystemExit when `python` cannot run it."""
    if len(f"#!{python} -IS") > LONGEST_FIRST_LINE or any(letter.isspace() for letter in python):
        raise SystemExit(f"{python}: too long for a script's first line, or with white space; give another with --python")
    try:
        done = subprocess.run([python, "-IS", "-c", COMPILE], input=source, capture_output=True, check=True)
    except OSError as error:
        raise SystemExit(f"{python}: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{python}: cannot compile the plugin: {error.stderr.decode(errors='replace').strip()}") from error
    magic, code = done.stdout[:4], done.stdout[4:]
    return TEMPLATE.format(python=python, version=version, magic=magic, code=code, source=source.decode()).encode()


def with_path(source: bytes, name: str, path: str) -> bytes:
    """The source with another value of the constant `name`: a path that is absolute. Raises SystemExit."""
    if not Path(path).is_absolute():
        raise SystemExit(f"--{name.lower()} {path!r} is not absolute; write the whole path")
    return with_constant(source, name, os.fsencode(path))


def with_constant(source: bytes, name: str, value: bytes) -> bytes:
    """The source with another value of the constant `name`. Raises SystemExit."""
    changed, count = re.subn(rf"(?m)^{name} = b\"[^\"]*\"".encode(), lambda _: f"{name} = {value!r}".encode(), source)
    if count != 1:
        raise SystemExit(f"knitter_cni/plugin.py has no line for {name}")
    return changed


def install(content: bytes, destination: Path) -> None:
    """Puts `content` in place, 0755, whole or not at all. Raises OSError."""
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o755)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, 0o755)
            os.fsync(descriptor)
        temporary.replace(destination)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(destination.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Installs Knitter's CNI plugin as one executable file.")
    parser.add_argument("destination", type=Path, help="the file to write, such as /opt/cni/bin/knitter-cni")
    told = "the interpreter for its first line, as it is given (default: /usr/bin/python3 if new enough, else this one)"
    parser.add_argument("--python", help=told)
    parser.add_argument("--socket", help="the agent's socket where $KNITTER_SOCKET names none (default /run/knitter/agent.sock)")
    parser.add_argument("--state", help="its state directory where $KNITTER_STATE names none (default /var/lib/knitter/agent)")
    arguments = parser.parse_args()
    python = os.path.abspath(arguments.python) if arguments.python else own_python()  # noqa: PTH100 a link stays a link
    version: dict[str, str] = {}
    exec((ROOT / "knitter_common" / "version.py").read_text(), version)  # noqa: S102 a file of ours; nothing else need be installed
    source = with_constant((ROOT / "knitter_cni" / "plugin.py").read_bytes(), "VERSION", version["__version__"].encode())
    for name, path in (("SOCKET", arguments.socket), ("STATE", arguments.state)):
        if path is not None:
            source = with_path(source, name, path)
    content = executable(python, source, version["__version__"])
    try:
        install(content, arguments.destination)
    except OSError as error:
        raise SystemExit(f"{arguments.destination}: {error.strerror}") from error


if __name__ == "__main__":
    main()
