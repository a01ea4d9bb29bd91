"""knitterctl and the folder of declarations, with IP groups and claims, against a real manager."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness.ctl import Operator
from harness.daemons import Daemon, Daemons, manager_config
from harness.monitor_stack import Stack, replace_file

from knitter.v1 import manager_pb2 as pb

DECLARED = """
apiVersion: knitter.io/v1
kind: IPClaim
metadata: {name: vm-7, namespace: t1}
spec: {network: control, interface: eth0, wantedAddresses: [10.1.0.77], mac: "02:00:00:00:00:77"}
---
apiVersion: knitter.io/v1
kind: IPGroup
metadata: {name: signalling, namespace: t1}
spec:
  network: control
  ips: [10.1.0.20, 10.1.0.21]
  podSelector: {matchLabels: {app: web}}
---
apiVersion: knitter.io/v1
kind: IPGroup
metadata: {name: few}
spec: {network: t1/control, size: 3}
---
apiVersion: knitter.io/v1
kind: Network
metadata: {name: control, namespace: t1}
spec: {subnets: [{cidr: 10.1.0.0/24, gateway: 10.1.0.1}, {cidr: "2001:db8:1::/64"}]}
"""
NAMES = [
    "network/t1/control",
    "ipgroup/t1/control/signalling",
    "ipgroup/admin/t1/control/few",
    "ipclaim/t1/vm-7",
]


@pytest.fixture
async def manager(daemons: Daemons, tmp_path: Path) -> Daemon:
    """A real manager with nothing in it."""
    return await daemons.start_soon("knitter-manager", manager_config(tmp_path))


@pytest.fixture
async def operator(manager: Daemon) -> Operator:
    """With everything of DECLARED."""
    operator = Operator(manager.address)
    lines = (await operator("apply", "-f", "-", stdin=DECLARED)).splitlines()
    assert sorted(lines) == sorted(f"{name} created" for name in NAMES)
    assert lines[0].startswith("network/")
    return operator


async def test_the_same_file_again_changes_nothing(operator: Operator) -> None:
    for more in ((), ("--dry-run",)):
        again = (await operator("apply", "-f", "-", *more, stdin=DECLARED)).splitlines()
        assert all(" unchanged" in line for line in again), again
    for kind, count in (("ipgroups", 2), ("ipclaims", 1)):
        printed = await operator("get", kind, "-o", "yaml")
        assert (await operator("apply", "-f", "-", stdin=printed)).count("unchanged") == count


async def test_groups_are_shown_with_their_users(operator: Operator) -> None:
    await operator("allocate", "--pod", "t1/web-0/u1", "--network", "control:eth0=group:signalling")
    rows = [line.split() for line in (await operator("get", "ipgroups", "--no-headers")).splitlines()]
    assert ["t1", "t1/control", "signalling", "1/2"] in [[row[0], *sorted(row[1:3], reverse=True), row[3]] for row in rows]
    told = await operator("describe", "ipgroup", "t1/signalling")
    assert "10.1.0.20" in told
    assert "pod/t1/web-0" in told
    assert (await operator("get", "ipgroups", "-n", "t1", "-o", "name")) == "ipgroup/t1/t1/control/signalling\n"


async def test_groups_are_changed_and_deleted_unless_they_are_used(operator: Operator) -> None:
    await operator("allocate", "--pod", "t1/web-0/u1", "--network", "control:eth0=group:signalling")
    smaller = DECLARED.replace("[10.1.0.20, 10.1.0.21]", "[10.1.0.21]")
    refused = await operator.tries("apply", "-f", "-", stdin=smaller)
    assert (refused.code, refused.err.split()[1]) == (4, "OBJECT_IN_USE:")
    assert "10.1.0.20 is used by pod t1/web-0" in refused.err
    refused = await operator.tries("delete", "ipgroup", "signalling", "-n", "t1")
    assert (refused.code, refused.err.split()[1]) == (4, "OBJECT_IN_USE:")
    larger = DECLARED.replace("[10.1.0.20, 10.1.0.21]", "[10.1.0.20, 10.1.0.22]")
    assert "signalling configured" in await operator("apply", "-f", "-", stdin=larger)
    await operator("release", "--pod", "t1/web-0/u1")
    deleted = (await operator("delete", "-f", "-", stdin=larger)).splitlines()
    assert len(deleted) == 4
    assert deleted[-1] == "network/t1/control deleted"


async def test_a_mac_and_planes_can_be_wanted_too(operator: Operator) -> None:
    await operator(
        "allocate", "--pod", "t1/web-0/u1", "--network", "control:eth0=10.1.0.9,mac:02:00:00:00:00:0A,plane:control,plane:oam"
    )
    told = await operator("describe", "portset", "t1/web-0")
    for text in ("10.1.0.9/24", "02:00:00:00:00:0a", "control,oam"):
        assert text in told.replace("control, oam", "control,oam"), told


async def test_pods_take_by_their_labels(operator: Operator) -> None:
    told = await operator("allocate", "--pod", "t1/web-0/u1", "--network", "control:eth0", "--label", "app=web")
    assert "10.1.0.20" in told
    wrong = await operator.tries("allocate", "--pod", "t1/web-1/u1", "--network", "control", "--label", "app")
    assert (wrong.code, wrong.err.split()[1]) == (2, "FIELD_INVALID:")


async def test_claims_are_shown_used_and_deleted(operator: Operator) -> None:
    told = await operator("describe", "ipclaim", "vm-7", "-n", "t1")
    for text in ("10.1.0.77/24", "2001:db8:1::", "02:00:00:00:00:77", "nobody"):
        assert text in told
    assert "10.1.0.77/24" in await operator("get", "ipclaims")
    taken = await operator.tries("allocate", "--owner", "t1/a", "--network", "control=10.1.0.77")
    assert (taken.code, taken.err.split()[1]) == (4, "ADDRESS_TAKEN:")
    assert "claim t1/vm-7" in taken.err
    used = await operator("allocate", "--owner", "t1/vm", "--network", "control:eth0=claim:vm-7")
    assert "10.1.0.77" in used
    assert "named/t1/vm" in await operator("describe", "ipclaim", "vm-7", "-n", "t1")
    refused = await operator.tries("delete", "ipclaim", "vm-7", "-n", "t1")
    assert (refused.code, refused.err.split()[1]) == (4, "OBJECT_IN_USE:")
    await operator("release", "--owner", "t1/vm")
    await operator("delete", "ipclaim", "vm-7", "-n", "t1")
    await operator("allocate", "--owner", "t1/a", "--network", "control=10.1.0.77")


async def test_sticky_addresses_are_shown_and_released_by_hand(operator: Operator) -> None:
    first = await operator("allocate", "--pod", "t1/db-0/u1", "--network", "control:eth0", "--sticky", "--no-headers")
    await operator("release", "--pod", "t1/db-0/u1")
    assert "kept" in await operator("get", "portsets")
    again = await operator("allocate", "--pod", "t1/db-0/u2", "--network", "control:eth0", "--sticky", "--no-headers")
    assert again.split()[:4] == first.split()[:4]
    for _ in range(2):
        await operator("release", "--pod", "t1/db-0/u2")
    assert await operator("get", "portsets", "-o", "name") == ""


# -- the folder ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def stack(daemons: Daemons, tmp_path: Path) -> AsyncIterator[Stack]:
    made = Stack(daemons, tmp_path)
    yield made
    await made.close()


async def test_a_folder_declares_groups_and_claims(stack: Stack) -> None:
    network, rest = DECLARED.split("---\n")[-1], "---\n".join(DECLARED.split("---\n")[:-1])
    replace_file(stack.folder / "a.yaml", network)
    replace_file(stack.folder / "b.yaml", rest)
    await stack.start_manager()
    await stack.start_monitor()

    async def until_declared(wanted: set[tuple[str, str]]) -> None:
        async with asyncio.timeout(20):
            while True:  # the monitor applies when it has seen the file
                groups = (await stack.manager("ListIPGroups", pb.ListIPGroupsRequest())).ip_groups
                claims = (await stack.manager("ListIPClaims", pb.ListIPClaimsRequest())).ip_claims
                if {(one.name, one.source) for one in (*groups, *claims)} == wanted:
                    return
                await asyncio.sleep(0.05)

    await until_declared({("few", "files:test"), ("signalling", "files:test"), ("vm-7", "files:test")})
    replace_file(stack.folder / "b.yaml", rest.replace("10.1.0.21]", "10.1.0.22]").replace("size: 3", "size: 300"))
    (problem,) = await stack.until_problems(bool)
    assert (problem.reason, problem.object) == ("POOL_EXHAUSTED", "IPGroup admin/t1/control/few")
    (stack.folder / "b.yaml").unlink()
    await until_declared(set())
