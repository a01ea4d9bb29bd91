"""Talking to one of several: which manager writes, which monitor answers, and what to do when one does not.

`Peers` is a list of addresses with one channel each and a current choice. `Managers` are peers of which one writes: a call
follows NOT_WRITER to the writer it names, turns to the next address when one does not answer, and waits a little, with jitter,
between tries. One that is silent (stopped, cut off) is asked after at the others: who writes says so (GetStatus).

    managers = Managers(settings.managers)
    response = await managers.call(lambda manager: manager.CreateNetwork, request, within=10)

A stream stays the caller's own: open it with `managers.stub()`; when it fails, `managers.learn(error)` and open it again after
`Backoff.wait()`. Calls are sent again only on reasons that say "not now" (`PASSING`), so each must be one that may arrive twice;
the manager's all may.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc
import structlog
from tenacity import AsyncRetrying, retry_if_exception, stop_before_delay, wait_random_exponential

from knitter.v1.manager_pb2 import GetStatusRequest
from knitter.v1.manager_pb2_grpc import ManagerServiceStub
from knitter_common.errors import KnitterError, Unavailable, from_rpc_error
from knitter_common.serve.interceptor import REQUEST_ID, new_request_id

if TYPE_CHECKING:
    from knitter.v1.manager_pb2_grpc import ManagerServiceAsyncStub

Request = TypeVar("Request")
Response = TypeVar("Response")

# Reasons that pass by waiting, or by asking another manager.
_CLUSTER_WIDE = frozenset({"RECOVERING", "RESTORING", "STORE_FROZEN"})  # no other manager would say anything else
PASSING = _CLUSTER_WIDE | {
    "NOT_WRITER", "NO_WRITER", "STORE_UNAVAILABLE", "MANAGER_UNAVAILABLE", "SHUTTING_DOWN", "REPLICA_BEHIND"
}  # fmt: skip
SILENCE = 0.6  # seconds without an answer after which the others are asked who writes
WRITER = "writer"  # the metadata of NOT_WRITER that holds the writer's address

OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # else a ping may take a minute, whatever keepalive_timeout_ms says
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)

log = structlog.get_logger()


class Backoff:
    """Waits between tries: random from 0 to `first`·2ⁿ seconds, never above `most`; `reset()` after a success."""

    def __init__(self, first: float = 0.1, most: float = 5.0, chance: Callable[[], float] = random.random) -> None:
        self._first, self._most, self._chance, self._tries = first, most, chance, 0

    def reset(self) -> None:
        """The next wait is short again."""
        self._tries = 0

    def next(self) -> float:
        """How long to wait now, in seconds."""
        limit = min(self._most, self._first * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return limit * (0.5 + 0.5 * self._chance())

    async def wait(self) -> None:
        """Waits that long."""
        await asyncio.sleep(self.next())


class Peers:
    """Addresses (`host:port` or `unix:/path`) of which one is current. Must be made, used and closed in one event loop."""

    def __init__(self, addresses: Sequence[str], options: Sequence[tuple[str, int]] = OPTIONS) -> None:
        if not addresses:
            raise ValueError("at least one address is needed")
        self.addresses = tuple(addresses)
        self.current = random.choice(self.addresses)  # many clients spread over the peers
        self._options = tuple(options)
        self._channels: dict[str, grpc.aio.Channel] = {}

    def channel(self, address: str = "") -> grpc.aio.Channel:
        """The channel to an address, the current one by default; opened when first asked for."""
        address = address or self.current
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=self._options)
        return self._channels[address]

    def turn(self, failed: str = "") -> None:
        """Makes the next address current, unless `failed` is told and someone else is current already."""
        if failed and failed != self.current:
            return
        known = self.addresses.index(self.current) if self.current in self.addresses else -1
        self.current = self.addresses[(known + 1) % len(self.addresses)]

    async def close(self) -> None:
        """Closes every channel; calls under way fail."""
        channels, self._channels = self._channels, {}
        await asyncio.gather(*(channel.close() for channel in channels.values()))


class Managers(Peers):
    """The cluster's managers, of which one writes."""

    def stub(self, address: str = "") -> "ManagerServiceAsyncStub":
        """A stub for the manager believed to write, or for one address."""
        stub: ManagerServiceAsyncStub = ManagerServiceStub(self.channel(address))
        return stub

    def learn(self, error: KnitterError, asked: str = "") -> None:
        """Draws the conclusion from a failed call or stream to `asked` (default: the current one) about whom to ask next."""
        writer = error.metadata.get(WRITER, "")
        if error.reason == "NOT_WRITER" and writer:
            self.current = writer
        elif error.reason in PASSING and error.reason not in _CLUSTER_WIDE:
            self.turn(asked)

    async def elsewhere(self, asked: str, within: float = SILENCE) -> str:
        """The address of a manager other than `asked` that says that it writes; "" for none. Asks all, at once."""

        async def ask(address: str) -> str:
            try:
                status = await self.stub(address).GetStatus(GetStatusRequest(), timeout=within)
            except grpc.aio.AioRpcError:
                return ""
            return address if status.writing and status.name != asked else ""

        answers = await asyncio.gather(*(ask(address) for address in self.addresses if address != asked))
        return next(filter(None, answers), "")

    async def call(
        self,
        method: "Callable[[ManagerServiceAsyncStub], grpc.aio.UnaryUnaryMultiCallable[Request, Response]]",
        request: Request,
        *,
        within: float = 10.0,
        attempt: float = 3.0,
        request_id: str = "",
    ) -> Response:
        """One unary call to the writer, tried for `within` seconds, each try for `attempt` when there are several managers.

        Raises KnitterError; the last PASSING one when the time is over.
        """
        metadata = ((REQUEST_ID, request_id or new_request_id()),)
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        told: KnitterError | None = None
        tries = AsyncRetrying(
            stop=stop_before_delay(within),
            wait=wait_random_exponential(multiplier=0.05, max=0.5),
            retry=retry_if_exception(lambda error: isinstance(error, Unavailable) and error.reason in PASSING),
            reraise=True,
        )
        async for once in tries:
            with once:
                left = max(end - loop.time(), 0.001)
                asked = self.current
                limit = left if len(self.addresses) == 1 else min(left, attempt)
                try:
                    return await self._unless_silent(asked, method(self.stub(asked))(request, timeout=limit, metadata=metadata))
                except grpc.aio.AioRpcError as failure:
                    error = from_rpc_error(failure)
                    if told is not None and loop.time() >= end:
                        error = told  # this try was cut by our own time: what was told before says more
                    told = error
                    self.learn(error, asked)
                    log.debug("a manager did not answer", address=asked, reason=error.reason, error=error.message)
                    raise error from failure
        raise AssertionError("tenacity raises or the call returned")

    async def _unless_silent(self, asked: str, call: Awaitable[Response]) -> Response:
        """Its answer, unless it is silent and another one writes: then Unavailable(NOT_WRITER) with that one's address."""
        answer = asyncio.ensure_future(call)
        try:
            while len(self.addresses) > 1:
                done, _ = await asyncio.wait((answer,), timeout=SILENCE)
                if done:
                    break
                if writer := await self.elsewhere(asked):
                    self.learn(silent(asked, writer))
                    raise silent(asked, writer)
            return await answer
        finally:
            answer.cancel()


def silent(asked: str, writer: str) -> Unavailable:
    """A manager does not answer, and another one writes."""
    return Unavailable("NOT_WRITER", f"{asked} is silent; {writer} writes", writer=writer)
