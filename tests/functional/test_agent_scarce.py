"""An agent whose descriptors have run out: what lives stays attached, callers are told to try again, and afterwards all goes on."""

import asyncio
import json
import os
import resource
from typing import Any

import grpc
import pytest
from harness.agent import CONF, SmallManager, agent_in, environment_of
from harness.netns import network_namespace

from knitter.v1 import agent_pb2, agent_pb2_grpc

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


async def _add(stub: Any, container: str, netns: str) -> dict[str, Any]:
    environment = environment_of("ADD", container, netns, "eth0")
    invocation = agent_pb2.Invocation(environment=environment, stdin=json.dumps(CONF).encode())
    answer = (await stub.Attach(agent_pb2.AttachRequest(invocation=invocation), timeout=10)).answer
    told: dict[str, Any] = json.loads(answer.stdout)
    return told


async def test_running_out_of_descriptors_ends_no_attachment() -> None:
    async with SmallManager() as manager:
        with (
            network_namespace("node") as node,
            network_namespace("pod") as sandbox,
            network_namespace("other") as other,
            agent_in(node, manager.address, livenessInterval=0.05, livenessGrace=0.1) as agent,
        ):
            async with grpc.aio.insecure_channel(agent.address) as channel:
                stub = agent_pb2_grpc.AgentServiceStub(channel)
                assert (await _add(stub, "c1", sandbox))["ips"]
                usual = resource.prlimit(agent.daemon.pid, resource.RLIMIT_NOFILE)
                resource.prlimit(agent.daemon.pid, resource.RLIMIT_NOFILE, (0, usual[1]))
                async with asyncio.timeout(10):
                    while agent.daemon.log().count("cannot be found out") < 5:  # noqa: ASYNC110 - another process's log
                        await asyncio.sleep(0.02)
                assert (await _add(stub, "c1", sandbox))["code"] == 11
                assert (await _add(stub, "c2", other))["code"] == 11
                resource.prlimit(agent.daemon.pid, resource.RLIMIT_NOFILE, usual)
                assert [one.container_id for one in await agent.attachments()] == ["c1"]
                assert "is gone and nobody deleted" not in agent.daemon.log()
                assert (await _add(stub, "c2", other))["ips"]
            assert (await agent.call("DEL", "c1", sandbox))[0] == 0
