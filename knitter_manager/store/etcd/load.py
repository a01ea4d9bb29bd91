"""Reading the whole state at one revision, page by page; the next page is on its way while one is being used."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

import grpc

from knitter_common.errors import Refused
from knitter_etcd import rpc_pb2
from knitter_manager.store.etcd.members import Member, Members
from knitter_manager.store.etcd.txn import Layout, prefix_end
from knitter_manager.store.protocol import Record, Snapshot, Span, StoreDown

SCHEMA = 1

# For each page etcd counts all records that follow, so few large pages are fast: about so many bytes each, after a first one.
_FIRST, _MOST = 10_000, 100_000
_PAGE_BYTES = 12 * 1024 * 1024


async def identify(members: Members, layout: Layout, new_id: str) -> str:
    """The store's id; `new_id` becomes it where there is none yet. Raises Refused(STORE_UNUSABLE) for a newer schema."""
    request = rpc_pb2.TxnRequest()
    request.compare.add(result=rpc_pb2.Compare.EQUAL, target=rpc_pb2.Compare.CREATE, key=layout.identity, create_revision=0)
    put = request.success.add().request_put
    put.key, put.value = layout.identity, f"{SCHEMA} {new_id}".encode()
    request.failure.add().request_range.key = layout.identity
    response = await members.read(lambda member, timeout: member.kv.Txn(request, timeout=timeout))
    if response.succeeded:
        return new_id
    schema, _, identity = response.responses[0].response_range.kvs[0].value.decode().partition(" ")
    if not schema.isdigit() or int(schema) > SCHEMA:
        what = f"schema {schema} of a newer release; this one knows up to {SCHEMA}"
        message = f"store at etcd {members.names}, prefix {layout.prefix}: {what}; run the newer release, or set another prefix"
        raise Refused("STORE_UNUSABLE", message, prefix=layout.prefix)
    return str(identity)


async def snapshot(members: Members, layout: Layout, identity: str, spans: Sequence[Span]) -> Snapshot:
    """The state at the newest revision, linearizable."""
    ranges = deque(_range_of(layout, span) for span in spans)
    request = rpc_pb2.TxnRequest()
    request.success.add().request_range.key = layout.data + b"meta/epoch"
    request.success.add().request_range.CopyFrom(_page(*ranges[0], 0, _FIRST))
    response = await members.read(lambda member, timeout: member.kv.Txn(request, timeout=timeout))
    epoch, first = (answer.response_range for answer in response.responses)
    counter = epoch.kvs[0].value.decode() if epoch.kvs else "0"
    revision = response.header.revision
    return Snapshot(f"{identity}.{counter}", revision, _batches(members, len(layout.data), revision, first, ranges))


async def _batches(
    members: Members, cut: int, revision: int, page: rpc_pb2.RangeResponse, ranges: deque[tuple[bytes, bytes]]
) -> AsyncIterator[Sequence[Record]]:
    """`page` is the first one of the first range; a record's key is what follows the first `cut` bytes."""
    limit = _FIRST
    following: asyncio.Task[rpc_pb2.RangeResponse] | None = None
    try:
        while ranges:
            if page.kvs:
                limit = min(max(_PAGE_BYTES * len(page.kvs) // page.ByteSize(), 1000), _MOST)
            if page.more:
                ranges[0] = (page.kvs[-1].key + b"\0", ranges[0][1])
            else:
                ranges.popleft()
            if ranges:
                request = _page(*ranges[0], revision, limit)
                following = asyncio.ensure_future(members.read(lambda member, timeout: _range(member, request, timeout)))  # noqa: B023
            if page.kvs:
                yield [Record(kv.key[cut:].decode(), kv.value, kv.mod_revision) for kv in page.kvs]
            if following is not None:
                page, following = await following, None
    finally:
        if following is not None:
            following.cancel()


async def _range(member: Member, request: rpc_pb2.RangeRequest, seconds: float) -> rpc_pb2.RangeResponse:
    try:
        response: rpc_pb2.RangeResponse = await member.kv.Range(request, timeout=seconds)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.OUT_OF_RANGE:
            what = f"revision {request.revision} was compacted while it was read; load again"
            raise StoreDown(f"etcd {member.endpoint}: {what}") from error
        raise
    return response


def _range_of(layout: Layout, span: Span) -> tuple[bytes, bytes]:
    data = layout.data
    return data + span.begin.encode(), data + span.end.encode() if span.end else prefix_end(data)


def _page(begin: bytes, end: bytes, revision: int, limit: int) -> rpc_pb2.RangeRequest:
    return rpc_pb2.RangeRequest(key=begin, range_end=end, limit=limit, revision=revision)
