"""Calls of a gRPC service that may be refused, from tests that are not asynchronous: a server in this process whose loop runs while
a call is under way.

    with calls_to(serving()) as manager:
        answer = manager.call("GetNode", request)        # the response, or the KnitterError behind the status
"""

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from knitter_common.errors import DOMAIN, REASONS, KnitterError, from_rpc_error

WITHIN = 10.0  # seconds


class Calls:
    """A stub and the loop it lives in."""

    def __init__(self, runner: asyncio.Runner, stub: Any) -> None:
        self._runner, self._stub = runner, stub

    def call(self, method: str, request: Any) -> Any:
        """The response of a unary call, or the error."""
        return self._runner.run(_told(getattr(self._stub, method)(request, timeout=WITHIN)))

    def first(self, method: str, request: Any) -> Any:
        """The first message of a stream of responses, or the error."""

        async def run() -> Any:
            call = getattr(self._stub, method)(request, timeout=WITHIN)
            try:
                return await _told(call.read())
            finally:
                call.cancel()

        return self._runner.run(run())

    def stream(self, method: str, requests: Iterable[Any]) -> list[Any]:
        """All responses to a stream of requests. Raises AioRpcError."""

        async def run() -> list[Any]:
            async with asyncio.timeout(WITHIN):
                return [response async for response in getattr(self._stub, method)(iter(requests))]

        return self._runner.run(run())


async def _told(answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except grpc.aio.AioRpcError as failed:
        return whole_error(failed)


def whole_error(failed: grpc.aio.AioRpcError) -> KnitterError:
    """The error behind a status; asserts that it is one of the table, told as the table says."""
    status = rpc_status.from_call(failed)
    assert status is not None, failed
    info = error_details_pb2.ErrorInfo()
    assert [detail.Unpack(info) for detail in status.details] == [True], status
    assert info.domain == DOMAIN
    assert failed.code() is REASONS[info.reason].kind.grpc_code, failed
    assert failed.details() == status.message
    assert status.message
    return from_rpc_error(failed)


@contextmanager
def calls_to(serving: AbstractAsyncContextManager[tuple[Any, Any]]) -> Iterator[Calls]:
    """Calls of the stub that `serving` gives."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        stub, _ = runner.run(_entered(serving))
        stack.callback(lambda: runner.run(_left(serving)))
        yield Calls(runner, stub)


async def _entered(serving: AbstractAsyncContextManager[tuple[Any, Any]]) -> tuple[Any, Any]:
    return await serving.__aenter__()


async def _left(serving: AbstractAsyncContextManager[tuple[Any, Any]]) -> None:
    await serving.__aexit__(None, None, None)
