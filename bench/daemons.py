"""Start-up time and resident memory of each daemon, against `python3 -c "import grpc"`: what any gRPC daemon in Python pays."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "deploy"), str(ROOT / "bench")]

import stack as stacks  # noqa: E402
from measure import Row, paired, report  # noqa: E402

ROUNDS = 5


def import_grpc() -> float:
    """Seconds of the reference process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import grpc"], check=True)
    return time.perf_counter() - begin


def resident(stack: stacks.Stack, component: str) -> float:
    """MiB of resident memory."""
    pid = stack.pid_file(component).read_text().strip()
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> int:
    """Starts and ends a stack a few times."""
    if "KNITTER_BENCH_NETNS" not in os.environ:
        os.environ["KNITTER_BENCH_NETNS"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--", sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    starts: dict[str, list[tuple[float, float]]] = {component: [] for component in stacks.COMPONENTS}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="knitter-bench-") as home:
        stack = stacks.Stack(Path(home))
        stacks.up(stack)
        stacks.down(stack)
        for _ in range(ROUNDS):
            for component in stacks.COMPONENTS:
                reference, begin = import_grpc(), time.perf_counter()
                stacks.start(stack, component)
                starts[component].append((time.perf_counter() - begin, reference))
            memory = {component: resident(stack, component) for component in stacks.COMPONENTS}
            stacks.down(stack)
    rows = [paired(f"{name}: until it serves", pairs) for name, pairs in starts.items()]
    rows += [Row(f"{name}: resident memory", note=f"{size:.1f} MiB") for name, size in memory.items()]
    report("Daemons: start-up against `import grpc`, memory", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
