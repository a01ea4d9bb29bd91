"""A session with the manager: one of several, found by NOT_WRITER, every page fetched, messages turned into objects at once."""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import grpc
import structlog

from knitter.v1 import manager_pb2
from knitter_common import convert
from knitter_common.convert import owner_to_proto
from knitter_common.errors import KnitterError, Unavailable, from_rpc_error
from knitter_common.managers import PASSING, Backoff, Managers
from knitter_common.model import Owner, PortSet
from knitter_ctl.kinds import Kind

PAGE = 500  # objects of one page

T = TypeVar("T")


class Position(Protocol):
    """Where the reader of a feed is."""

    @property
    def revision(self) -> int:
        """Resume after this one; 0 means from a snapshot."""

    @property
    def epoch(self) -> str:
        """The epoch it is of."""


class Session:
    """Calls of one command. An async context manager; `timeout` in seconds bounds each call, tries included."""

    def __init__(self, addresses: Sequence[str], timeout: float) -> None:
        self.managers = Managers(addresses)
        self.timeout = timeout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.managers.close()

    async def call(self, rpc: str, /, **fields: Any) -> Any:
        """The RPC of this name with a request of these fields. Raises KnitterError."""
        request = getattr(manager_pb2, f"{rpc}Request")(**fields)
        try:
            return await self.managers.call(lambda stub: getattr(stub, rpc), request, within=self.timeout)
        except Unavailable as error:
            raise self._named(error) from error

    def _named(self, error: KnitterError) -> KnitterError:
        """Silent managers are named."""
        if error.reason != "MANAGER_UNAVAILABLE":
            return error
        return Unavailable(error.reason, f"no manager answers at {', '.join(self.managers.addresses)}: {error.message}")

    async def ask(self, address: str, rpc: str, request: Any) -> Any:
        """The RPC of this name at one address and no other. Raises KnitterError."""
        try:
            return await getattr(self.managers.stub(address), rpc)(request, timeout=self.timeout)
        except grpc.aio.AioRpcError as failure:
            raise from_rpc_error(failure) from failure

    async def pages(self, kind: Kind, **filters: Any) -> AsyncGenerator[list[Any], None]:
        """Every object of a kind, page after page, in the server's order."""
        async for messages in self.walk(f"List{kind.name}s", kind.plural_field, **filters):
            yield [from_proto(kind, message) for message in messages]

    async def walk(self, rpc: str, field: str, **filters: Any) -> AsyncGenerator[Sequence[Any], None]:
        """The messages of a listing, page after page, in the server's order."""
        token = ""
        while True:
            response = await self.call(rpc, page_size=PAGE, page_token=token, **filters)
            yield getattr(response, field)
            token = response.next_page_token
            if not token:
                return

    async def stream(self, rpc: str, /, **fields: Any) -> AsyncGenerator[Any, None]:
        """The messages of a call that answers with many, at the manager that takes it, which is found within the session's time;
        how long it answers is not bounded. Raises KnitterError."""
        request = getattr(manager_pb2, f"{rpc}Request")(**fields)
        backoff, begin, begun = Backoff(most=1.0), time.monotonic(), False
        while True:
            asked = self.managers.current
            try:
                async for response in getattr(self.managers.stub(asked), rpc)(request):
                    begun = True
                    yield response
                return
            except grpc.aio.AioRpcError as failure:
                error = from_rpc_error(failure)
                if begun or error.reason not in PASSING or time.monotonic() - begin > self.timeout:
                    raise self._named(error) from failure
                self.managers.learn(error, asked)
            await backoff.wait()

    async def entries(self, kind: Kind, **filters: Any) -> list[Any]:
        """Every object of a kind."""
        return [entry async for page in self.pages(kind, **filters) for entry in page]

    async def get(self, kind: Kind, **names: Any) -> Any:
        """One object by the names its Get takes. Raises NotFound."""
        response = await self.call(f"Get{kind.name}", **names)
        return from_proto(kind, getattr(response, kind.field))

    async def create(self, kind: Kind, entry: Any) -> Any:
        """Makes an object; returns it as stored."""
        response = await self.call(f"Create{kind.name}", **{kind.field: to_proto(kind, entry)})
        return from_proto(kind, getattr(response, kind.field))

    async def update(self, kind: Kind, entry: Any) -> Any:
        """Changes an object; its revision is compared when it is not 0."""
        response = await self.call(f"Update{kind.name}", **{kind.field: to_proto(kind, entry)})
        return from_proto(kind, getattr(response, kind.field))

    async def feed(self, position: "Position") -> AsyncGenerator[Any, None]:
        """The messages of the feed of changes, for ever, from where `position` is by then.

        A cut feed is opened again, at another manager if need be. Raises KnitterError when none has answered for `timeout`.
        """
        backoff = Backoff(most=1.0)
        answered = time.monotonic()
        while True:
            asked = self.managers.current
            request = manager_pb2.ChangesRequest(after_revision=position.revision, epoch=position.epoch)
            try:
                async for response in self.managers.stub(asked).Changes(request):
                    answered = time.monotonic()
                    backoff.reset()
                    yield response
            except grpc.aio.AioRpcError as failure:
                error = from_rpc_error(failure)
                if error.reason not in PASSING or time.monotonic() - answered > self.timeout:
                    raise error from failure
                self.managers.learn(error, asked)
            await backoff.wait()

    async def port_set(self, owner: Owner) -> PortSet:
        """The set of an owner. Raises NotFound."""
        response = await self.call("GetPortSet", owner=owner_to_proto(owner))
        return convert.port_set_from_proto(response.port_set)


def from_proto(kind: Kind, message: Any) -> Any:
    """The object behind a message of this kind."""
    return getattr(convert, f"{kind.field}_from_proto")(message)


def to_proto(kind: Kind, entry: Any) -> Any:
    """The message for an object of this kind."""
    return getattr(convert, f"{kind.field}_to_proto")(entry)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a command's work in an event loop of its own; the client's own log stays quiet."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR), logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )
    return asyncio.run(work)
