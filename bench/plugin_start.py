"""The plugin alone against an empty interpreter: what one call of the runtime costs before the agent does anything.

Each round starts, one after the other, an empty `python -IS` and the plugin, which asks a peer that answers at once. Told are the
medians and the ratio to the empty interpreter of the same round, so that a machine that slows down meanwhile slows both.

    python bench/plugin_start.py [--json] [--rounds N]
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from running import interpreter_of

ROOT = Path(__file__).resolve().parent.parent
STDIN = b'{"cniVersion":"1.0.0","name":"knitter","type":"knitter-cni"}'
ENVIRONMENT = {"CNI_CONTAINERID": "bench", "CNI_NETNS": "/run/netns/bench", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def canned_reply() -> bytes:
    """SETTINGS, headers, an answer of about 100 octets, and trailers."""
    stdout = b'{"cniVersion":"1.0.0"}' + b" " * 78
    answer = b"\x0a" + bytes((len(stdout),)) + stdout
    body = b"\x0a" + bytes((len(answer),)) + answer
    message = b"\0" + len(body).to_bytes(4, "big") + body
    trailers = b"\x00\x0bgrpc-status\x010"
    return frame(4, 0, 0, b"") + frame(1, 4, 1, b"\x88") + frame(0, 0, 1, message) + frame(1, 5, 1, trailers)


def serve(listener: socket.socket) -> None:
    """Answers every connection at its first octets."""
    reply = canned_reply()
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer:
            peer.recv(65536)
            peer.sendall(reply)
            while peer.recv(65536):
                pass


def once(argv: list[str], environment: dict[str, str]) -> float:
    """Seconds from the start of a process to its end, its standard output read."""
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()
    os.write(write_in, STDIN)
    os.close(write_in)
    begin = time.perf_counter()
    actions = [(os.POSIX_SPAWN_DUP2, read_in, 0), (os.POSIX_SPAWN_DUP2, write_out, 1)]
    pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
    os.close(read_in)
    os.close(write_out)
    while os.read(read_out, 65536):
        pass
    os.close(read_out)
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - begin
    if status != 0:
        raise SystemExit(f"{argv[0]} {environment.get('CNI_COMMAND', '')} ended with {os.waitstatus_to_exitcode(status)}")
    return seconds


def measure(rounds: int) -> list[dict[str, object]]:
    """Rows: what, median milliseconds, and the median of its ratio to the empty interpreter with the middle half's bounds."""
    with tempfile.TemporaryDirectory(prefix="kn-bench-") as directory, socket.socket(socket.AF_UNIX) as listener:
        path = Path(directory) / "knitter-cni"
        subprocess.run([sys.executable, str(ROOT / "deploy" / "install_plugin.py"), str(path)], check=True)
        python = interpreter_of(path)
        listener.bind(f"{directory}/agent.sock")
        listener.listen(16)
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        common = {**ENVIRONMENT, "KNITTER_STATE": directory}
        here, away = {**common, "KNITTER_SOCKET": f"{directory}/agent.sock"}, {**common, "KNITTER_SOCKET": f"{directory}/none"}
        cases: dict[str, tuple[list[str], dict[str, str]]] = {
            "empty python -IS": ([python, "-IS", "-c", "pass"], common),
            "ADD": ([str(path)], {**here, "CNI_COMMAND": "ADD"}),
            "STATUS": ([str(path)], {**here, "CNI_COMMAND": "STATUS"}),
            "DEL, agent away": ([str(path)], {**away, "CNI_COMMAND": "DEL"}),
            "source, not compiled": ([python, "-IS", str(ROOT / "knitter_cni" / "plugin.py")], {**here, "CNI_COMMAND": "ADD"}),
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, (argv, environment) in cases.items():
                times[name].append(once(argv, environment))
    empty = times["empty python -IS"]
    return [row(name, spent, empty) for name, spent in times.items()]


def row(name: str, spent: list[float], empty: list[float]) -> dict[str, object]:
    """One case's figures."""
    ratios = sorted(mine / base for mine, base in zip(spent, empty, strict=True))
    quarter = len(ratios) // 4
    return {
        "what": name,
        "ours_ms": round(statistics.median(spent) * 1000, 2),
        "reference_ms": round(statistics.median(empty) * 1000, 2),
        "ratio": round(statistics.median(ratios), 3),
        "low": round(ratios[quarter], 3),
        "high": round(ratios[-1 - quarter], 3),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Times the plugin against an empty interpreter.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--rounds", type=int, default=100, help="starts of each case")
    arguments = parser.parse_args()
    rows = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps({"name": "plugin_start", "rows": rows}))
        return
    print(f"{'case':24} {'median':>10} {'ratio':>7}   middle half")
    for told in rows:
        print(f"{told['what']:24} {told['ours_ms']:>7} ms {told['ratio']:>7}   {told['low']} … {told['high']}")


if __name__ == "__main__":
    main()
