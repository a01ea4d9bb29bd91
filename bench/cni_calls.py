"""Whole CNI calls as a runtime makes them, against the reference plugins `bridge` + `host-local` for the same interfaces.

One ADD and one DEL; one pod with three interfaces; 30 pods at once, on a node with next to no pods and beside 100 others; the first
pod of a network. Both sides start a process per call. Two rows tell how much of an ADD is gone before the plugin's first line: an
interpreter that ends at once, in its place. What makes the two sides comparable:

- A pod has a network namespace of its own: each call gets one in which nothing was before.
- The node has a pod of each network already, on both sides, so that no side makes a bridge while it is timed (`first pod` does).
- A burst's namespaces are taken apart before the next one, and those of the rows before it as well: what the reference takes grows
  with the namespaces and pods of the node.
- The sides take turns, the order changes from turn to turn, and a turn begins only when the machine has nothing to do any more for
  the one before: our DEL is answered when it is durable and carried out right after, the reference's before it answers.

It runs in a network namespace of its own, with a stack of its own on the embedded store. Needs root and Debian's
containernetworking-plugins.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "deploy"), str(ROOT / "bench")]

import stack as stacks  # noqa: E402
from measure import Row, paired, report, timed  # noqa: E402
from running import interpreter_of  # noqa: E402

REFERENCE = Path("/usr/lib/cni")
DATA_DIR = f"/tmp/knitter-bench-host-local-{os.getpid()}"
SINGLE_ROUNDS = 60
TRIPLE_ROUNDS = 30
FIRST_ROUNDS = 15
BURST_ROUNDS = 15
BURST = 30
BESIDE = 100  # pods: a kubelet takes 110 unless it is told otherwise
PAUSE_SECONDS = 0.05
SETTLE_SECONDS = 10  # the last undo is over long before
NETWORKS = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: n%(n)d, namespace: admin}
spec: {type: bridge, subnets: [{cidr: 10.201.%(n)d.0/24, gateway: 10.201.%(n)d.1}]}
"""

Calls = tuple[float, float]


@dataclass
class Spaces:
    """Network namespaces by path; `fresh` gives one that was never used."""

    made: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def fresh(self) -> str:
        """The path of a new one."""
        name = f"kb{os.getpid()}-{next(self._numbers)}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.made.append(f"/run/netns/{name}")
        return self.made[-1]

    def remove(self, but: Sequence[str] = ()) -> None:
        """Removes all but these; returns when the kernel has taken them apart."""
        gone = [path for path in self.made if path not in but]
        self.made = list(but)
        for path in gone:
            subprocess.run(["ip", "netns", "delete", Path(path).name], check=False, capture_output=True)
        end = time.monotonic() + SETTLE_SECONDS
        while len(subprocess.run(["ip", "netns", "list-id"], check=True, capture_output=True).stdout.splitlines()) > len(but):
            if time.monotonic() > end:
                raise RuntimeError(f"network namespaces were not taken apart within {SETTLE_SECONDS} s")
            time.sleep(0.02)


@dataclass
class Pod:
    """One sandbox and its interfaces: each is one call with its configuration."""

    netns: str
    calls: Sequence[tuple[str, dict[str, Any]]]
    container: str = field(default_factory=lambda: uuid.uuid4().hex)


