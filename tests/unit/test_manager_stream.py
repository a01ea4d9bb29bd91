"""One StreamAllocations call without gRPC: outcomes are gathered, and a client that does not read is not read from."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from harness.manager import core_on, network

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.errors import Unavailable
from knitter_manager.service.stream import MOST_OPEN, MOST_OUTCOMES, Stream
from knitter_manager.store.memory import MemoryStore


def _operations(count: int) -> list[pb.AllocationOperation]:
    owner = types.Owner(named=types.NamedOwner(name="same"))
    return [pb.AllocationOperation(id=n, allocate=pb.Allocation(owner=owner)) for n in range(count)]


async def test_a_client_that_does_not_read_is_not_read_from() -> None:
    sent = 0

    async def requests() -> AsyncIterator[pb.StreamAllocationsRequest]:
        nonlocal sent
        for _ in range(100):
            yield pb.StreamAllocationsRequest(operations=_operations(500))
            sent += 500

    async with core_on(MemoryStore()) as core:
        await core.networks.create(network("default", "10.0.0.0/24"))
        answers = Stream(core.sets, core.role.parting, core.journals).run(requests())
        first = await anext(answers)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert MOST_OPEN - 500 <= sent < MOST_OPEN + 500
        counts = [len(first.outcomes)]
        async for answer in answers:
            counts.append(len(answer.outcomes))
        assert sum(counts) == sent == 50_000
        assert max(counts) == MOST_OUTCOMES
        assert not core.cluster.tenant("admin").pending_ports


async def test_an_ending_manager_answers_what_is_open_and_ends_the_stream() -> None:
    endless = asyncio.Event()

    async def requests() -> AsyncIterator[pb.StreamAllocationsRequest]:
        yield pb.StreamAllocationsRequest(operations=_operations(3))
        await endless.wait()

    async with core_on(MemoryStore()) as core:
        await core.networks.create(network("default", "10.0.0.0/24"))
        answers = Stream(core.sets, core.role.parting, core.journals).run(requests())
        first = await anext(answers)
        core.role.end()
        rest: list[pb.StreamAllocationsResponse] = []

        async def read() -> None:
            async for answer in answers:
                rest.append(answer)

        with pytest.raises(Unavailable, match="ending"):
            await read()
        assert sum(len(one.outcomes) for one in (first, *rest)) == 3
