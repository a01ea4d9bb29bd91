"""A commit as one etcd transaction, and what its answer means. Pure.

The first comparison is the fence: the key `writer` is at the revision at which we wrote it last. The others are the commit's
conditions. When one fails etcd reads, in the same transaction, every key that was compared, so the Conflict tells what
really was. etcd counts comparisons, writes and reads each on its own against --max-txn-ops (128); more writes go into transactions
inside the transaction.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from knitter_etcd import kv_pb2, rpc_pb2
from knitter_manager.store.protocol import Condition, Conflict, NotWriter, PrefixEmpty, Record

MOST = 128  # etcd's default of --max-txn-ops

_EQUAL = rpc_pb2.Compare.EQUAL
_MOD = rpc_pb2.Compare.MOD


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie below the prefix."""

    prefix: str

    @property
    def writer(self) -> bytes:
        """Key: the writer's name, under its lease."""
        return f"{self.prefix}writer".encode()

    @property
    def identity(self) -> bytes:
        """Key: schema and store id."""
        return f"{self.prefix}store".encode()

    @property
    def data(self) -> bytes:
        """Prefix of the records' keys."""
        return f"{self.prefix}data/".encode()


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys with that prefix, which is not empty."""
    cut = prefix.rstrip(b"\xff")
    return cut[:-1] + bytes((cut[-1] + 1,)) if cut else b"\0"


def commit_request(
    layout: Layout, fence: int, conditions: Sequence[Condition], puts: Mapping[str, bytes], deletes: Sequence[str]
) -> rpc_pb2.TxnRequest:
    """`fence` is the revision of the writer's key."""
    data = layout.data
    request = rpc_pb2.TxnRequest()
    request.compare.add(result=_EQUAL, target=_MOD, key=layout.writer, mod_revision=fence)
    request.failure.add().request_range.key = layout.writer
    for condition in conditions:
        read = request.failure.add().request_range
        if isinstance(condition, PrefixEmpty):
            read.key = data + condition.prefix.encode()
            read.range_end = prefix_end(read.key)
            read.limit = 1
            # of an empty range etcd compares a key that is absent: modified at 0
            request.compare.add(result=_EQUAL, target=_MOD, key=read.key, range_end=read.range_end, mod_revision=0)
        else:
            read.key = data + condition.key.encode()
            request.compare.add(result=_EQUAL, target=_MOD, key=read.key, mod_revision=condition.revision)
    parts = _parts(request, len(request.compare), len(puts) + len(deletes))
    for key, value in puts.items():
        put = next(parts).success.add().request_put
        put.key, put.value = data + key.encode(), value
    for key in deletes:
        next(parts).success.add().request_delete_range.key = data + key.encode()
    return request


def _parts(request: rpc_pb2.TxnRequest, compared: int, writes: int) -> Iterator[rpc_pb2.TxnRequest]:
    """Where each write goes: the transaction itself, or, where those are too many, transactions in it that compare nothing.

    etcd counts what is in one transaction, and allows each inner one as much as its outer one leaves; it is still one revision.
    """
    if writes <= MOST:
        yield from itertools.repeat(request, writes)
        return
    for count in range(2, MOST):
        each = MOST - max(compared, count)
        if each > 0 and count * each >= writes:
            for begin in range(0, writes, each):
                yield from itertools.repeat(request.success.add().request_txn, min(each, writes - begin))
            return
    raise ValueError(f"{writes} writes under {compared - 1} conditions are more than etcd takes at once")


@dataclass(frozen=True, slots=True)
class Refenced:
    """Nothing was done, since the fence has moved to this revision; we are the writer still."""

    fence: int


def commit_outcome(
    layout: Layout, place: int, fence: int, conditions: Sequence[Condition], response: rpc_pb2.TxnResponse
) -> int | Conflict | NotWriter | Refenced:
    """The revision, or why it was refused. `place` is the create revision of our key, `fence` what was compared."""
    if response.succeeded:
        return response.header.revision
    found = [answer.response_range.kvs for answer in response.responses]
    writer = found[0]
    if not writer or writer[0].create_revision != place:
        return NotWriter(writer[0].value.decode() if writer else "")
    if writer[0].mod_revision != fence:
        return Refenced(writer[0].mod_revision)
    for condition, kvs in zip(conditions, found[1:], strict=True):
        current = record(layout, kvs[0]) if kvs else None
        if isinstance(condition, PrefixEmpty):
            if current is not None:
                return Conflict(current.key, current, response.header.revision)
        elif (current.revision if current else 0) != condition.revision:
            return Conflict(condition.key, current, response.header.revision)
    raise AssertionError("etcd refused a transaction whose conditions all hold")


def record(layout: Layout, kv: kv_pb2.KeyValue) -> Record:
    """A key of ours."""
    return Record(kv.key[len(layout.data) :].decode(), kv.value, kv.mod_revision)
