"""knitterctl against a real manager: the story of an operator, and every exit code a script may see."""

import asyncio
import signal
from pathlib import Path

import pytest
import yaml
from harness.ctl import KNITTERCTL, Result, ctl, environment
from harness.daemons import Daemon, Daemons, manager_config

EXAMPLES = str(Path(__file__).resolve().parent.parent.parent / "deploy" / "examples" / "networks.yaml")
SMALL = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: small}
spec: {subnets: [{cidr: 10.79.0.0/30}]}
"""


@pytest.fixture
async def manager(daemons: Daemons, tmp_path: Path) -> Daemon:
    """A real manager without any network."""
    return await daemons.start_soon("knitter-manager", manager_config(tmp_path))


class Operator:
    """Who runs knitterctl against one manager."""

    def __init__(self, manager: Daemon) -> None:
        self.manager = manager

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Its output; the command must succeed."""
        result = await self.tries(*arguments, stdin=stdin)
        assert result.code == 0, result.err
        return result.out

    async def tries(self, *arguments: str, stdin: str = "") -> Result:
        """However it ends."""
        return await ctl(*arguments, manager=self.manager.address, stdin=stdin)


@pytest.fixture
def operator(manager: Daemon) -> Operator:
    """Runs knitterctl."""
    return Operator(manager)


async def test_networks_are_applied_shown_changed_and_deleted(operator: Operator) -> None:
    created = (await operator("apply", "-f", EXAMPLES)).splitlines()
    assert created == ["network/admin/control created", "network/admin/media created", "network/admin/oam created"]
    assert (await operator("apply", "-f", EXAMPLES)).count("unchanged") == 3
    rows = [line.split() for line in (await operator("get", "networks")).splitlines()]
    assert rows[0] == ["TENANT", "NAME", "TYPE", "SUBNETS", "SHARED", "STATE", "AGE"]
    assert ["admin", "media", "bridge", "10.72.0.0/24,2001:db8:72::/64", "public", "active"] in [row[:6] for row in rows]
    assert "10.71.0.10-10.71.0.200" in await operator("describe", "network", "control")
    changed = Path(EXAMPLES).read_text().replace("signalling, IPv4", "signalling")
    assert (await operator("apply", "-f", "-", stdin=changed)).splitlines()[0] == "network/admin/control configured"
    deleted = (await operator("delete", "-f", EXAMPLES)).splitlines()
    assert deleted == ["network/admin/oam deleted", "network/admin/media deleted", "network/admin/control deleted"]
    assert await operator("get", "networks", "-o", "name") == ""


async def test_what_get_prints_can_be_applied_again(operator: Operator) -> None:
    await operator("apply", "-f", EXAMPLES)
    for form in ("yaml", "json"):
        printed = await operator("get", "networks", "-o", form)
        assert (await operator("apply", "-f", "-", stdin=printed)).count("unchanged") == 3
    await operator("delete", "networks", "control", "media", "oam")
    assert (await operator("apply", "-f", "-", stdin=printed)).count("created") == 3


async def test_a_port_set_is_allocated_shown_and_released_by_hand(operator: Operator) -> None:
    await operator("apply", "-f", EXAMPLES)
    wanted = ("allocate", "--owner", "voice/db", "--network", "control:eth0=10.71.0.77", "--network", "media:eth1", "--node", "n1")
    first = (await operator(*wanted, "--no-headers")).split()
    interfaces = ["eth0=admin/control:10.71.0.77", "eth1=admin/media:10.72.0.2,2001:db8:72::2"]
    assert first[:5] == ["named/voice/db", "n1", "reserved", *interfaces]
    assert (await operator(*wanted, "--no-headers")).split()[:5] == first[:5]
    other = await operator.tries("allocate", "--owner", "voice/db", "--network", "oam")
    assert (other.code, other.err.split()[1]) == (4, "OWNER_HAS_OTHER_WISHES:")
    assert (await operator("get", "portsets", "--network", "media", "-o", "name")) == "portset/named/voice/db\n"
    assert (await operator("get", "ps", "--address", "10.71.0.77", "-o", "name")) == "portset/named/voice/db\n"
    assert (await operator("get", "ps", "--node", "n2", "-o", "name")) == ""
    told = await operator("describe", "portset", "db")
    assert "10.71.0.77/24" in told
    assert "2001:db8:72::2/64" in told
    document = yaml.safe_load(await operator("get", "ps", "voice/db", "-o", "yaml"))
    assert document["spec"]["owner"] == {"named": {"tenant": "voice", "name": "db"}}
    assert "named/voice/db" in await operator("describe", "network", "media")
    assert await operator("release", "--owner", "voice/db") == "portset/named/voice/db released\n"
    assert await operator("release", "--owner", "voice/db") == "portset/named/voice/db released\n"
    assert await operator("get", "portsets", "-o", "name") == ""


async def test_pods_and_sandboxes_can_own_too(operator: Operator) -> None:
    await operator("apply", "-f", EXAMPLES)
    await operator("allocate", "--pod", "voice/web-0/u1", "--network", "control")
    await operator("allocate", "--sandbox", "n1/0123456789abcdef/knitter/eth0", "--network", "control")
    rows = [line.split()[:2] for line in (await operator("get", "portsets", "--no-headers")).splitlines()]
    assert sorted(rows) == [["pod/voice/web-0", "-"], ["sandbox/n1/0123456789ab/knitter/eth0", "n1"]]
    await operator("delete", "portset", "voice/web-0", "0123456789ab")
    assert await operator("get", "portsets", "-o", "name") == ""


