"""A node of a test: a network namespace with a whole stack in it (manager, monitor, agent, plugin), as `./build.sh up` makes it.

with node_up(tmp) as node:
    node.ctl("apply", "-f", "-", text=…)
    node.plugin("ADD", container, netns, "eth0", config)
    node.assert_nothing_left()
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.netns import entered, ip, network_namespace

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "deploy"))

import stack as stacks  # noqa: E402

EVENTUALLY_SECONDS = 20.0


class Node:
    """One node. `netns` is the path of its namespace, `lines` what `up` printed."""

    def __init__(self, home: Path, netns: str) -> None:
        self.stack, self.netns = stacks.Stack(home), netns
        self.lines: dict[str, str] = {}
        self.before: set[str] = set()

    def up(self) -> None:
        """Starts what does not run, inside the node's namespace."""
        try:
            with entered(self.netns):
                self.lines = stacks.up(self.stack)
        except SystemExit as error:  # meant for a shell; a test's runner would end with it
            raise AssertionError(str(error)) from error
        if not self.before:
            self.before = self.links()

    def down(self) -> None:
        """Ends the daemons gracefully."""
        stacks.down(self.stack)

    def pid(self, component: str) -> int:
        """The daemon's pid."""
        return int(self.stack.pid_file(component).read_text())

    def signal(self, component: str, number: signal.Signals) -> None:
        """Sends a daemon a signal."""
        os.kill(self.pid(component), number)

    def kill(self, component: str) -> None:
        """kill -9, and waits until it is gone."""
        descriptor = os.pidfd_open(self.pid(component))
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.waitpid(self.pid(component), 0)
        except ChildProcessError:
            pass
        finally:
            os.close(descriptor)

    def log(self, component: str) -> str:
        """What the daemon said."""
        return self.stack.log(component).read_text(encoding="utf-8", errors="replace")

    def ctl(self, *arguments: str, text: str = "", check: bool = True) -> str:
        """knitterctl; returns its standard output. Raises AssertionError when it fails and `check` is set."""
        command = [str(ROOT / "_output/bin/knitterctl"), "--manager", self.lines["manager"], *arguments]
        with entered(self.netns):
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects of `knitterctl get … -o json`."""
        return list(json.loads(self.ctl(*arguments, "-o", "json"))["items"])

    def attachments(self) -> list[dict[str, Any]]:
        """The rows of the agent's journal."""
        return self.items("attachments", "--agent", f"unix:{self.lines['agent']}")

    def plugin(
        self, verb: str, container: str, netns: str, ifname: str, config: Mapping[str, Any], args: str = "", check: bool = True
    ) -> dict[str, Any]:
        """One call of the plugin; returns what it printed. Raises AssertionError when it fails and `check` is set."""
        answer = self.doomed_plugin(verb, container, netns, ifname, config, None, args)
        assert answer is not None
        assert not check or "code" not in answer, f"{verb}: {answer}"
        return answer

    def doomed_plugin(
        self, verb: str, container: str, netns: str, ifname: str, config: Mapping[str, Any], doom: float | None, args: str = ""
    ) -> dict[str, Any] | None:
        """One call of the plugin, killed after `doom` seconds if it is not over then; what it printed, or None when it was killed.
        {} for nothing. Raises AssertionError for an exit code that does not fit what it printed."""
        environment = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": ifname,
            "CNI_PATH": "/usr/lib/cni", "CNI_ARGS": args, "PATH": os.environ["PATH"],
        }  # fmt: skip
        with subprocess.Popen(
            [f"{self.lines['bin_dir']}/knitter-cni"], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                printed, said = process.communicate(json.dumps(config).encode(), timeout=doom)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                return None
        answer = dict(json.loads(printed)) if printed.strip() else {}
        assert (process.returncode == 0) == ("code" not in answer), f"{verb} ended with {process.returncode}: {answer} {said!r}"
        return answer

    def links(self) -> set[str]:
        """The names of the node's links."""
        return {entry["ifname"] for entry in ip(self.netns, "link", "show")}

    def left(self) -> list[str]:
        """What is there beside what a fresh node has: links, journal rows, port sets."""
        return [
            *(f"link {name}" for name in sorted(self.links() - self.before)),
            *(f"journal {row}" for row in self.attachments()),
            *(f"set {row}" for row in self.items("get", "portsets", "-A")),
        ]

    def assert_nothing_left(self) -> None:
        """Nothing is left, or soon will not be: undoing follows an answered DEL."""
        eventually(lambda: not self.left(), lambda: f"left: {self.left()}\n{self.log('knitter-agent')[-3000:]}")


def eventually(holds: Callable[[], object], why: Callable[[], str] = lambda: "", seconds: float = EVENTUALLY_SECONDS) -> None:
    """Until it holds. Raises AssertionError with `why` when it does not in time."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, why()
        time.sleep(0.05)


@contextlib.contextmanager
def node_up(label: str = "node") -> Iterator[Node]:
    """A fresh node with its stack; nothing of it is left afterwards."""
    home = Path(tempfile.mkdtemp(prefix="knode-"))
    with network_namespace(label) as netns:
        node = Node(home, netns)
        try:
            node.up()
            yield node
        finally:
            node.down()
            shutil.rmtree(home, ignore_errors=True)
