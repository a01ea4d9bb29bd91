"""Private etcd clusters on loopback, for tests: processes of their own, ended by their pid; they die with the test process.

    with Cluster(tmp_path, size=3) as cluster:
        cluster.endpoints
        cluster.kill(0); cluster.start(0); cluster.pause(1); cluster.resume(1)

`shared()` is one member that all tests of a run use, each below a prefix of its own.
"""

import asyncio
import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest


def why_not() -> str:
    """Why there can be no etcd here; "" where it can be."""
    missing = [name for name in ("etcd", "setpriv") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)} (apt-get install etcd-server util-linux)" if missing else ""


class Cluster:
    """`size` members with their data below `folder`. `tls`: a folder with ca.pem, cert.pem and key.pem for the clients' side;
    `mutual`: those must show certificates too. `quota`: bytes of a member's database, 0 for etcd's own limit."""

    def __init__(
        self, folder: Path, size: int = 1, tls: Path | None = None, mutual: bool = True, election_ms: int = 500, quota: int = 0
    ) -> None:
        if reason := why_not():
            pytest.skip(reason)
        self._folder, self._tls, self._mutual, self._election_ms, self._quota = folder, tls, mutual, election_ms, quota
        folder.mkdir(parents=True, exist_ok=True)
        ports = _free_ports(2 * size)
        self._client_ports, self._peer_ports = ports[:size], ports[size:]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        waiting = [self._launch(number, "new") for number in range(size)]
        for number, ready in enumerate(waiting):
            self._await(number, ready)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where clients connect."""
        return tuple(f"127.0.0.1:{port}" for port in self._client_ports)

    def start(self, number: int) -> None:
        """Starts a member again, with the data it had, and waits until it serves."""
        self._await(number, self._launch(number, "existing"))

    async def start_soon(self, *numbers: int) -> None:
        """As `start`, several at once, while the event loop goes on.

        Never start one from another thread: it dies with the thread that made it, which may be before the test's end.
        """
        waiting = [(number, self._launch(number, "existing")) for number in numbers]
        await asyncio.gather(*(asyncio.to_thread(self._await, number, ready) for number, ready in waiting))

    def kill(self, number: int) -> None:
        """SIGKILL."""
        process = self._processes.pop(number)
        process.kill()
        process.wait()

    def save(self, number: int, folder: Path) -> None:
        """Copies the data of a member that does not run."""
        shutil.copytree(self._folder / f"m{number}", folder)

    def put_back(self, number: int, folder: Path) -> None:
        """The data of a member that does not run is what was saved; of one that is alone that is the store going back in time."""
        shutil.rmtree(self._folder / f"m{number}")
        shutil.copytree(folder, self._folder / f"m{number}")

    def pause(self, number: int) -> None:
        """SIGSTOP: connected, and silent."""
        self._processes[number].send_signal(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """SIGCONT."""
        self._processes[number].send_signal(signal.SIGCONT)

    def leader(self) -> int:
        """The number of the member that leads."""
        for number in self._processes:
            fields = self._status(number)
            if fields['"MemberID"'] == fields['"Leader"']:
                return number
        raise AssertionError("no member leads")

    def id_of(self, number: int) -> str:
        """The member's id as etcdctl takes it."""
        return format(int(self._status(number)['"MemberID"']), "x")

    def _status(self, number: int) -> dict[str, str]:
        told = self.ctl("endpoint", "status", "-w", "fields", endpoint=self.endpoints[number])
        return dict(line.split(" : ", 1) for line in told.splitlines() if " : " in line)

    def ctl(self, *arguments: str, endpoint: str = "") -> str:
        """What etcdctl says. Skips where it is not installed."""
        if shutil.which("etcdctl") is None:
            pytest.skip("not installed: etcdctl (apt-get install etcd-client)")
        command = ["etcdctl", "--endpoints", endpoint or ",".join(self.endpoints), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "ETCDCTL_API": "3"}).stdout

    def close(self) -> None:
        """Ends all members."""
        for number in list(self._processes):
            self.kill(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _launch(self, number: int, state: str) -> socket.socket:
        client = f"{'https' if self._tls else 'http'}://127.0.0.1:{self._client_ports[number]}"
        peers = [f"http://127.0.0.1:{port}" for port in self._peer_ports]
        command = ["setpriv", "--pdeathsig", "KILL", "etcd", "--name", f"m{number}", "--data-dir", str(self._folder / f"m{number}")]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peers[number], "--initial-advertise-peer-urls", peers[number]]
        command += ["--initial-cluster", ",".join(f"m{index}={peer}" for index, peer in enumerate(peers))]
        command += ["--initial-cluster-state", state, "--heartbeat-interval", "50", "--election-timeout", str(self._election_ms)]
        command += ["--logger", "zap", "--log-level", "warn", "--strict-reconfig-check"]
        if self._quota:
            command += ["--quota-backend-bytes", str(self._quota)]
        if self._tls:
            command += ["--cert-file", str(self._tls / "cert.pem"), "--key-file", str(self._tls / "key.pem")]
            if self._mutual:
                command += ["--client-cert-auth", "--trusted-ca-file", str(self._tls / "ca.pem")]
        ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # systemd's protocol: READY=1 when it serves
        ready.bind(b"\0knitter-test-etcd-%d-%d-%d" % (os.getpid(), self._client_ports[number], number))
        ready.settimeout(30)
        name = ready.getsockname()
        address = "@" + name[1:].decode()
        with (self._folder / f"m{number}.log").open("ab") as log:
            environment = {**os.environ, "NOTIFY_SOCKET": address, "ETCD_UNSUPPORTED_ARCH": os.uname().machine}
            self._processes[number] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        return ready

    def _await(self, number: int, ready: socket.socket) -> None:
        with contextlib.closing(ready):
            try:
                while b"READY=1" not in ready.recv(4096):
                    pass
            except TimeoutError:
                log = (self._folder / f"m{number}.log").read_text(errors="replace")
                self.close()
                raise AssertionError(f"etcd member {number} does not serve:\n{log[-3000:]}") from None


@functools.cache
def shared() -> Cluster:
    """One member for the whole run."""
    if reason := why_not():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="knitter-etcd-"))
    cluster = Cluster(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(cluster.close)
    return cluster


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
