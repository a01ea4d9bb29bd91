"""Whole CNI calls as a runtime makes them, against the reference plugins `bridge` + `host-local` for the same interfaces.

One ADD and one DEL; one pod with three interfaces; 30 pods at once. Both sides start a process per call, alternating. It runs in a
network namespace of its own, with a stack of its own on the embedded store. Needs root and Debian's containernetworking-plugins.
"""

import json
import os
import subprocess
import sys
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "deploy"), str(ROOT / "bench")]

import stack as stacks  # noqa: E402
from measure import Row, paired, report, timed  # noqa: E402

REFERENCE = Path("/usr/lib/cni")
SINGLE_ROUNDS = 40
TRIPLE_ROUNDS = 20
BURST_ROUNDS = 5
BURST = 30
NETWORKS = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: n%(n)d, namespace: admin}
spec: {type: bridge, subnets: [{cidr: 10.201.%(n)d.0/24, gateway: 10.201.%(n)d.1}]}
"""


class Caller:
    """Calls plugins as a container runtime does: environment, standard input, exit code."""

    def __init__(self, plugin: Path, ours: bool) -> None:
        self.plugin, self.ours = plugin, ours

    def config(self, index: int) -> dict[str, Any]:
        """The network configuration for interface number `index`, with an annotation-like list for ours."""
        if self.ours:
            return {"cniVersion": "1.0.0", "name": "bench", "type": "knitter-cni", "defaultNetwork": f"admin/n{index}"}
        subnet = f"10.202.{index}.0/24"
        routes = [{"dst": "0.0.0.0/0"}] if index == 0 else []
        ipam = {"type": "host-local", "subnet": subnet, "dataDir": DATA_DIR, "routes": routes}
        name = f"ref{index}"
        return {"cniVersion": "1.0.0", "name": name, "type": "bridge", "bridge": name, "isGateway": True, "ipam": ipam}

    def triple(self) -> dict[str, Any]:
        """Ours: one call for three interfaces."""
        ports = [{"attach_to_network": f"n{index}", "attributes": {"nic_name": f"eth{index}"}} for index in range(3)]
        return {**self.config(0), "networks": {"ports": ports}}

    def call(self, verb: str, container: str, netns: str, ifname: str, config: dict[str, Any]) -> None:
        """One process. Raises RuntimeError with the plugin's words."""
        environment = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": ifname,
            "CNI_PATH": str(REFERENCE), "PATH": os.environ["PATH"],
        }  # fmt: skip
        done = subprocess.run([self.plugin], input=json.dumps(config).encode(), env=environment, capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{self.plugin.name} {verb}: {done.stdout.decode()} {done.stderr.decode()}")


def make_netns(name: str) -> str:
    """A named network namespace; returns its path."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    return f"/run/netns/{name}"


def single(ours: Caller, reference: Caller, spaces: list[str]) -> list[Row]:
    """One interface, one call at a time."""
    adds, deletes = [], []
    for turn in range(SINGLE_ROUNDS + 3):
        figures = {}
        for caller in (ours, reference) if turn % 2 else (reference, ours):
            container, config = uuid.uuid4().hex, caller.config(0)
            figures["add", caller.ours] = timed(lambda: caller.call("ADD", container, spaces[0], "eth0", config))  # noqa: B023
            figures["del", caller.ours] = timed(lambda: caller.call("DEL", container, spaces[0], "eth0", config))  # noqa: B023
        if turn >= 3:
            adds.append((figures["add", True], figures["add", False]))
            deletes.append((figures["del", True], figures["del", False]))
    return [paired("one ADD", adds, aim=1.4), paired("one DEL", deletes, aim=0.6)]


def triple(ours: Caller, reference: Caller, spaces: list[str]) -> list[Row]:
    """A pod with three interfaces: one call of ours, three of the reference's."""
    adds, deletes = [], []
    for turn in range(TRIPLE_ROUNDS + 2):
        mine, theirs, config = uuid.uuid4().hex, uuid.uuid4().hex, ours.triple()

        def reference_all(verb: str, container: str = theirs) -> None:
            for index in range(3):
                reference.call(verb, container, spaces[1], f"eth{index}", reference.config(index))

        add = timed(lambda: ours.call("ADD", mine, spaces[0], "eth0", config)), timed(lambda: reference_all("ADD"))  # noqa: B023
        gone = timed(lambda: ours.call("DEL", mine, spaces[0], "eth0", config)), timed(lambda: reference_all("DEL"))  # noqa: B023
        if turn >= 2:
            adds.append(add)
            deletes.append(gone)
    return [paired("three interfaces, ADD", adds, aim=0.7), paired("three interfaces, DEL", deletes)]


def burst(ours: Caller, reference: Caller, spaces: list[str]) -> list[Row]:
    """30 pods at once, each with one interface."""
    adds, deletes = [], []
    for turn in range(BURST_ROUNDS + 1):
        figures = {}
        for caller in (ours, reference) if turn % 2 else (reference, ours):
            containers = [uuid.uuid4().hex for _ in range(BURST)]
            for verb in ("ADD", "DEL"):

                def one(index: int, verb: str = verb, caller: Caller = caller, ids: list[str] = containers) -> None:
                    caller.call(verb, ids[index], spaces[index], "eth0", caller.config(0))

                with ThreadPoolExecutor(BURST) as pool:
                    figures[verb, caller.ours] = timed(lambda: list(pool.map(one, range(BURST))))
        if turn >= 1:
            adds.append((figures["ADD", True], figures["ADD", False]))
            deletes.append((figures["DEL", True], figures["DEL", False]))
    return [paired("30 pods at once, ADD", adds, aim=1.1), paired("30 pods at once, DEL", deletes)]


def main() -> int:
    """Sets up, measures, cleans up."""
    if not (REFERENCE / "bridge").exists():
        print(f"{REFERENCE}/bridge is not installed: apt-get install containernetworking-plugins", file=sys.stderr)
        return 1
    if "KNITTER_BENCH_NETNS" not in os.environ:
        os.environ["KNITTER_BENCH_NETNS"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--", sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    names = [f"kb{os.getpid()}-{index}" for index in range(BURST)]
    home = stacks.Stack(Path(tempfile.mkdtemp(prefix="knitter-bench-")))
    try:
        (home.home / "networks").mkdir()
        (home.home / "networks" / "bench.yaml").write_text("---".join(NETWORKS % {"n": index} for index in range(3)))
        lines = stacks.up(home)
        wait_for_networks(lines["manager"])
        spaces = [make_netns(name) for name in names]
        ours, reference = Caller(Path(lines["bin_dir"]) / "knitter-cni", True), Caller(REFERENCE / "bridge", False)
        rows = [*single(ours, reference, spaces), *triple(ours, reference, spaces), *burst(ours, reference, spaces)]
    finally:
        stacks.down(home)
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", str(home.home), DATA_DIR], check=False)
    report("CNI calls against bridge + host-local", rows)
    return 0


def wait_for_networks(manager: str) -> None:
    """Until the monitor has applied the folder."""
    command = [str(ROOT / "_output/bin/knitterctl"), "--manager", manager, "apply", "-f", "-"]
    text = "---".join(NETWORKS % {"n": index} for index in range(3))
    subprocess.run(command, input=text.encode(), check=False, capture_output=True)


DATA_DIR = f"/tmp/knitter-bench-host-local-{os.getpid()}"

if __name__ == "__main__":
    sys.exit(main())
