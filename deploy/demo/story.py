"""The demo: Knitter's main job on this machine, told step by step, with real daemons, real sandboxes and real packets.

Run by `./build.sh demo` in a network namespace of its own, which plays the node. Exits 1 if any step failed; the last lines sum up.
"""

import contextlib
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "deploy"), str(ROOT / "tests")]

import stack as stacks  # noqa: E402
from harness.netns import bring_up_loopback, network_namespace, ping  # noqa: E402

SANDBOXES = 4
NETWORKS = ("control", "media", "oam")
ANNOTATION = json.dumps(
    {
        "ports": [
            {"attach_to_network": name, "attributes": {"nic_name": f"eth{index}", "function": name}}
            for index, name in enumerate(NETWORKS)
        ]
    }
)
CONFIG = {
    "cniVersion": "1.0.0",
    "name": "knitter",
    "type": "knitter-cni",
    "runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"networks": ANNOTATION}},
}


@dataclass
class Sandbox:
    """One sandbox: its container id, its network namespace, and what the plugin and the manager gave it."""

    number: int
    netns: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    addresses: dict[str, list[str]] = field(default_factory=dict)  # interface → addresses


@dataclass
class Tally:
    """What was done; anything in `failures` makes the exit code 1."""

    interfaces: int = 0
    pings: int = 0
    failures: list[str] = field(default_factory=list)


