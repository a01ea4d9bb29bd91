"""What an agent and a monitor tell of themselves: one channel, one question."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from knitter.v1 import agent_pb2, agent_pb2_grpc, monitor_pb2, monitor_pb2_grpc
from knitter_common import convert
from knitter_common.errors import KnitterError, Unavailable, from_rpc_error
from knitter_common.objects import time_text
from knitter_ctl import columns, document
from knitter_ctl.ages import age
from knitter_ctl.kinds import PORT_SET

Told = dict[str, Any]
_PAGE = 500


_time = convert.time_from_proto


async def attachments(address: str, within: float) -> list[Told]:
    """The attachments of an agent's journal, as documents. `within` is in seconds, for one page."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = agent_pb2_grpc.AgentServiceStub(channel)

        async def ask(token: str) -> Any:
            request = agent_pb2.ListAttachmentsRequest(page_size=_PAGE, page_token=token)
            return await _asked(stub.ListAttachments(request, timeout=within), "agent", address)

        return [_attachment(message) async for response in _pages(ask) for message in response.attachments]


async def connections(address: str, within: float) -> list[Told]:
    """The nodes a monitor knows, as documents. `within` is in seconds, for one page."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = monitor_pb2_grpc.MonitorServiceStub(channel)

        async def ask(token: str) -> Any:
            request = monitor_pb2.ListConnectionsRequest(page_size=_PAGE, page_token=token)
            return await _asked(stub.ListConnections(request, timeout=within), "monitor", address)

        return [_connection(message) async for response in _pages(ask) for message in response.connections]


async def sources(address: str, within: float) -> list[Told]:
    """The sources a monitor reads declarations from, as documents."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = monitor_pb2_grpc.MonitorServiceStub(channel)
        response = await _asked(stub.ListSources(monitor_pb2.ListSourcesRequest(), timeout=within), "monitor", address)
        return [_source(message) for message in response.sources]


async def _pages(ask: Callable[[str], Awaitable[Any]]) -> AsyncIterator[Any]:
    """Every page: `ask` takes the token of the page before."""
    token = ""
    while True:
        response = await ask(token)
        yield response
        token = response.next_page_token
        if not token:
            return


async def _asked(call: Any, who: str, address: str) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as failure:
        error = from_rpc_error(failure)
        raise _named(error, who, address) from failure


def _named(error: KnitterError, who: str, address: str) -> KnitterError:
    """A silent peer is named for what it is."""
    if error.reason != "MANAGER_UNAVAILABLE":
        return error
    reason = "AGENT_UNAVAILABLE" if who == "agent" else error.reason
    return Unavailable(reason, f"no {who} answers at {address}: {error.message}")


def _attachment(message: agent_pb2.Attachment) -> Told:
    state = agent_pb2.AttachmentState.Name(message.state).removeprefix("ATTACHMENT_STATE_").lower()
    port_set = convert.port_set_from_proto(message.port_set) if message.HasField("port_set") else None
    return {
        "cniNetwork": message.cni_network,
        "containerId": message.container_id,
        "interface": message.interface,
        "netns": message.netns,
        "state": state,
        "creationTimestamp": time_text(_time(message.create_time)),
        "interfaces": columns.interfaces(port_set) if port_set else "",
        "age": age(_time(message.create_time), time.time_ns()),
        "portSet": document.document(PORT_SET, port_set) if port_set else None,
    }


def _connection(message: monitor_pb2.NodeConnection) -> Told:
    told: Told = MessageToDict(message)
    sent = {position.topic: position.revision for position in message.sent}
    applied = {position.topic: position.revision for position in message.applied}
    told |= {
        "connected": message.connected,
        "sent": sent,
        "applied": applied,
        "behind": sum(applied.get(topic, 0) < revision for topic, revision in sent.items()),
        "age": age(_time(message.connect_time), time.time_ns()),
    }
    return told


def _source(message: monitor_pb2.Source) -> Told:
    told: Told = MessageToDict(message)
    problems = [MessageToDict(problem) for problem in message.problems]
    told |= {"readable": message.readable, "declared": message.declared, "applied": message.applied, "problems": problems}
    told["problemCount"] = message.problem_count
    return told | {"age": age(_time(message.read_time), time.time_ns())}


ATTACHMENT_COLUMNS: dict[str, Callable[[Told], str]] = {
    "CONTAINER": lambda it: it["containerId"][:12],
    "NETWORK": lambda it: it["cniNetwork"],
    "PRIMARY": lambda it: it["interface"],
    "STATE": lambda it: it["state"],
    "INTERFACES": lambda it: it["interfaces"],
    "NETNS": lambda it: it["netns"],
    "AGE": lambda it: it["age"],
}
CONNECTION_COLUMNS: dict[str, Callable[[Told], str]] = {
    "NODE": lambda it: it["node"],
    "CONNECTED": lambda it: "yes" if it["connected"] else "no",
    "VERSION": lambda it: it.get("agentVersion", ""),
    "TOPICS": lambda it: str(len(it["sent"])),
    "BEHIND": lambda it: str(it["behind"]),
    "REJECTED": lambda it: str(len(it.get("rejections", []))),
    "SINCE": lambda it: it["age"],
}
SOURCE_COLUMNS: dict[str, Callable[[Told], str]] = {
    "SOURCE": lambda it: it["name"],
    "READABLE": lambda it: "yes" if it["readable"] else "no",
    "DECLARED": lambda it: str(it["declared"]),
    "APPLIED": lambda it: str(it["applied"]),
    "PROBLEMS": lambda it: str(it["problemCount"]),
    "PATH": lambda it: it.get("path", ""),
    "READ": lambda it: it["age"],
}
PROBLEM_COLUMNS: dict[str, Callable[[Told], str]] = {
    "PLACE": lambda it: it["place"],
    "OBJECT": lambda it: it.get("object", ""),
    "REASON": lambda it: it["reason"],
    "MESSAGE": lambda it: it["message"],
}
