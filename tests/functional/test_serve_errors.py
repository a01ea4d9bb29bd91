"""knitter_common.serve: what a handler raises is told as a status with its reason, whatever it is."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import manager_pb2_grpc
from knitter_common.errors import Invalid, KnitterError, from_rpc_error
from knitter_common.serve import GrpcServer, ServerSettings
from knitter_common.settings import Seconds


class Servicer(manager_pb2_grpc.ManagerServiceServicer):
    """Answers little, and that with trouble; the rest is the stub's."""

    async def GetNode(self, request: Any, context: Any) -> Any:
        """Refuses with the name."""
        raise Invalid("FIELD_INVALID", f"name: {request.name!r} is no name; use a-z", field="name", value=request.name)

    async def GetNetwork(self, request: Any, context: Any) -> Any:
        """A defect."""
        raise NotImplementedError("a secret")

    async def Changes(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Refuses after the first message."""
        yield pb.ChangesResponse()
        raise Invalid("FIELD_INVALID", "after_revision: is wrong", field="after_revision")


@pytest.fixture
async def stub() -> AsyncIterator[Any]:
    server = GrpcServer("127.0.0.1:0", ServerSettings(grace=Seconds(0.1)), ["knitter.v1.ManagerService"])
    manager_pb2_grpc.add_ManagerServiceServicer_to_server(Servicer(), server.grpc)
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield manager_pb2_grpc.ManagerServiceStub(channel)
    await server.stop()


async def refused(call: Any) -> tuple[grpc.StatusCode, KnitterError]:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value.code(), from_rpc_error(failed.value)


async def test_what_the_service_does_not_do_yet_is_told_so(stub: Any) -> None:
    code, error = await refused(stub.GetTenant(pb.GetTenantRequest()))
    assert (code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_IMPLEMENTED")
    assert "GetTenant" in error.message


async def test_a_defect_tells_nothing_of_itself(stub: Any) -> None:
    code, error = await refused(stub.GetNetwork(pb.GetNetworkRequest()))
    assert (code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in error.message


@pytest.mark.parametrize("sign", ["x", "ä", "😀", "\0", "%", "\n"])
async def test_an_error_about_a_huge_value_arrives(stub: Any, sign: str) -> None:
    code, error = await refused(stub.GetNode(pb.GetNodeRequest(name=sign * 500_000)))
    assert (code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert error.message.startswith("name: ")
    assert error.message.endswith("use a-z")


async def test_a_stream_that_fails_later_tells_why(stub: Any) -> None:
    call = stub.Changes(pb.ChangesRequest())
    assert await call.read() == pb.ChangesResponse()
    code, error = await refused(call.read())
    assert (code, error.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "after_revision")
