"""A gRPC client that knows nothing but reflection, as grpcurl does: no generated stub of ours, no .proto file.

with Reflected("127.0.0.1:7470") as server:
    server.services()                                   # ["grpc.health.v1.Health", …, "knitter.v1.ManagerService"]
    server.describe("knitter.v1.ManagerService")        # "service ManagerService {\n  rpc …"
    server.call("knitter.v1.ManagerService/Allocate", {"allocation": {"owner": {"named": {…}}}})   # a dict
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

_REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


class Failed(Exception):
    """A call ended with a status. `code` is the gRPC code's name, `reason` that of google.rpc.ErrorInfo, "" without one."""

    def __init__(self, code: str, message: str, reason: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.message, self.reason = code, message, reason


class Reflected:
    """A server, as its reflection describes it. Blocking; `timeout` in seconds is for each call."""

    def __init__(self, address: str, timeout: float = 10.0) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = reflection_pb2_grpc.ServerReflectionStub(self._channel)
        self._pool = descriptor_pool.DescriptorPool()
        self._loaded: set[str] = set()
        self._files: set[str] = set()
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._channel.close()

    def services(self) -> list[str]:
        """The full name of every service."""
        response = self._ask(list_services="")
        return sorted(service.name for service in response.list_services_response.service)

    def methods(self, service: str) -> list[str]:
        """ "package.Service/Method" of each of its methods."""
        return [f"{service}/{method.name}" for method in self._service(service).methods]

    def describe(self, service: str) -> str:
        """The service as a .proto file would have it, with every field of what its methods take and give."""
        found = self._service(service)
        lines = [f"service {found.name} {{"]
        messages = []
        for method in found.methods:
            messages += [method.input_type, method.output_type]
            lines.append(
                f"  rpc {method.name}({_stream(method, 'client')}{method.input_type.name}) "
                f"returns ({_stream(method, 'server')}{method.output_type.name});"
            )
        lines.append("}")
        for message in messages:
            lines += [f"message {message.name} {{", *(f"  {field.name} = {field.number};" for field in message.fields), "}"]
        return "\n".join(lines)

    def call(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """A unary call with JSON in and JSON out. Raises Failed."""
        return next(self._call(path, request))

    def stream(self, path: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A call that is answered by a stream."""
        return self._call(path, request)

    def _call(self, path: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        service, _, name = path.partition("/")
        method = self._service(service).methods_by_name[name]
        answer = message_factory.GetMessageClass(method.output_type)
        message = json_format.ParseDict(request, message_factory.GetMessageClass(method.input_type)(), descriptor_pool=self._pool)
        kinds = {"request_serializer": type(message).SerializeToString, "response_deserializer": answer.FromString}
        try:
            if method.server_streaming:
                for response in self._channel.unary_stream(f"/{path}", **kinds)(message, timeout=self._timeout):
                    yield json_format.MessageToDict(response, descriptor_pool=self._pool)
            else:
                response = self._channel.unary_unary(f"/{path}", **kinds)(message, timeout=self._timeout)
                yield json_format.MessageToDict(response, descriptor_pool=self._pool)
        except grpc.RpcError as error:
            raise _failed(error) from error

    def _service(self, name: str) -> Any:
        if name not in self._loaded:
            contents = self._ask(file_containing_symbol=name).file_descriptor_response.file_descriptor_proto
            files = {file.name: file for file in map(descriptor_pb2.FileDescriptorProto.FromString, contents)}
            for file in list(files):
                self._add(file, files)
            self._loaded.add(name)
        return self._pool.FindServiceByName(name)

    def _add(self, name: str, files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
        """What a file imports comes before it; each is added once."""
        if name not in self._files:
            self._files.add(name)
            for imported in files[name].dependency:
                self._add(imported, files)
            self._pool.AddSerializedFile(files[name].SerializeToString())

    def _ask(self, **question: str) -> Any:
        request = reflection_pb2.ServerReflectionRequest(**question)
        response = next(self._stub.ServerReflectionInfo(iter([request]), timeout=self._timeout))
        if response.HasField("error_response"):
            raise Failed("NOT_FOUND", response.error_response.error_message, "")
        return response


def _stream(method: Any, side: str) -> str:
    return "stream " if getattr(method, f"{side}_streaming") else ""


def _failed(error: Any) -> Failed:
    """google.rpc.ErrorInfo is public: any client may know it."""
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    status = rpc_status.from_call(error)
    reason = ""
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            reason = info.reason
    return Failed(error.code().name, error.details() or "", reason)
