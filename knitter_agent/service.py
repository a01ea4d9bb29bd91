"""AgentService: the plugin's calls in, answers out. A CNI error is an answer; a gRPC status means only "no answer"."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from knitter.v1 import agent_pb2 as pb
from knitter.v1 import agent_pb2_grpc, types_pb2
from knitter_agent.attachment import AFTERWARDS, Attachments
from knitter_agent.cni import Answer, Call, failure, parse_call, success, version_of
from knitter_agent.journal import Journal
from knitter_agent.record import Key
from knitter_common.convert import time_to_proto
from knitter_common.errors import Internal, KnitterError, Unavailable
from knitter_common.serve.pages import after_token, page

SERVICE = "knitter.v1.AgentService"

_MARGIN = 0.5  # seconds before the caller's deadline at which an ADD gives up, so that its rollback can be told
_STATUS_BOUND = 0.9  # seconds; the plugin waits one

log = structlog.get_logger()


@dataclass(frozen=True)
class Bounds:
    """How much at once."""

    adds: int = 256


class AgentServicer(agent_pb2_grpc.AgentServiceServicer):
    """`ready` says why the node could not serve an ADD, "" when it could; STATUS asks it."""

    def __init__(self, attachments: Attachments, journal: Journal, ready: Callable[[], str], bounds: Bounds) -> None:
        self._attachments = attachments
        self._journal = journal
        self._ready = ready
        self._bounds = bounds
        self._adds = 0

    async def Attach(self, request: pb.AttachRequest, context: Any) -> pb.AttachResponse:
        """CNI ADD."""
        return pb.AttachResponse(
            answer=await _answer("ADD", request.invocation, lambda call: self._add(call, context.time_remaining()))
        )

    async def Detach(self, request: pb.DetachRequest, context: Any) -> pb.DetachResponse:
        """CNI DEL."""
        return pb.DetachResponse(answer=await _answer("DEL", request.invocation, self._attachments.delete))

    async def Check(self, request: pb.CheckRequest, context: Any) -> pb.CheckResponse:
        """CNI CHECK."""
        return pb.CheckResponse(answer=await _answer("CHECK", request.invocation, self._attachments.check))

    async def CollectGarbage(self, request: pb.CollectGarbageRequest, context: Any) -> pb.CollectGarbageResponse:
        """CNI GC."""
        return pb.CollectGarbageResponse(answer=await _answer("GC", request.invocation, self._attachments.collect_garbage))

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:
        """CNI STATUS."""
        return pb.StatusResponse(answer=await _answer("STATUS", request.invocation, self._status))

    async def ListAttachments(self, request: pb.ListAttachmentsRequest, context: Any) -> pb.ListAttachmentsResponse:
        """The journal, in pages."""
        token = after_token(request.page_token, request.page_token.count("/") == 2)
        after = tuple(token.split("/")) if token else ()
        keys = sorted((key.container_id, key.network, key.interface) for key in self._journal.records)
        listed = (("/".join(key), self._message(key)) for key in keys if key > after)
        messages, token = page(listed, request.page_size, lambda message: message.ByteSize())
        return pb.ListAttachmentsResponse(attachments=messages, next_page_token=token)

    def _message(self, ordered: tuple[str, str, str]) -> pb.Attachment:
        container_id, network, interface = ordered
        record = self._journal.records[Key(network, container_id, interface)]
        return pb.Attachment(
            cni_network=network,
            container_id=container_id,
            interface=interface,
            netns=record.netns,
            state=pb.AttachmentState.ValueType(record.state),
            port_set=types_pb2.PortSet.FromString(record.port_set),
            create_time=time_to_proto(record.time),
        )

    async def _add(self, call: Call, remaining: float | None) -> Any:
        if self._adds >= self._bounds.adds:
            raise Unavailable("AGENT_BUSY", f"{self._adds} ADDs are under way on this node, as many as it takes at once")
        self._adds += 1
        limit = None if remaining is None else max(remaining - _MARGIN, 0.05)
        try:
            async with asyncio.timeout(limit):
                result = await self._attachments.add(call)
        except TimeoutError as error:
            raise Unavailable("DEADLINE_EXCEEDED", f"the ADD was not done within the caller's {remaining:.1f} s") from error
        finally:
            self._adds -= 1
        loop = asyncio.get_running_loop()
        loop.call_soon(self._attachments.answered, call)  # the answer goes out first
        loop.call_later(AFTERWARDS, _attached, call, result)
        return result

    async def _status(self, call: Call) -> None:
        if trouble := self._ready():
            raise Unavailable("CNI_NOT_READY", trouble)
        try:
            async with asyncio.timeout(_STATUS_BOUND):
                await self._attachments.status(call)
        except TimeoutError as error:
            raise Unavailable("CNI_NOT_READY", "a delegate's STATUS took too long") from error


async def _answer(verb: str, invocation: pb.Invocation, carry_out: Callable[[Call], Awaitable[Any]]) -> pb.Answer:
    """Judges the call, carries it out, and turns whatever comes of it into bytes and an exit code."""
    call: Call | None = None
    structlog.contextvars.bind_contextvars(request_id=invocation.request_id)  # a call has a context of its own
    try:
        call = parse_call(verb, dict(invocation.environment), invocation.stdin, invocation.request_id)
        answer = success(await carry_out(call))
    except KnitterError as error:
        answer = _told(verb, call, error, invocation)
    except Exception as error:
        log.error("the call failed", verb=verb, exc_info=error)
        defect = Internal("INTERNAL", f"a defect; the agent's log has it under {invocation.request_id}")
        answer = _told(verb, call, defect, invocation)
    return pb.Answer(stdout=answer.stdout, exit_code=answer.exit_code)


def _told(verb: str, call: Call | None, error: KnitterError, invocation: pb.Invocation) -> Answer:
    where = (
        {"container_id": call.container_id, "network": call.conf.name, "interface": call.interface, "pod": _pod(call)}
        if call
        else {}
    )
    log.warning("refused", verb=verb, reason=error.reason, error=error.message, **where)
    return failure(error, call.conf.version if call else version_of(invocation.stdin))


def _attached(call: Call, result: Mapping[str, Any]) -> None:
    log.info(
        "attached",
        container_id=call.container_id,
        network=call.conf.name,
        interface=call.interface,
        pod=_pod(call),
        ips=[ip["address"] for ip in result.get("ips", ())],
    )


def _pod(call: Call) -> str:
    namespace, name = call.args.get("K8S_POD_NAMESPACE", ""), call.args.get("K8S_POD_NAME", "")
    return f"{namespace}/{name}" if name else ""
