"""The cluster's members as one: a channel each, calls go to one that answers, and no call waits for ever.

A member that cannot be reached or has no leader is left for the next one. Reads are tried again within their time; a write is sent
once, since nobody knows whether a write without an answer was done. What remains of gRPC's errors is StoreDown.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc

from knitter_common.errors import Refused
from knitter_etcd import rpc_pb2_grpc
from knitter_manager.store.protocol import StoreDown

T = TypeVar("T")

# A member in the minority cancels streams instead of keeping them silent (etcd's clientv3.WithRequireLeader).
REQUIRE_LEADER = (("hasleader", "true"),)

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 6000),  # etcd refuses pings more often than every 5 s
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.ping_timeout_ms", 3000),  # else a ping may take a minute, whatever keepalive_timeout_ms says
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
_LEAVE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_REFUSED = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


class NotDone(StoreDown):
    """etcd refused it (its database is full, we may not): nothing was done, and nothing will be."""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: the authorities that sign the members, and the client's own certificate and key ("" for none)."""

    ca: str
    cert: str = ""
    key: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. Raises Refused(STORE_UNUSABLE) naming the one that cannot be read."""
        ca, cert, key = (_pem(path) for path in (self.ca, self.cert, self.key))
        return grpc.ssl_channel_credentials(ca, key, cert)


class Member:
    """One member of the cluster. The stubs are etcd's services."""

    def __init__(self, endpoint: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.endpoint = endpoint
        self.channel: Any = (
            grpc.aio.secure_channel(endpoint, credentials, _OPTIONS)
            if credentials
            else grpc.aio.insecure_channel(endpoint, _OPTIONS)
        )
        self.kv: Any = rpc_pb2_grpc.KVStub(self.channel)
        self.lease: Any = rpc_pb2_grpc.LeaseStub(self.channel)
        self.watch: Any = rpc_pb2_grpc.WatchStub(self.channel)


class Members:
    """All members; calls go to the present one as long as it answers."""

    def __init__(self, endpoints: Sequence[str], tls: Tls | None, timeout: float) -> None:
        """`timeout`: seconds that a call may take in all."""
        credentials = tls.credentials() if tls else None
        self.timeout = timeout
        self._members = [Member(endpoint, credentials) for endpoint in endpoints]
        self._present = 0

    @property
    def names(self) -> str:
        """The endpoints, for messages."""
        return ", ".join(member.endpoint for member in self._members)

    async def ready(self, within: float) -> Member:
        """A member that is connected: the present one, or the first that becomes it. Raises StoreDown after `within` seconds."""
        present = self._members[self._present]
        if present.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return present
        order = self._members[self._present :] + self._members[: self._present]
        tasks = {asyncio.ensure_future(member.channel.channel_ready()): member for member in order}
        try:
            done, _ = await asyncio.wait(tasks, timeout=max(within, 0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        connected = [member for task, member in tasks.items() if task in done]
        if not connected:
            raise StoreDown(f"etcd: none of {self.names} can be reached")
        self._present = self._members.index(connected[0])
        return connected[0]

    def leave(self, member: Member) -> None:
        """The next call goes to another member, if there is one."""
        if self._members[self._present] is member:
            self._present = (self._present + 1) % len(self._members)

    async def read(self, call: Callable[[Member, float], Awaitable[T]]) -> T:
        """Calls with a member and a time-out, again with the next one while the time lasts. For what may be done twice."""
        end = time.monotonic() + self.timeout
        share = max(self.timeout / len(self._members), 1.0)
        pause = 0.02
        while True:
            member = await self.ready(end - time.monotonic())
            try:
                return await call(member, min(share, max(end - time.monotonic(), 0.05)))
            except grpc.aio.AioRpcError as error:
                if error.code() not in _LEAVE or time.monotonic() + pause >= end:
                    raise down(error, member) from error
                self.leave(member)
            await asyncio.sleep(pause)  # an election takes its time
            pause = min(pause * 2, 0.5)

    async def write(self, call: Callable[[Member, float], Awaitable[T]]) -> T:
        """Calls once. Raises StoreDown, NotDone where that is sure, ValueError for what etcd refuses as a request."""
        end = time.monotonic() + self.timeout
        member = await self.ready(self.timeout)
        try:
            return await call(member, max(end - time.monotonic(), 0.05))
        except grpc.aio.AioRpcError as error:
            if error.code() in _LEAVE:
                self.leave(member)
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise ValueError(f"etcd refuses the commit: {error.details()}") from error
            if error.code() in _REFUSED:
                raise NotDone(str(down(error, member))) from error
            raise down(error, member) from error

    async def close(self) -> None:
        """Closes the channels; calls under way end."""
        for member in self._members:
            with contextlib.suppress(grpc.aio.UsageError):
                await member.channel.close()


def down(error: grpc.aio.AioRpcError, member: Member) -> StoreDown:
    """What a call's failure means for the store's user."""
    return StoreDown(f"etcd {member.endpoint}: {error.code().name}: {error.details()}")


def _pem(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Refused("STORE_UNUSABLE", f"etcd: {path} cannot be read: {error.strerror}; correct the path in `store`") from error