class Demo:
    """The steps."""

    def __init__(self, stack: stacks.Stack) -> None:
        self.stack = stack
        self.lines: dict[str, str] = {}
        self.tally = Tally()

    def run(self) -> None:
        """All of it, in order."""
        begin = time.monotonic()
        step("Starting manager, monitor and agent on the embedded store")
        self.lines = stacks.up(self.stack)
        for key in ("manager", "monitor", "agent"):
            print(f"    {key:<8} {self.lines[key]}")
        links = interfaces()

        step("Three networks, written as YAML")
        self.ctl("apply", "-f", str(ROOT / "deploy" / "demo" / "networks.yaml"))
        self.ctl("get", "networks", "-n", "demo")

        step(f"{SANDBOXES} sandboxes, each asking for three interfaces in one annotation")
        print(f"    networks: {ANNOTATION}\n")
        with contextlib.ExitStack() as namespaces:
            sandboxes = [Sandbox(number, namespaces.enter_context(network_namespace("demo"))) for number in range(SANDBOXES)]
            self.attach(sandboxes)
            self.pings(sandboxes)
            step("Who holds what: knitterctl get portsets")
            self.ctl("get", "portsets", "-n", "demo")
            self.detach(sandboxes)
            self.nothing_left(links)
        self.summary(time.monotonic() - begin)

    def attach(self, sandboxes: list[Sandbox]) -> None:
        """CNI ADD for each."""
        for sandbox in sandboxes:
            begin = time.perf_counter()
            result = self.plugin("ADD", sandbox)
            spent = (time.perf_counter() - begin) * 1000
            primary = ", ".join(entry["address"] for entry in result["ips"])
            print(f"    sandbox {sandbox.number}: ADD took {spent:.0f} ms; the CNI result says eth0 has {primary}")
        for found in self.ctl_json("get", "portsets", "-n", "demo", "-o", "json")["items"]:
            for sandbox in sandboxes:
                if sandbox.id in json.dumps(found):
                    self.learn(sandbox, found)

    def learn(self, sandbox: Sandbox, found: dict[str, Any]) -> None:
        """Takes the planned addresses of one set."""
        for port in found["status"]["ports"]:
            addresses = [entry["cidr"].split("/")[0] for entry in port["addresses"]]
            sandbox.addresses[port["interface"]] = addresses
            self.tally.interfaces += 1

    def pings(self, sandboxes: list[Sandbox]) -> None:
        """Everybody pings the next one on every network and in every family."""
        step("Pings between neighbours, on every network and in both families")
        for index, name in enumerate(NETWORKS):
            for sandbox in sandboxes:
                peer = sandboxes[(sandbox.number + 1) % len(sandboxes)]
                for address in peer.addresses.get(f"eth{index}", []):
                    self.ping(sandbox, peer, name, address)
        if not self.tally.pings:
            self.tally.failures.append("no ping was made")

    def ping(self, sandbox: Sandbox, peer: Sandbox, network: str, address: str) -> None:
        """One ping."""
        family = f"IPv{ipaddress.ip_address(address).version}"
        try:
            spent = ping(sandbox.netns, address)
        except OSError as error:
            self.tally.failures.append(f"sandbox {sandbox.number} cannot reach {address} on {network}: {error}")
            print(f"    {network:<8} {family}  {sandbox.number} → {peer.number}  {address:<20} NO ANSWER")
            return
        self.tally.pings += 1
        print(f"    {network:<8} {family}  {sandbox.number} → {peer.number}  {address:<20} {spent:.2f} ms")

    def detach(self, sandboxes: list[Sandbox]) -> None:
        """CNI DEL for each, and a GC, which waits until everything is undone."""
        step("Deleting the sandboxes")
        for sandbox in sandboxes:
            begin = time.perf_counter()
            self.plugin("DEL", sandbox)
            print(f"    sandbox {sandbox.number}: DEL took {(time.perf_counter() - begin) * 1000:.0f} ms")
        self.plugin("GC", None)

    def nothing_left(self, links: set[str]) -> None:
        """No link, no address, no journal row."""
        step("What is left")
        left_links = sorted(interfaces() - links)
        sets = self.ctl_json("get", "portsets", "-n", "demo", "-o", "json")["items"]
        rows = self.ctl_json("attachments", "--agent", f"unix:{self.lines['agent']}", "-o", "json")["items"]
        for what, left in (("links on the node", left_links), ("held addresses", sets), ("journal rows", rows)):
            print(f"    {what:<18} {len(left)}")
            if left:
                self.tally.failures.append(f"{what} left: {left}")

    def summary(self, seconds: float) -> None:
        """The last lines."""
        expected = SANDBOXES * len(NETWORKS)
        if self.tally.interfaces != expected:
            self.tally.failures.append(f"{self.tally.interfaces} interfaces instead of {expected}")
        print(f"\n{'FAILED' if self.tally.failures else 'Done'}, in {seconds:.1f} s")
        for failure in self.tally.failures:
            print(f"    {failure}")
        counts = f"sandboxes={SANDBOXES} interfaces={self.tally.interfaces} pings={self.tally.pings}"
        print(f"{counts} failed={len(self.tally.failures)}")

    def plugin(self, verb: str, sandbox: Sandbox | None) -> dict[str, Any]:
        """One call of the plugin, as a runtime makes it. Raises SystemExit with the plugin's error."""
        environment = {"CNI_COMMAND": verb, "CNI_PATH": self.lines["bin_dir"], "PATH": os.environ["PATH"]}
        config: dict[str, Any] = {**CONFIG, "cniVersion": "1.1.0", "cni.dev/valid-attachments": []} if sandbox is None else CONFIG
        if sandbox is not None:
            environment |= {
                "CNI_CONTAINERID": sandbox.id, "CNI_NETNS": sandbox.netns, "CNI_IFNAME": "eth0",
                "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME=sandbox-{sandbox.number}",
            }  # fmt: skip
        binary = Path(self.lines["bin_dir"]) / "knitter-cni"
        done = subprocess.run([binary], input=json.dumps(config).encode(), env=environment, capture_output=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"knitter-cni {verb} failed: {done.stdout.decode()}{done.stderr.decode()}{self.agent_log()}")
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def agent_log(self) -> str:
        """The end of the agent's log."""
        return "\n" + self.stack.log("knitter-agent").read_text(errors="replace")[-3000:]

    def ctl(self, *arguments: str) -> None:
        """knitterctl, shown with what it says."""
        print(f"    $ knitterctl {' '.join(arguments).replace(str(ROOT) + '/', '')}")
        print("".join(f"    {line}\n" for line in self._ctl(*arguments).splitlines()), end="")

    def ctl_json(self, *arguments: str) -> dict[str, Any]:
        """knitterctl, for the program."""
        return dict(json.loads(self._ctl(*arguments)))

    def _ctl(self, *arguments: str) -> str:
        command = [ROOT / "_output" / "bin" / "knitterctl", "--manager", self.lines["manager"], *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"knitterctl {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
        return done.stdout


def step(title: str) -> None:
    """A heading of the story."""
    print(f"\n── {title}")


def interfaces() -> set[str]:
    """The links of the node."""
    return {name for _, name in socket.if_nameindex()}


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """A directory for the stack, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="knitter-demo-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def main() -> int:
    """Runs the story; whatever happens, ends what it started."""
    bring_up_loopback()
    with home() as directory:
        demo = Demo(stacks.Stack(directory))
        try:
            demo.run()
        finally:
            stacks.down(demo.stack)
        return 1 if demo.tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