async def test_scripts_see_what_went_wrong_by_the_exit_code(operator: Operator) -> None:
    await operator("apply", "-f", "-", stdin=SMALL)
    await operator("allocate", "--owner", "admin/a", "--network", "small")
    taken = (await operator("get", "ps", "admin/a", "--no-headers")).split()[3].rpartition(":")[2]
    cases = [
        (("get", "network", "none"), 3, "NETWORK_NOT_FOUND"),
        (("get", "node", "none"), 3, "OBJECT_NOT_FOUND"),
        (("describe", "portset", "none"), 3, "OBJECT_NOT_FOUND"),
        (("delete", "network", "none"), 3, "NETWORK_NOT_FOUND"),
        (("delete", "network", "small"), 4, "OBJECT_IN_USE"),
        (("allocate", "--owner", "admin/b", "--network", f"small={taken}"), 4, "ADDRESS_TAKEN"),
        (("allocate", "--owner", "admin/b", "--network", "none"), 3, "NETWORK_NOT_FOUND"),
        (("allocate", "--owner", "admin/b", "--network", "small=10.80.0.1"), 2, "ADDRESS_UNUSABLE"),
        (("node", "forget", "none"), 3, "OBJECT_NOT_FOUND"),
    ]
    for arguments, code, reason in cases:
        result = await operator.tries(*arguments)
        assert (result.code, result.out) == (code, ""), (arguments, result)
        assert result.err.startswith(f"error: {reason}: "), (arguments, result.err)
        assert "\nway out: " in result.err
    await operator("delete", "network", "none", "--ignore-not-found")
    await operator("allocate", "--owner", "admin/b", "--network", "small")
    full = await operator.tries("allocate", "--owner", "admin/c", "--network", "small")
    assert (full.code, full.err.split()[1]) == (6, "POOL_EXHAUSTED:")


async def test_one_object_that_fails_leaves_the_others_done(operator: Operator) -> None:
    await operator("apply", "-f", "-", stdin=SMALL)
    await operator("allocate", "--owner", "admin/a", "--network", "small")
    moved = SMALL.replace("10.79", "10.78")
    good = SMALL.replace("small", "good").replace("10.79", "10.77")
    result = await operator.tries("apply", "-f", "-", stdin=f"{moved}---{good}")
    assert result.out == "network/admin/good created\n"
    assert result.err.startswith("error: OBJECT_IN_USE: network/admin/small (standard input): ")
    assert result.code == 4


async def test_watch_tells_what_happens_as_it_happens(operator: Operator) -> None:
    await operator("apply", "-f", EXAMPLES)
    process = await asyncio.create_subprocess_exec(
        KNITTERCTL, "watch", "networks", "portsets", stdout=asyncio.subprocess.PIPE, env=environment(operator.manager.address)
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        there = [(await process.stdout.readline()).decode().split()[1:3] for _ in range(3)]
        assert sorted(there) == [["there", f"network/admin/{name}"] for name in ("control", "media", "oam")]
        await operator("allocate", "--owner", "admin/db", "--network", "oam")
        line = (await process.stdout.readline()).decode()
        assert line.split()[1:3] == ["added", "portset/named/admin/db"]
        assert "oam:10.73.0.1" in line
        await operator("release", "--owner", "admin/db")
        assert (await process.stdout.readline()).decode().split()[1:3] == ["deleted", "portset/named/admin/db"]
        await operator("delete", "network", "oam")
        assert (await process.stdout.readline()).decode().split()[1:3] == ["deleted", "network/admin/oam"]
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def test_watch_goes_on_when_the_manager_was_restarted(daemons: Daemons, tmp_path: Path) -> None:
    socket = f"unix:{tmp_path}/run/manager.sock"
    config = manager_config(tmp_path) | {"listen": socket}
    manager = await daemons.start_soon("knitter-manager", config)
    operator = Operator(manager)
    process = await asyncio.create_subprocess_exec(
        KNITTERCTL, "watch", "networks", stdout=asyncio.subprocess.PIPE, env=environment(socket)
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(40):
            await operator("apply", "-f", "-", stdin=SMALL)
            assert (await process.stdout.readline()).decode().split()[2] == "network/admin/small"
            manager.kill()
            await daemons.start_soon("knitter-manager", config)
            await operator("delete", "network", "small")
            assert (await process.stdout.readline()).decode().split()[1:3] == ["deleted", "network/admin/small"]
    finally:
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def test_an_object_from_elsewhere_is_refused_until_it_is_adopted(operator: Operator) -> None:
    await operator("apply", "-f", "-", stdin=SMALL)
    adopted = await operator.tries("adopt", "network", "small", "--source", "files:core")
    if "NOT_IMPLEMENTED" in adopted.err:
        pytest.skip("this manager does not adopt yet")
    assert adopted.out == "network/admin/small adopted by files:core\n", adopted.err
    changed = SMALL.replace("spec: {", "spec: {mtu: 1400, ")
    refused = await operator.tries("apply", "-f", "-", stdin=changed)
    assert (refused.code, refused.err.split()[1]) == (4, "SOURCE_FOREIGN:")
    await operator("adopt", "network", "small")
    assert await operator("apply", "-f", "-", stdin=changed) == "network/admin/small configured\n"
