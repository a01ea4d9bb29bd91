"""Debian's containerd with private directories, driven over its CRI socket, in the network namespace of a test's node.

    with Containerd(home, conf_dir, bin_dir, netns) as runtime:
        pod = runtime.run_pod("web", annotations={"networks": …})
        runtime.exec(pod, "ip", "-o", "addr")
        runtime.remove_pod(pod)

It needs root, containerd and runc; `missing()` says what this machine lacks. The image is made by hand from busybox-static.
"""

import functools
import hashlib
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

IMAGE = "docker.io/library/knitter-busybox:1"
BUSYBOX_COMMANDS = ("sh", "sleep", "ping", "ping6", "ip", "cat")


def missing() -> str:
    """What this machine lacks for these tests; empty when nothing."""
    if os.geteuid() != 0:
        return "root is needed"
    absent = [name for name in ("containerd", "runc", "ctr", "busybox", "unshare", "nsenter") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


@functools.cache
def _cri() -> tuple[Any, Any]:
    """The generated modules of cri.proto: messages and stubs."""
    out = Path(tempfile.mkdtemp(prefix="knitter-cri-"))
    here = Path(__file__).parent
    outputs = [f"--python_out={out}", f"--grpc_python_out={out}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{here}", *outputs, "cri.proto"]
    subprocess.run(command, check=True, cwd=here)
    sys.path.insert(0, str(out))
    try:
        return importlib.import_module("cri_pb2"), importlib.import_module("cri_pb2_grpc")
    finally:
        sys.path.remove(str(out))
        shutil.rmtree(out)


def image_archive(busybox: Path) -> bytes:
    """A docker-archive (`docker save`) with one layer: busybox and its links."""
    layer = _tar({"bin/busybox": (busybox.read_bytes(), 0o755)}, {f"bin/{name}": "busybox" for name in BUSYBOX_COMMANDS})
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "86400"], "Entrypoint": None},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]).encode()
    return _tar({"manifest.json": (manifest, 0o644), "config.json": (config, 0o644), "layer.tar": (layer, 0o644)}, {})


