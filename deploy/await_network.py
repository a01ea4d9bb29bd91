"""Waits until a manager tells a network: await_network.py MANAGER TENANT NAME SECONDS. Exit code 1 when it does not in time."""

import sys

import grpc

from knitter.v1 import manager_pb2, manager_pb2_grpc


def told(manager: str, tenant: str, name: str, seconds: float) -> bool:
    """The feed has told the network before the time was over."""
    with grpc.insecure_channel(manager) as channel:
        stub = manager_pb2_grpc.ManagerServiceStub(channel)
        try:
            for response in stub.Changes(manager_pb2.ChangesRequest(), timeout=seconds):
                if any((change.network.tenant, change.network.name) == (tenant, name) for change in response.changes.changes):
                    return True
        except grpc.RpcError as error:
            print(f"{manager}: {error.code().name}", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(0 if told(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])) else 1)
