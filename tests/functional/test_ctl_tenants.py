"""knitterctl and the folder of declarations, with tenants and every field of networks, against a real manager."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from harness.ctl import Operator
from harness.daemons import Daemon, Daemons, manager_config
from harness.monitor_stack import Stack, replace_file

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types

TENANTS = """
apiVersion: knitter.io/v1
kind: Tenant
metadata: {name: t1, labels: {tier: gold}}
spec:
  description: the first
  quota: {networks: 2, ports: 3, addresses: 4}
  allowedTypes: [bridge, vlan]
  allowedPhysicalNetworks: [phys0]
"""
NETWORKS = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: rich, namespace: t1}
spec:
  type: vlan
  physicalNetwork: phys0
  segmentationId: 77
  exportedTo: [t2]
  usableBy:
    nodes:
      matchLabels: {rack: a}
      matchExpressions: [{key: gpu, operator: In, values: [x, y]}, {key: old, operator: DoesNotExist}]
  mtu: 1400
  subnets:
  - cidr: 10.1.0.0/24
    gateway: 10.1.0.1
    pools: [{start: 10.1.0.10, end: 10.1.0.20}, {start: 10.1.0.30, end: 10.1.0.40, usableBy: {pods: {}}}]
    exclude: [10.1.0.15]
  - {cidr: "2001:db8::/64", gateway: "2001:db8::1"}
  routes: [{destination: 10.9.0.0/16, metric: 5}]
  dns: {nameservers: [10.1.0.53], search: [a.b]}
  masquerade: true
  rest: 90s
  description: everything
---
apiVersion: knitter.io/v1
kind: Network
metadata: {name: outside, namespace: admin}
spec: {type: macvlan, physicalNetwork: eth9, external: true, externalGateway: true, public: true}
"""


@pytest.fixture
async def manager(daemons: Daemons, tmp_path: Path) -> Daemon:
    return await daemons.start_soon("knitter-manager", manager_config(tmp_path))


@pytest.fixture
def operator(manager: Daemon) -> Operator:
    return Operator(manager.address)


async def test_a_tenant_is_made_shown_limited_and_deleted(operator: Operator) -> None:
    assert await operator("apply", "-f", "-", stdin=TENANTS + "---" + NETWORKS) == (
        "tenant/t1 created\nnetwork/t1/rich created\nnetwork/admin/outside created\n"
    )
    assert (await operator("apply", "-f", "-", stdin=TENANTS + "---" + NETWORKS)).count("unchanged") == 3
    rows = [line.split() for line in (await operator("get", "tenants")).splitlines()]
    assert rows[0] == ["NAME", "STATE", "NETWORKS", "PORTS", "ADDRESSES", "AGE"]
    assert ["t1", "active", "1/2", "0/3", "0/4"] in [row[:5] for row in rows]
    described = await operator("describe", "tenant", "t1")
    for text in ("tier=gold", "bridge, vlan", "phys0", "the first"):
        assert text in described
    lines = [" ".join(line.split()) for line in (await operator("describe", "network", "rich", "-n", "t1")).splitlines()]
    for text in (
        "Exported to: t2",
        "MTU: 1400",
        "Rest: 90s",
        "DNS: 10.1.0.53",
        "DNS search: a.b",
        "Usable by: nodes rack=a, gpu in (x, y), !old",
        "10.9.0.0/16 - 5 -",
        "10.1.0.0/24 10.1.0.1 10.1.0.10-10.1.0.20, 10.1.0.30-10.1.0.40 (pods all) 10.1.0.15",
    ):
        assert text in lines, lines
    assert "DNS domain:" not in "".join(lines)
    await operator("allocate", "--pod", "t1/web-0/u1", "--network", "outside", "--network", "outside")
    lower = await operator.tries("apply", "-f", "-", stdin=TENANTS.replace("ports: 3", "ports: 1"))
    assert lower.code == 4
    assert "OBJECT_IN_USE" in lower.err
    assert "quota.ports: 1 is below the 2" in lower.err
    more = await operator.tries("allocate", "--pod", "t1/web-1/u2", "--network", "outside", "--network", "outside")
    assert "QUOTA_EXCEEDED" in more.err
    builtin = await operator.tries("delete", "tenant", "admin")
    assert "OBJECT_BUILT_IN" in builtin.err
    assert await operator("delete", "tenant", "t1") == "tenant/t1 deleting\n"
    assert "pod t1/web-0" in await operator("describe", "tenant", "t1")
    assert "pod t1/web-0" in await operator("get", "tenant", "t1", "-o", "yaml")
    await operator("release", "--pod", "t1/web-0/u1")
    async with asyncio.timeout(20):
        while "tenant/t1" in await operator("get", "tenants", "-o", "name"):  # noqa: ASYNC110 - another process ends it
            await asyncio.sleep(0.1)
    assert await operator("get", "networks", "-o", "name") == "network/admin/outside\n"


