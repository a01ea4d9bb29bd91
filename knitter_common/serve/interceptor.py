"""The one place where an error becomes a gRPC status, and where a request gets its id.

A KnitterError ends the call with its code, its message and ErrorInfo. Anything else that is not gRPC's own is a defect: logged once
with its traceback, told as INTERNAL without details. A request id comes in the metadata `x-request-id`, or is made here.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import structlog
from grpc_status import rpc_status

from knitter_common.errors import Internal, KnitterError, Refused, to_status

REQUEST_ID = "x-request-id"

log = structlog.get_logger()


def new_request_id() -> str:
    """16 hexadecimal digits."""
    return secrets.token_hex(8)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server, once."""

    def __init__(self) -> None:
        self._handlers: dict[str, Any] = {}  # by method

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Replaces the handler's function by one that tells errors."""
        method = handler_call_details.method
        if (known := self._handlers.get(method)) is not None:
            return known
        handler = _wrapped(await continuation(handler_call_details), method)
        if handler is not None:
            self._handlers[method] = handler
        return handler


def _wrapped(handler: Any, method: str) -> Any:
    if handler is not None and not method.startswith("/grpc."):
        wrap = _wrap_stream if handler.response_streaming else _wrap_unary
        for attribute in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            inner = getattr(handler, attribute)
            if inner is not None:
                return handler._replace(**{attribute: wrap(inner, method)})
    return handler


def _wrap_unary(inner: Any, method: str) -> Any:
    async def call(request: Any, context: Any) -> Any:
        _bind(context, method)
        try:
            return await inner(request, context)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: told to the caller, defects are logged
            await _abort(context, error)

    return call


def _wrap_stream(inner: Any, method: str) -> Any:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        _bind(context, method)
        try:
            async for response in inner(request, context):
                yield response
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: told to the caller, defects are logged
            await _abort(context, error)

    return call


def _bind(context: Any, method: str) -> None:
    """For the log. Each call runs in a context of its own, which ends with it."""
    structlog.contextvars.bind_contextvars(request_id=_request_id(context), method=method)


def _request_id(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID:
            return str(value)[:64]
    return new_request_id()


async def _abort(context: Any, error: Exception) -> None:
    if isinstance(error, KnitterError):
        known = error
        log.debug("refused", reason=error.reason, error=error.message)
    elif isinstance(error, NotImplementedError) and context.code() is grpc.StatusCode.UNIMPLEMENTED:
        method = str(structlog.contextvars.get_contextvars().get("method", "")).rpartition("/")[2]
        known = Refused("NOT_IMPLEMENTED", f"{method}: this release does not do it yet", method=method)  # as stubs tell it
    else:
        known = Internal("INTERNAL", "a defect; the log has it by request id")
        log.error("the handler failed", exc_info=error)
    status: Any = rpc_status.to_status(to_status(known))
    context.set_trailing_metadata(status.trailing_metadata)
    await context.abort(status.code, status.details)
