"""Opening a sandbox's namespace: what is one, what is not, and who it is."""

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.netns import entered, inside, network_namespace

from knitter_agent.netlink import Kernel, Namespace, cookie_of, wire
from knitter_common.errors import Internal, Invalid, NotFound, Unavailable

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")


@pytest.fixture
def sandbox() -> Iterator[str]:
    with network_namespace("pod") as path:
        yield path


def test_it_is_known_by_its_cookie(sandbox: str) -> None:
    with network_namespace("other") as other, Namespace(sandbox) as first, Namespace(sandbox) as again, Namespace(other) as second:
        assert first.cookie == again.cookie == cookie_of(sandbox)
        assert first.cookie != second.cookie


def test_a_reused_path_is_another_namespace(tmp_path: Path) -> None:
    path = tmp_path / "netns"
    cookies = []
    for _ in range(2):
        with network_namespace("pod") as made:
            path.symlink_to(made)
            cookies.append(cookie_of(str(path)))
            path.unlink()
    assert None not in cookies
    assert cookies[0] != cookies[1]


def test_a_process_names_its_namespace(sandbox: str) -> None:
    """Docker's way: /proc/<pid>/ns/net."""
    process = subprocess.Popen(["nsenter", f"--net={sandbox}", "sleep", "60"])
    try:
        while cookie_of(f"/proc/{process.pid}/ns/net") is None:
            assert process.poll() is None
        assert cookie_of(f"/proc/{process.pid}/ns/net") == cookie_of(sandbox)
    finally:
        process.kill()
        process.wait()
    assert cookie_of(f"/proc/{process.pid}/ns/net") is None


def test_its_socket_is_inside(sandbox: str) -> None:
    with Namespace(sandbox) as opened:
        links = [wire.parse_link(body).name for body in opened.talk.dump(wire.dump_ports(0))]
    assert links == ["lo"]


def test_its_work_is_done_inside(sandbox: str) -> None:
    with Namespace(sandbox) as opened:
        assert opened.run(lambda: [name for _, name in socket.if_nameindex()]) == ["lo"]
        with pytest.raises(ZeroDivisionError):
            opened.run(lambda: 1 // 0)


def test_whoever_works_inside_comes_back(sandbox: str) -> None:
    """The thread that wires pods is in the node's namespace before and after, whatever came of the work."""
    before = _own_cookie()
    with Namespace(sandbox) as opened:
        assert opened.run(_own_cookie) == opened.cookie != before
        assert _own_cookie() == before
        with pytest.raises(ZeroDivisionError):
            opened.run(lambda: 1 // 0)
    assert _own_cookie() == before


def test_a_thread_that_cannot_come_back_ends_the_process(sandbox: str) -> None:
    """It would wire the node's links in the pod from then on."""
    program = (
        "import os, sys\n"
        "from knitter_agent.netlink import Namespace\n"
        "with Namespace(sys.argv[1]) as opened:\n"
        "    opened.run(lambda: os.setuid(65534))\n"
        "print('still here')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, sandbox], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGABRT, ended.stderr
    assert "cannot be entered again" in ended.stdout
    assert "still here" not in ended.stdout


@pytest.mark.parametrize("path", ["/run/netns/knitter-no-such", "/proc/4194999/ns/net", "/etc/hostname/net"])
def test_a_missing_one_is_told(path: str) -> None:
    with pytest.raises(NotFound) as missing:
        Namespace(path)
    assert missing.value.reason == "CNI_CONTAINER_UNKNOWN"
    assert path in missing.value.message
    assert cookie_of(path) is None


def test_what_is_no_network_namespace_is_told(tmp_path: Path) -> None:
    plain, fifo = tmp_path / "plain", tmp_path / "fifo"
    plain.touch()
    os.mkfifo(fifo)
    for path in (str(plain), str(fifo), str(tmp_path), "/proc/self/ns/mnt", "/dev/null", "a\0b", ""):
        with pytest.raises((Invalid, NotFound)) as wrong:
            Namespace(path)
        assert wrong.value.reason == ("CNI_CONTAINER_UNKNOWN" if not path else "CNI_ENVIRONMENT_INVALID")
        assert repr(path) in wrong.value.message
        assert cookie_of(path) is None


def test_the_nodes_own_namespace_is_refused(sandbox: str) -> None:
    with pytest.raises(Invalid, match="the node's own network namespace"):
        Namespace("/proc/thread-self/ns/net")
    with entered(sandbox), pytest.raises(Invalid, match="the node's own network namespace"):
        Namespace(sandbox)


def test_a_lack_of_descriptors_is_not_taken_for_a_dead_sandbox(sandbox: str) -> None:
    with Namespace(sandbox):
        pass  # what is imported on first use is there
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    hoard = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
    try:
        while True:
            try:
                hoard.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        for _ in range(min(3, len(hoard))):  # it takes three: the sandbox's, the way back, a socket
            with pytest.raises((Unavailable, Internal, OSError)):
                cookie_of(sandbox)
            os.close(hoard.pop())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in hoard:
            os.close(fd)
    assert cookie_of(sandbox) is not None


def test_a_kernel_stays_where_it_was_made(sandbox: str) -> None:
    with network_namespace("node") as node:
        with entered(node):
            kernel = Kernel()
        with kernel:
            assert kernel.talk.cookie() == inside(node, lambda: _own_cookie()) != cookie_of(sandbox)


def test_closing_twice_is_harmless(sandbox: str) -> None:
    opened = Namespace(sandbox)
    opened.close()
    opened.close()
    kernel = Kernel()
    kernel.close()
    kernel.close()


def _own_cookie() -> int:
    with Kernel() as kernel:
        return kernel.talk.cookie()