async def test_what_is_not_declared_any_more_is_not_there_any_more(operator: Operator) -> None:
    await operator("apply", "-f", "-", stdin=TENANTS + "---" + NETWORKS)
    less = NETWORKS.replace("  masquerade: true\n", "").replace("  segmentationId: 77\n", "")
    for dry in (("--dry-run",), ()):
        assert (await operator("apply", *dry, "-f", "-", stdin=less)).startswith("network/t1/rich configured")
    told = await operator("get", "network", "rich", "-n", "t1", "-o", "yaml")
    assert "masquerade" not in told
    assert "segmentationId: 77" in told  # the manager's to keep, where nobody says anything
    assert (await operator("apply", "--dry-run", "-f", "-", stdin=less)).count("unchanged") == 2


@pytest.fixture
async def stack(daemons: Daemons, tmp_path: Path) -> AsyncIterator[Stack]:
    made = Stack(daemons, tmp_path)
    yield made
    await made.close()


async def test_a_folder_declares_tenants_and_networks(stack: Stack) -> None:
    replace_file(stack.folder / "a.yaml", NETWORKS)
    replace_file(stack.folder / "b.yaml", TENANTS)
    await stack.start_manager()
    await stack.start_monitor()
    await stack.until_network("outside", bool)

    async def tenant() -> types.Tenant | None:
        found = (await stack.manager("ListTenants", pb.ListTenantsRequest())).tenants
        return next((one for one in found if one.name == "t1"), None)

    async def rich() -> types.Network | None:
        found = (await stack.manager("ListNetworks", pb.ListNetworksRequest())).networks
        return next((one for one in found if one.name == "rich"), None)

    async def until(look: Callable[[], Awaitable[Any]], holds: Callable[[Any], object]) -> Any:
        async with asyncio.timeout(20):
            while not holds(found := await look()):  # noqa: ASYNC110 - another process changes it
                await asyncio.sleep(0.05)
        return found

    network = await until(rich, bool)
    assert (network.segmentation_id, network.mtu, list(network.exported_to), network.rest.seconds) == (77, 1400, ["t2"], 90)
    assert [len(subnet.pools) for subnet in network.subnets] == [2, 0]
    assert network.source == "files:test"
    made = await until(tenant, bool)
    assert (made.quota, made.source) == (types.Quota(networks=2, ports=3, addresses=4), "files:test")
    replace_file(stack.folder / "a.yaml", NETWORKS.replace("  masquerade: true\n", "").replace("end: 10.1.0.40", "end: 10.1.0.44"))
    await until(rich, lambda found: not found.masquerade and found.subnets[0].pools[1].end == "10.1.0.44")
    replace_file(stack.folder / "b.yaml", TENANTS.replace("networks: 2", "networks: 1001"))
    await stack.until_problems(lambda found: any("quota.networks" in problem.message for problem in found))
    replace_file(stack.folder / "a.yaml", NETWORKS.split("---")[1])
    (stack.folder / "b.yaml").unlink()
    await until(tenant, lambda found: found is None)