class Side:
    """Calls one side's plugin as a container runtime does: environment, standard input, exit code."""

    def __init__(self, plugin: Path) -> None:
        self.plugin = plugin
        self.command = [str(plugin)]

    def carry_out(self, verb: str, pod: Pod) -> None:
        """One process per interface, one after the other. Raises RuntimeError with the plugin's words."""
        for interface, config in pod.calls:
            environment = {
                "CNI_COMMAND": verb, "CNI_CONTAINERID": pod.container, "CNI_NETNS": pod.netns, "CNI_IFNAME": interface,
                "CNI_PATH": str(REFERENCE), "PATH": os.environ["PATH"],
            }  # fmt: skip
            text = json.dumps(config).encode()
            done = subprocess.run(self.command, input=text, env=environment, capture_output=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{self.plugin.name} {verb}: {done.stdout.decode()} {done.stderr.decode()}")

    def single(self, netns: str, network: int = 0) -> Pod:
        """A pod with one interface."""
        raise NotImplementedError

    def triple(self, netns: str) -> Pod:
        """A pod with three interfaces, on three networks."""
        raise NotImplementedError


class Ours(Side):
    """Knitter: one call, however many interfaces."""

    def config(self, network: int) -> dict[str, Any]:
        """The network configuration with one network as the primary's."""
        return {"cniVersion": "1.0.0", "name": "bench", "type": "knitter-cni", "defaultNetwork": f"admin/n{network}"}

    def single(self, netns: str, network: int = 0) -> Pod:
        """See Side."""
        return Pod(netns, [("eth0", self.config(network))])

    def triple(self, netns: str) -> Pod:
        """See Side."""
        ports = [{"attach_to_network": f"n{index}", "attributes": {"nic_name": f"eth{index}"}} for index in range(3)]
        return Pod(netns, [("eth0", {**self.config(0), "networks": {"ports": ports}})])


class Empty(Ours):
    """The plugin's interpreter, called as the plugin is, which ends at once."""

    def __init__(self, plugin: Path) -> None:
        super().__init__(plugin)
        self.command = [interpreter_of(plugin), "-IS", "-c", "import posix; posix._exit(0)"]


class Reference(Side):
    """`bridge` with `host-local`: one call per interface."""

    def config(self, network: int, routed: bool) -> dict[str, Any]:
        """The configuration of one network; the primary's has the default route."""
        routes = [{"dst": "0.0.0.0/0"}] if routed else []
        ipam = {"type": "host-local", "subnet": f"10.202.{network}.0/24", "dataDir": DATA_DIR, "routes": routes}
        name = f"ref{network}"
        return {"cniVersion": "1.0.0", "name": name, "type": "bridge", "bridge": name, "isGateway": True, "ipam": ipam}

    def single(self, netns: str, network: int = 0) -> Pod:
        """See Side."""
        return Pod(netns, [("eth0", self.config(network, True))])

    def triple(self, netns: str) -> Pod:
        """See Side."""
        return Pod(netns, [(f"eth{index}", self.config(index, index == 0)) for index in range(3)])


class Bench:
    """Both sides in turn. A row's pairs are (ours, reference) in seconds."""

    def __init__(self, ours: Side, reference: Side, spaces: Spaces, log: Path) -> None:
        self.ours, self.reference, self._spaces = ours, reference, spaces
        self._log, self._asked = log, 0

    def rows(self) -> Iterator[Row]:
        """All figures."""
        yield from self._first()
        residents = [(side, side.single(self._spaces.fresh(), index)) for side in (self.ours, self.reference) for index in range(3)]
        for side, pod in residents:
            side.carry_out("ADD", pod)
        single = [self._turn(index, lambda side: [side.single(self._spaces.fresh())]) for index in range(SINGLE_ROUNDS + 3)][3:]
        yield paired("one ADD", [add for add, _ in single], aim=1.4)
        yield paired("one DEL", [delete for _, delete in single], aim=0.6)
        triple = [self._turn(index, lambda side: [side.triple(self._spaces.fresh())]) for index in range(TRIPLE_ROUNDS + 2)][2:]
        yield paired("three interfaces, ADD", [add for add, _ in triple], aim=0.7)
        yield paired("three interfaces, DEL", [delete for _, delete in triple])
        yield self._floor(
            "one empty interpreter, for one ADD", SINGLE_ROUNDS // 2, lambda side: [side.single(self._spaces.fresh())]
        )
        yield from self._burst("30 pods at once", [pod for _, pod in residents])
        yield self._floor("30 empty interpreters at once, for 30 ADDs", BURST_ROUNDS, self._thirty)
        beside = [(side, side.single(self._spaces.fresh())) for side in (self.ours, self.reference) for _ in range(BESIDE)]
        for side, pod in beside:
            side.carry_out("ADD", pod)
        residents += beside
        yield from self._burst(f"30 pods at once beside {BESIDE}", [pod for _, pod in residents])
        for side, pod in residents:
            side.carry_out("DEL", pod)
            self._asked += side is self.ours

    def _first(self) -> Iterator[Row]:
        """The reference never removes its bridge; here it is removed, as ours is with its last pod."""
        adds = []
        for index in range(FIRST_ROUNDS + 1):
            add, _ = self._turn(index, lambda side: [side.single(self._spaces.fresh())])
            subprocess.run(["ip", "link", "delete", "ref0"], check=True)
            adds.append(add)
        yield paired("first pod of a network, ADD", adds[1:])

    def _burst(self, what: str, residents: Sequence[Pod]) -> Iterator[Row]:
        """Beside these pods, and nothing else that was on the node."""
        turns = []
        for index in range(BURST_ROUNDS + 1):
            self._spaces.remove(but=[pod.netns for pod in residents])
            turns.append(self._turn(index, self._thirty))
        yield paired(f"{what}, ADD", [add for add, _ in turns[1:]], aim=1.1)
        yield paired(f"{what}, DEL", [delete for _, delete in turns[1:]])

    def _floor(self, what: str, rounds: int, make: Callable[[Side], list[Pod]]) -> Row:
        empty = Empty(self.ours.plugin)
        pairs = []
        for index in range(rounds + 1):
            pods = {side: make(side) for side in (empty, self.reference)}
            sides = (empty, self.reference) if index % 2 else (self.reference, empty)
            spent = {side: self._all(side, "ADD", pods[side]) for side in sides}
            self._all(self.reference, "DEL", pods[self.reference])
            time.sleep(PAUSE_SECONDS)
            pairs.append((spent[empty], spent[self.reference]))
        return paired(what, pairs[1:])

    def _thirty(self, side: Side) -> list[Pod]:
        return [side.single(self._spaces.fresh()) for _ in range(BURST)]

    def _turn(self, index: int, make: Callable[[Side], list[Pod]]) -> tuple[Calls, Calls]:
        """ADD and DEL of these pods, all at once, by both sides: (ours, reference) of either verb."""
        spent: dict[tuple[str, Side], float] = {}
        pods = {side: make(side) for side in (self.ours, self.reference)}
        for side in (self.ours, self.reference) if index % 2 else (self.reference, self.ours):
            for verb in ("ADD", "DEL"):
                spent[verb, side] = self._all(side, verb, pods[side])
                self._asked += len(pods[side]) if (verb, side) == ("DEL", self.ours) else 0
                self._settle()
        return ((spent["ADD", self.ours], spent["ADD", self.reference]), (spent["DEL", self.ours], spent["DEL", self.reference]))

    def _all(self, side: Side, verb: str, pods: list[Pod]) -> float:
        if len(pods) == 1:
            return timed(lambda: side.carry_out(verb, pods[0]))
        with ThreadPoolExecutor(len(pods)) as pool:
            list(pool.map(lambda _: time.sleep(0.01), pods))  # the threads are there
            return timed(lambda: list(pool.map(lambda pod: side.carry_out(verb, pod), pods)))

    def _settle(self) -> None:
        """Until the agent's log tells as many attachments gone as DELs were asked, and a moment more."""
        end = time.monotonic() + SETTLE_SECONDS
        while self._log.read_bytes().count(b'"detached"') < self._asked:
            if time.monotonic() > end:
                raise RuntimeError(f"not all was undone after {SETTLE_SECONDS} s")
            time.sleep(0.005)
        time.sleep(0.02)


def main() -> int:
    """Sets up, measures, cleans up."""
    if not (REFERENCE / "bridge").exists():
        print(f"{REFERENCE}/bridge is not installed: apt-get install containernetworking-plugins", file=sys.stderr)
        return 1
    if "KNITTER_BENCH_NETNS" not in os.environ:
        os.environ["KNITTER_BENCH_NETNS"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--", sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    spaces, home = Spaces(), stacks.Stack(Path(tempfile.mkdtemp(prefix="knitter-bench-")))
    try:
        lines = stacks.up(home)
        apply_networks(lines["manager"])
        ours, reference = Ours(Path(lines["bin_dir"]) / "knitter-cni"), Reference(REFERENCE / "bridge")
        rows = list(Bench(ours, reference, spaces, home.log("knitter-agent")).rows())
    finally:
        stacks.down(home)
        subprocess.run(["rm", "-rf", str(home.home), DATA_DIR], check=False)
        spaces.remove()
    report("CNI calls against bridge + host-local", rows)
    return 0


def apply_networks(manager: str) -> None:
    """Makes the networks n0 to n2."""
    command = [str(ROOT / "_output/bin/knitterctl"), "--manager", manager, "apply", "-f", "-"]
    text = "---".join(NETWORKS % {"n": index} for index in range(3))
    subprocess.run(command, input=text.encode(), check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