def _tar(files: Mapping[str, tuple[bytes, int]], links: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, (data, mode) in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


@dataclass(frozen=True)
class Pod:
    """A running pod sandbox and, once made, its container."""

    id: str
    name: str
    namespace: str
    config: Any
    container: str = ""


class Containerd:
    """One containerd. `home` must be short (unix sockets); `netns` is a path the daemon enters, "" for the caller's own."""

    def __init__(self, home: Path, conf_dir: Path, bin_dir: Path, netns: str = "") -> None:
        self.home, self.conf_dir, self.bin_dir, self.netns = home, conf_dir, bin_dir, netns
        self.socket = home / "c.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None
        self._messages, self._stubs = _cri()
        home.mkdir(parents=True, exist_ok=True)
        (home / "config.toml").write_text(self._config(), encoding="utf-8")

    def _config(self) -> str:
        return f"""
version = 2
root = "{self.home}/root"
state = "{self.home}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{self.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{self.bin_dir}"
    conf_dir = "{self.conf_dir}"
    max_conf_num = 1
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""

    def start(self) -> None:
        """Until the CRI answers. Raises RuntimeError with the log's end."""
        self.home.joinpath("c.sock").unlink(missing_ok=True)
        enter = ["nsenter", f"--net={self.netns}"] if self.netns else []
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*enter, "containerd", "--config", str(self.home / "config.toml"), "--log-level", "info"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"},
            )  # fmt: skip
        self._channel = grpc.insecure_channel(f"unix:{self.socket}", options=[("grpc.use_local_subchannel_pool", 1)])
        self.stub = self._stubs.RuntimeServiceStub(self._channel)
        try:
            self.stub.Status(self._messages.StatusRequest(), wait_for_ready=True, timeout=30)
        except grpc.RpcError as error:
            raise RuntimeError(f"containerd does not answer: {self.log()[-3000:]}") from error

    def import_image(self) -> None:
        """Brings the busybox image in."""
        busybox = shutil.which("busybox")
        assert busybox is not None
        command = ["ctr", "-a", str(self.socket), "-n", "k8s.io", "images", "import", "--snapshotter", "overlayfs", "-"]
        subprocess.run(command, input=image_archive(Path(busybox)), check=True, capture_output=True)

    def log(self) -> str:
        """What containerd said."""
        return (self.home / "log").read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """kill -9 of the daemon; its shims and pods live on, as they do in the field."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._close_channel()

    def stop(self) -> None:
        """Removes all pods, ends the daemon and unmounts what it left."""
        try:
            for item in self.stub.ListPodSandbox(self._messages.ListPodSandboxRequest(), timeout=10).items:
                self.stub.StopPodSandbox(self._messages.StopPodSandboxRequest(pod_sandbox_id=item.id), timeout=30)
                self.stub.RemovePodSandbox(self._messages.RemovePodSandboxRequest(pod_sandbox_id=item.id), timeout=30)
        finally:
            self._close_channel()
            if self._process is not None:
                self._process.send_signal(signal.SIGTERM)
                try:
                    self._process.wait(20)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            self._end_shims()
            self._unmount()

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _end_shims(self) -> None:
        """Shims of this home that a killed daemon left: they carry its socket's path as an argument."""
        wanted = os.fsencode(self.socket)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    arguments = (entry / "cmdline").read_bytes().split(b"\0")
                    if wanted in arguments and b"containerd-shim" in arguments[0]:
                        os.kill(int(entry.name), signal.SIGKILL)
                except (OSError, IndexError):
                    continue

    def _unmount(self) -> None:
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in sorted((point for point in points if point.startswith(str(self.home))), reverse=True):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)

    def run_pod(
        self, name: str, annotations: Mapping[str, str] | None = None, namespace: str = "t1", timeout: float = 60.0,
        ports: Mapping[int, int] | None = None,
    ) -> Pod:  # fmt: skip
        """RunPodSandbox. `ports` maps the node's TCP ports to the pod's. Raises grpc.RpcError with the runtime's words."""
        metadata = self._messages.PodSandboxMetadata(name=name, uid=str(uuid.uuid4()), namespace=namespace)
        config = self._messages.PodSandboxConfig(
            metadata=metadata, hostname=name, log_directory=str(self.home / "pods"), annotations=dict(annotations or {}),
            linux=self._messages.LinuxPodSandboxConfig(cgroup_parent=f"/knitter-test-{os.getpid()}"),
            port_mappings=[self._messages.PortMapping(host_port=host, container_port=own) for host, own in (ports or {}).items()],
        )  # fmt: skip
        answer = self.stub.RunPodSandbox(self._messages.RunPodSandboxRequest(config=config), timeout=timeout)
        return Pod(answer.pod_sandbox_id, name, namespace, config)

    def start_container(self, pod: Pod) -> Pod:
        """A busybox container in the pod, for `exec`."""
        container = self._messages.ContainerConfig(
            metadata=self._messages.ContainerMetadata(name="main"),
            image=self._messages.ImageSpec(image=IMAGE), command=["/bin/sleep", "86400"], log_path="main.log",
        )  # fmt: skip
        request = self._messages.CreateContainerRequest(pod_sandbox_id=pod.id, config=container, sandbox_config=pod.config)
        made = self.stub.CreateContainer(request, timeout=30)
        self.stub.StartContainer(self._messages.StartContainerRequest(container_id=made.container_id), timeout=30)
        return Pod(pod.id, pod.name, pod.namespace, pod.config, made.container_id)

    def exec(self, pod: Pod, *command: str, timeout: int = 20) -> str:
        """Runs a command in the pod's container; returns its standard output. Raises AssertionError when it fails."""
        request = self._messages.ExecSyncRequest(container_id=pod.container, cmd=list(command), timeout=timeout)
        answer = self.stub.ExecSync(request, timeout=timeout + 5)
        said = answer.stdout.decode() + answer.stderr.decode()
        assert answer.exit_code == 0, f"{command}: exit {answer.exit_code}: {said}"
        return str(answer.stdout.decode())

    def cni_configuration(self) -> str:
        """The CNI configuration that the runtime has read, as it tells it."""
        answer = self.stub.Status(self._messages.StatusRequest(verbose=True), timeout=10)
        return str(answer.info.get("cniconfig", ""))

    def status(self, pod: Pod) -> tuple[list[str], dict[str, Any]]:
        """The pod's addresses as the runtime tells them, and its verbose info."""
        answer = self.stub.PodSandboxStatus(self._messages.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True), timeout=10)
        addresses = [answer.status.network.ip, *(extra.ip for extra in answer.status.network.additional_ips)]
        return [address for address in addresses if address], json.loads(answer.info["info"])

    def remove_pod(self, pod: Pod, timeout: float = 60.0) -> None:
        """StopPodSandbox and RemovePodSandbox, as the kubelet does."""
        self.stub.StopPodSandbox(self._messages.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=timeout)
        self.stub.RemovePodSandbox(self._messages.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=timeout)

    def __enter__(self) -> Self:
        self.start()
        self.import_image()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
