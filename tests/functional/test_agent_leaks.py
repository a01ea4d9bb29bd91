"""Thousands of attachments leave the agent as it was: descriptors, threads, memory; no link, nftables table, journal row, set.

KNITTER_LEAK_CYCLES says how many (2,000 in CI; 10,000 on request). The calls go to the agent's socket as the plugin sends them,
four namespaces at a time, so that deletes are gathered and adds wait for them as they do on a busy node.
"""

import asyncio
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness.netns import entered, network_namespace
from harness.node import Node, node_up

from knitter.v1 import agent_pb2, agent_pb2_grpc

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"), pytest.mark.timeout(1800)]

CYCLES = int(os.environ.get("KNITTER_LEAK_CYCLES", "2000"))
WARM_UP = 200
AT_ONCE = 4
MEMORY_SLACK_KIB = 6 * 1024  # allocators keep some; 2,000 leaked attachments of a few KiB each would be more

NETWORKS = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: left}
spec: {rest: 0s, masquerade: true, subnets: [{cidr: 10.84.0.0/24, gateway: 10.84.0.1}]}
---
apiVersion: knitter.io/v1
kind: Network
metadata: {name: right}
spec: {rest: 0s, subnets: [{cidr: 10.85.0.0/24}, {cidr: "2001:db8:85::/64", gateway: "2001:db8:85::1"}]}
"""
CONFIG = json.dumps(
    {
        "cniVersion": "1.0.0",
        "name": "leaks",
        "type": "knitter-cni",
        "defaultNetwork": "admin/left",
        "networks": {"ports": [{"attach_to_network": "right", "attributes": {"nic_name": "net1"}}]},
    }
).encode()


@dataclass(frozen=True)
class Footprint:
    """What a process holds."""

    descriptors: int
    threads: int
    resident_kib: int


def footprint(pid: int) -> Footprint:
    """As /proc says."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Footprint(len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]), int(status["VmRSS"].split()[0]))  # noqa: PTH208


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with two networks, one of them with an nftables table."""
    with node_up("leaks") as made:
        made.ctl("apply", "-f", "-", text=NETWORKS)
        yield made


async def cycle(stub: Any, netns: str, cycles: int) -> None:
    """ADD and DEL, again and again."""
    for _ in range(cycles):
        environment = {
            "CNI_CONTAINERID": uuid.uuid4().hex, "CNI_NETNS": netns, "CNI_IFNAME": "eth0", "CNI_PATH": "/usr/lib/cni",
        }  # fmt: skip
        encoded = {key: value.encode() for key, value in environment.items()}
        add = agent_pb2.Invocation(environment={**encoded, "CNI_COMMAND": b"ADD"}, stdin=CONFIG, request_id="0" * 16)
        added = await stub.Attach(agent_pb2.AttachRequest(invocation=add), timeout=60)
        assert added.answer.exit_code == 0, added.answer.stdout
        delete = agent_pb2.Invocation(environment={**encoded, "CNI_COMMAND": b"DEL"}, stdin=CONFIG, request_id="0" * 16)
        deleted = await stub.Detach(agent_pb2.DetachRequest(invocation=delete), timeout=60)
        assert deleted.answer.exit_code == 0, deleted.answer.stdout


async def run(node: Node, spaces: list[str], cycles: int) -> None:
    """`cycles` in all."""
    async with grpc.aio.insecure_channel(f"unix:{node.lines['agent']}") as channel:
        stub = agent_pb2_grpc.AgentServiceStub(channel)
        await asyncio.gather(*(cycle(stub, space, cycles // AT_ONCE) for space in spaces))


def tables(node: Node) -> str:
    """The nftables tables of the node."""
    with entered(node.netns):
        return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


async def test_thousands_of_attachments_leave_nothing(node: Node) -> None:
    before = tables(node)
    with ExitStack() as stack:
        spaces = [stack.enter_context(network_namespace(f"leak{index}")) for index in range(AT_ONCE)]
        await run(node, spaces, WARM_UP)
        node.assert_nothing_left()
        early = footprint(node.pid("knitter-agent"))
        await run(node, spaces, CYCLES)
        node.assert_nothing_left()
        late = footprint(node.pid("knitter-agent"))
    assert late.descriptors <= early.descriptors + 2, (early, late)
    assert late.threads <= early.threads + 1, (early, late)
    assert late.resident_kib <= early.resident_kib + MEMORY_SLACK_KIB, (early, late)
    assert tables(node) == before
