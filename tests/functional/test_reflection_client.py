"""A client that knows nothing but reflection lists and describes every service, allocates and releases; grpcurl does the same."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.daemons import Daemon, Daemons, manager_config
from harness.go_tools import go_tool
from harness.reflection import Failed, Reflected

MANAGER = "knitter.v1.ManagerService"
NETWORK = {"network": {"tenant": "admin", "name": "control", "type": "NETWORK_TYPE_BRIDGE", "subnets": [{"cidr": "10.7.0.0/24"}]}}
OWNER = {"named": {"tenant": "admin", "name": "db"}}


@pytest.fixture
def manager(daemons: Daemons, tmp_path: Path) -> Daemon:
    """A real manager."""
    return daemons.start("knitter-manager", manager_config(tmp_path))


@pytest.fixture
def server(manager: Daemon) -> Iterator[Reflected]:
    """What its reflection says."""
    with Reflected(manager.address) as reflected:
        yield reflected


def test_every_service_is_listed_and_described(server: Reflected) -> None:
    services = server.services()
    assert {MANAGER, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= set(services)
    for service in services:
        text = server.describe(service)
        assert text.startswith("service ")
        assert server.methods(service)
    described = server.describe(MANAGER)
    assert "rpc StreamAllocations(stream StreamAllocationsRequest) returns (stream StreamAllocationsResponse);" in described


def test_health_is_serving(server: Reflected) -> None:
    for service in ("", MANAGER):
        assert server.call("grpc.health.v1.Health/Check", {"service": service}) == {"status": "SERVING"}


def test_it_makes_a_network_allocates_and_releases(server: Reflected) -> None:
    made = server.call(f"{MANAGER}/CreateNetwork", NETWORK)["network"]
    assert made["id"]
    wanted = {"allocation": {"owner": OWNER, "wishes": [{"network": "control", "interface": "eth0"}]}}
    first = server.call(f"{MANAGER}/Allocate", wanted)["portSet"]
    assert first["ports"][0]["addresses"][0]["cidr"].startswith("10.7.0.")
    assert server.call(f"{MANAGER}/Allocate", wanted)["portSet"] == first
    assert server.call(f"{MANAGER}/Release", {"release": {"owner": OWNER}}) == {}
    with pytest.raises(Failed) as caught:
        server.call(f"{MANAGER}/GetPortSet", {"owner": OWNER})
    assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "OBJECT_NOT_FOUND")


def test_it_reads_the_feed_of_changes(server: Reflected) -> None:
    server.call(f"{MANAGER}/CreateNetwork", NETWORK)
    seen = []
    for message in server.stream(f"{MANAGER}/Changes", {}):
        seen.append(message)
        if "synced" in message:
            break
    assert "reset" in seen[0]
    changes = [change for message in seen for change in message.get("changes", {}).get("changes", [])]
    names = [change["network"]["name"] for change in changes if "network" in change]
    assert names == ["control"]


@pytest.mark.timeout(330)
async def test_grpcurl_does_the_same(manager: Daemon) -> None:
    known = shutil.which("grpcurl")
    program = known or str(await asyncio.to_thread(go_tool, "github.com/fullstorydev/grpcurl/cmd/grpcurl", "v1.9.3"))

    async def run(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            program, "-plaintext", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode()

    services = (await run(manager.address, "list")).split()
    assert MANAGER in services
    for service in services:
        assert "is a service" in await run(manager.address, "describe", service)
    await run("-d", json.dumps(NETWORK), manager.address, f"{MANAGER}/CreateNetwork")
    wanted = {"allocation": {"owner": OWNER, "wishes": [{"network": "control"}]}}
    answer = json.loads(await run("-d", json.dumps(wanted), manager.address, f"{MANAGER}/Allocate"))
    ports = answer["port_set"]["ports"]  # Python's descriptors carry no JSON names, so grpcurl shows those of the .proto file
    assert ports[0]["network"] == "admin/control"
    await run("-d", json.dumps({"release": {"owner": OWNER}}), manager.address, f"{MANAGER}/Release")
    assert json.loads(await run("-d", "{}", manager.address, f"{MANAGER}/ListPortSets")).get("port_sets", []) == []
