"""A gRPC server with health, reflection, error mapping and bounds.

Health is NOT_SERVING for every name until `serving()`; a unix socket is taken under a lock file, so that a second server on one
path is refused instead of silently stealing it, and is made 0600 in a directory of 0700.
"""

import asyncio
import fcntl
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from knitter_common.errors import Invalid, Unavailable
from knitter_common.serve.interceptor import ErrorInterceptor
from knitter_common.settings import Seconds, setting

PING_INTERVAL_MS = 5000  # a client that pings more often is sent away; ours ping every 10 s (knitter_common.managers.OPTIONS)


@dataclass(frozen=True)
class ServerSettings:
    """The gRPC server of a daemon."""

    max_concurrent_calls: int = setting("calls under way at once; more are refused with RESOURCE_EXHAUSTED", 2000, low=1)
    max_message_bytes: int = setting("size of one message, in bytes", 4 * 1024 * 1024, low=65536)
    grace: Seconds = setting("how long calls under way may take after SIGTERM", Seconds(5.0), low=0)


class GrpcServer:
    """One server on one address: `host:port` (port 0: any free one) or `unix:/path`."""

    def __init__(self, address: str, settings: ServerSettings, services: Sequence[str]) -> None:
        """`services` are the full names of the services that are added, for health and reflection."""
        self.address = address
        self._settings = settings
        self._services = tuple(services)
        self._lock: int | None = None
        self._health = health.aio.HealthServicer()
        self.grpc = grpc.aio.server(
            interceptors=[ErrorInterceptor()],
            maximum_concurrent_rpcs=settings.max_concurrent_calls,
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.keepalive_time_ms", 20_000),  # a client that vanished without a word is noticed
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.http2.ping_timeout_ms", 10_000),  # else a ping may take a minute, whatever keepalive_timeout_ms says
            ],
        )

    async def start(self) -> str:
        """Binds and serves, health still NOT_SERVING. Returns the address with the real port.

        Raises Unavailable when it is taken.
        """
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        reflection.enable_server_reflection((*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME), self.grpc)
        self.take()
        before = os.umask(0o177)  # a unix socket is made here
        try:
            port = self.grpc.add_insecure_port(self.address)
        except RuntimeError as error:
            raise Unavailable("LISTEN_FAILED", f"cannot listen on {self.address}: {error}; is another one running?") from error
        finally:
            os.umask(before)
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        await self.grpc.start()
        return self.address

    def take(self) -> None:
        """Makes a unix socket's path ours before it is served; `start` does it otherwise.

        Raises Unavailable when it is taken, Invalid when its directory cannot be made private.
        """
        if not self.address.startswith("unix:") or self._lock is not None:
            return
        path = Path(self.address.removeprefix("unix:"))
        _private_directory(path)
        self._lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            self._lock = None
            raise Unavailable("LISTEN_FAILED", f"another process serves {path}; stop it first") from error
        path.unlink(missing_ok=True)

    async def serving(self) -> None:
        """From now on health is SERVING."""
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def not_serving(self) -> None:
        """Health says NOT_SERVING; calls are still answered."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self) -> None:
        """Stops accepting, lets calls finish within the grace, and gives the socket up."""
        await self._health.enter_graceful_shutdown()
        await self.grpc.stop(self._settings.grace)
        if self._lock is not None:
            Path(self.address.removeprefix("unix:")).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    async def wait(self) -> None:
        """Until the server ends."""
        await asyncio.shield(asyncio.ensure_future(self.grpc.wait_for_termination()))  # cancelled, it would break stop()

    async def _set_health(self, status: Any) -> None:
        await asyncio.gather(*(self._health.set(name, status) for name in ("", *self._services)))


def _private_directory(path: Path) -> None:
    """Makes the directory of the socket `path` 0700: who can reach the socket may do everything with it.

    One that others use as well (/run, /tmp) is left as it is, and refused. Raises Invalid.
    """
    directory = path.parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(directory.stat().st_mode) == 0o700:
        return
    if not path.with_name(path.name + ".lock").exists() and any(directory.iterdir()):
        said = f"{directory} is not private (0700) and holds other things; give the socket {path.name} a directory of its own"
        raise Invalid("FIELD_INVALID", f"listen: {said}", field="listen", value=str(path))
    directory.chmod(0o700)
