"""Installs the CNI plugin: writes the one executable file DEST, and nothing else.

    install_plugin.py [--python PATH] [--socket PATH] [--state PATH] DEST

The file carries `knitter_cni/plugin.py` compiled, because Python compiles a script anew at each start, which for this one takes
longer than the call itself (docs/cni-plugin.md has the figures). Its first line names the interpreter and gives it, with `-c`, a
statement that runs the head of the file, a few lines: they connect to the agent, which has that to do meanwhile, and load the code
made by that very interpreter, or compile the source on the day on which the interpreter has been replaced by another version.

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
# The length of the file's head, which is text and ends with the loader. A runtime may start the plugin just when it is replaced by
# another release, whose head is then read by this release's first line: it never changes.
HEAD = 1024

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

FIRST_LINE = "#!{python} -IScimport sys;f=open(sys.argv[1],'rb',0);exec(f.read({head}))"
REST = """
# Knitter's CNI plugin {version} (docs/cni-plugin.md). The first line runs this head; behind it lie compiled code and source.
import posix, _socket
begun = []
if posix.environ.get(b"CNI_COMMAND", b"VERSION") != b"VERSION":
    try:
        s = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
        s.connect((posix.environ.get(b"KNITTER_SOCKET") or {socket}).removeprefix(b"unix:"))
        begun = [s]
    except OSError:
        pass
import _frozen_importlib_external as m, marshal
if m.MAGIC_NUMBER == {magic!r}:
    c = marshal.loads(f.read({code_size}))
else:
    f.seek({source_place})
    c = compile(f.read(), "knitter-cni", "exec", dont_inherit=True, optimize=2)
f.close()
exec(c)
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
    first_line = FIRST_LINE.format(python=python, head=HEAD)
    if len(first_line) > LONGEST_FIRST_LINE or any(letter.isspace() for letter in python):
        most = LONGEST_FIRST_LINE - len(first_line) + len(python)
        raise SystemExit(
            f"{python}: longer than the {most} octets that a script's first line has for it, or with white space; "
            "give another with --python, such as a link to it"
        )
    try:
        done = subprocess.run([python, "-IS", "-c", COMPILE], input=source, capture_output=True, check=True)
    except OSError as error:
        raise SystemExit(f"{python}: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{python}: cannot compile the plugin: {error.stderr.decode(errors='replace').strip()}") from error
    magic, code = done.stdout[:4], done.stdout[4:]
    socket = constant(source, "SOCKET").decode()
    rest = REST.format(version=version, socket=socket, magic=magic, code_size=len(code), source_place=HEAD + len(code))
    head = (first_line + rest).encode()
    if len(head) > HEAD:
        raise SystemExit(f"--socket {socket}: {len(head) - HEAD} octets more than the file's head has room for; give a shorter one")
    return head.ljust(HEAD, b"\n") + code + source


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


def constant(source: bytes, name: str) -> bytes:
    """What the source gives the constant `name`, as it is written there. Raises SystemExit."""
    found = re.search(rf"(?m)^{name} = (b\"[^\"]*\"|b'[^']*')".encode(), source)
    if found is None:
        raise SystemExit(f"knitter_cni/plugin.py has no line for {name}")
    return found[1]


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
