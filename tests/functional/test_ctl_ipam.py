"""knitterctl ipam against real managers, on SQLite and etcd, with a real agent in a namespace: what is used is shown; what is
broken in the store's file or in a journal is found, repaired, or given back by hand; what is in use is refused."""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import etcd
from harness.agent import AgentProcess, agent_in, gone
from harness.ctl import Result, ctl
from harness.daemons import Daemon, Daemons
from harness.netns import network_namespace

from knitter_manager.store import StoreSettings, open_store

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
    pytest.mark.timeout(120),
]

CONF = {"networks": '{"ports": [{"attach_to_network": "admin/media", "attributes": {"nic_name": "net1", "function": "media"}}]}'}
DECLARED = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: default}
spec: {rest: 0s, subnets: [{cidr: 10.84.0.0/28, gateway: 10.84.0.1}]}
---
apiVersion: knitter.io/v1
kind: Network
metadata: {name: media}
spec:
  public: true
  rest: 0s
  subnets: [{cidr: 10.85.0.0/24, gateway: 10.85.0.1, pools: [{start: 10.85.0.10, end: 10.85.0.29}]}, {cidr: "2001:db8:85::/64"}]
---
apiVersion: knitter.io/v1
kind: Network
metadata: {name: wire}
---
apiVersion: knitter.io/v1
kind: Tenant
metadata: {name: t1}
spec: {quota: {ports: 5, addresses: 20}}
---
apiVersion: knitter.io/v1
kind: IPGroup
metadata: {name: few}
spec: {network: media, ips: [10.85.0.20, 10.85.0.21]}
---
apiVersion: knitter.io/v1
kind: IPClaim
metadata: {name: vm-7, namespace: t1}
spec: {network: admin/media, wantedAddresses: [10.85.0.25]}
"""


class Site:
    """A manager on a socket of its own, over a store of that kind."""

    def __init__(self, kind: str, home: Path) -> None:
        self.home, self.address = home, f"unix:{home}/manager.sock"
        self.store = store_in(kind, home)
        self.daemons = Daemons(home)
        self.manager = self.start()

    def start(self, address: str = "", name: str = "manager") -> Daemon:
        """A manager on the store."""
        config = {"listen": address or self.address, "store": self.store, "heartbeat": 0.5}
        return self.daemons.start("knitter-manager", config, name=name)

    async def ctl(self, *arguments: str, text: str = "", code: int = 0, manager: str = "") -> Result:
        """knitterctl, which must end with this code."""
        result = await ctl(*arguments, manager=manager or self.address, stdin=text)
        assert result.code == code, result.out + result.err
        return result

    async def rows(self, *arguments: str) -> list[list[str]]:
        """The words of each line of a table."""
        return (await self.ctl(*arguments, "--no-headers")).rows()

    @contextlib.asynccontextmanager
    async def broken(self) -> AsyncIterator[dict[str, bytes | None]]:
        """The manager is stopped; what the block puts into the dict is written into its store (None deletes)."""
        assert self.manager.terminate() == 0
        writes: dict[str, bytes | None] = {}
        yield writes
        if self.store["kind"] == "sqlite":
            self._write_file(writes)
        else:
            await self._write(writes)
        self.manager = await asyncio.to_thread(self.start)

    def _write_file(self, writes: dict[str, bytes | None]) -> None:
        """Behind the store's back."""
        with contextlib.closing(sqlite3.connect(self.store["path"])) as database, database:
            for key, value in writes.items():
                if value is None:
                    database.execute("DELETE FROM records WHERE key = ?", (key,))
                else:
                    database.execute("INSERT OR REPLACE INTO records SELECT ?, ?, max(revision) FROM records", (key, value))

    async def _write(self, writes: dict[str, bytes | None]) -> None:
        store = await open_store(StoreSettings(**{**self.store, "endpoints": tuple(self.store["endpoints"])}))
        await store.acquire_writer("test")
        puts = {key: value for key, value in writes.items() if value is not None}
        await store.commit([], puts, [key for key, value in writes.items() if value is None])
        await store.close()

    async def network_id(self, name: str) -> str:
        """A network's."""
        (row,) = [row for row in await self.rows("ipam", "show", "-o", "wide") if row[0] == f"admin/{name}"][:1]
        return row[-1]


def store_in(kind: str, folder: Path) -> dict[str, Any]:
    """The settings of an empty store."""
    if kind == "sqlite":
        return {"kind": "sqlite", "path": str(folder / "store.db")}
    return {
        "kind": "etcd",
        "endpoints": list(etcd.shared().endpoints),
        "prefix": f"/test/{secrets.token_hex(6)}/",
        "compact": False,
    }


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ki-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


BOTH = pytest.mark.parametrize("site", ["sqlite", "etcd"], indirect=True)


@pytest.fixture(params=["sqlite"])
async def site(request: pytest.FixtureRequest, home: Path) -> AsyncIterator[Site]:
    made = Site(request.param, home)
    try:
        await made.ctl("apply", "-f", "-", text=DECLARED)
        yield made
    finally:
        made.daemons.close()


@contextlib.contextmanager
def node_of(site: Site) -> Iterator[tuple[AgentProcess, str]]:
    """An agent in a namespace, and a sandbox's namespace."""
    with network_namespace("node") as node, network_namespace("pod") as sandbox, agent_in(node, site.address) as agent:
        yield agent, sandbox


async def test_what_is_used_is_shown(site: Site) -> None:
    media = ("--network", "media:eth0=10.85.0.10", "--network", "wire:eth1")
    await site.ctl("allocate", "--pod", "t1/web-0/u1", "--node", "n1", *media[:2])
    await site.ctl("allocate", "--owner", "admin/db", "--network", "media=group:few", "--network", "wire")
    await site.ctl("allocate", "--pod", "t1/web-1/u1", "--network", "media", "--sticky")
    await site.ctl("release", "--pod", "t1/web-1/u1")
    rows = await site.rows("ipam", "show")
    assert [row[:2] for row in rows] == [["admin/default", "0"], ["admin/media", "3"], ["admin/media", "3"], ["admin/wire", "1"]]
    assert rows[1][2:] == ["10.85.0.0/24", "10.85.0.10-10.85.0.29", "20", "3", "2", "0", "15", "25%"]
    assert rows[2][4:6] == ["≥1.8e19", "4"]
    assert rows[2][-1] == "<1%"
    assert [row[0] for row in await site.rows("ipam", "show", "media", "wire")] == ["admin/media", "admin/media", "admin/wire"]
    assert [row[0] for row in await site.rows("ipam", "show", "-n", "t1")] == ["admin/media", "admin/media"]
    assert [row[0] for row in await site.rows("ipam", "show", "media", "-n", "t1")] == ["admin/media", "admin/media"]
    (document,) = (await site.ctl("ipam", "show", "wire", "-o", "json")).json()["items"]
    assert (document["network"], document["portSets"], document["pools"]) == ("admin/wire", 1, [])
    described = (await site.ctl("describe", "network", "media")).out
    assert "Usage:" in described
    assert rows[1][2:] in [line.split() for line in described.splitlines()]
    assert "ipam show --pods" in (await site.ctl("get", "pods", code=2)).err
    tenants = {row[0]: row[1:] for row in await site.rows("ipam", "show", "--tenants")}
    assert tenants["t1"] == ["2", "0/10", "2/5", "6/20"]
    assert tenants["admin"][0:2] == ["1", "3/100"]
    assert await site.rows("ipam", "show", "--nodes") == [["n1", "no", "1", "1", "2"]]
    pods = await site.rows("ipam", "show", "--pods", "-n", "t1")
    assert [row[:6] for row in pods] == [
        ["pod/t1/web-0", "n1", "reserved", "eth0", "-", "admin/media"],
        ["pod/t1/web-1", "-", "kept", "eth_media", "-", "admin/media"],
    ]
    assert pods[0][6].startswith("10.85.0.10,2001:db8:85::")
    assert [row[0] for row in await site.rows("ipam", "show", "--pods", "wire")] == ["named/admin/db"]
    told = await site.rows("ipam", "show", "--address", "10.85.0.20")
    assert told == [["admin/media", "10.85.0.20", "held", "named/admin/db", "-", "eth_media", "-", "admin/few", "-"]]
    assert (await site.rows("ipam", "show", "--address", "10.85.0.25"))[0][-1] == "t1/vm-7"
    assert (await site.rows("ipam", "show", "--address", "10.85.0.26"))[0][2] == "free"
    assert (await site.ctl("ipam", "show", "--address", "10.99.0.1")).err == "no network with that address found\n"
    both = await site.ctl("ipam", "show", "--pods", "--nodes", code=2)
    assert "FIELD_INVALID" in both.err
    assert "NETWORK_NOT_FOUND" in (await site.ctl("ipam", "show", "medja", code=3)).err
    assert "no difference" in (await site.ctl("ipam", "check")).out


@BOTH
async def test_a_running_pod_is_compared_with_its_journal_and_not_released(site: Site) -> None:
    with node_of(site) as (agent, sandbox):
        code, answer = await agent.call("ADD", "c1", sandbox, "eth0", CONF)
        assert code == 0, answer
        whole = (await site.ctl("ipam", "check")).out
        assert "no difference" in whole
        assert "journals compared: node1" in whole
        (row, second) = await site.rows("ipam", "show", "--pods", "media", "default")
        assert {row[4], second[4]} == {"media", "std"}
        assert await site.rows("ipam", "show", "--nodes") == [["node1", "yes", "1", "2", "3"]]
        refused = await site.ctl("ipam", "release", "10.84.0.2", code=4)
        assert "OBJECT_IN_USE" in refused.err
        assert "sandbox c1 on node1 has " in refused.err
        await site.ctl("ipam", "release", "--sandbox", "node1/c1/knitter/eth0", code=4)
        forced = (await site.ctl("ipam", "release", "10.84.0.2", "--force")).out
        assert forced.startswith("portset/sandbox/node1/c1/knitter/eth0 released, it was bound: 10.84.0.2, 10.85.0.")
        found = await site.ctl("ipam", "check", code=1)
        assert found.rows()[1][0] == "not-in-store"
        assert "runs on node1 with 10.84.0.2" in found.out
        document = (await site.ctl("ipam", "check", "-o", "json", code=1)).json()
        assert [one["finding"] for one in document["findings"]] == ["not-in-store"]
        assert document["summary"]["nodesAsked"] == ["node1"]
        await site.ctl("allocate", "--sandbox", "node1/ghost/knitter/eth0", "--network", "wire")
        found = await site.ctl("ipam", "check", "--no-headers", code=1)
        assert sorted(row[0] for row in found.rows()[:2]) == ["not-in-journal", "not-in-store"]
        assert "sandbox ghost on node1 has no address in use on node1; its journal has nothing of it" in found.out
        await site.ctl("ipam", "release", "--sandbox", "node1/ghost/knitter/eth0")
        agent.daemon.signal(signal.SIGSTOP)
        silent = await site.ctl("ipam", "check", code=5)
        agent.daemon.signal(signal.SIGCONT)
        assert "not asked: node1 (no answer within 5 s)" in silent.out
        agent.daemon.terminate()
        away = await site.ctl("ipam", "check", code=5)
        assert "not asked: node1 (not connected)" in away.out
        assert "no difference" in away.out
        await agent.restart()  # tells its journal: what runs is adopted
        async with asyncio.timeout(20):
            while (await ctl("ipam", "check", manager=site.address)).code:  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(0.1)
        assert await agent.call("DEL", "c1", sandbox, "eth0", CONF) == (0, None)
        await gone(agent)
        assert "no difference" in (await site.ctl("ipam", "check")).out


async def test_what_a_journal_has_lost_is_not_taken_for_whole(site: Site) -> None:
    with node_of(site) as (agent, sandbox):
        assert (await agent.call("ADD", "c1", sandbox, "eth0", CONF))[0] == 0
        with network_namespace("other") as other:
            assert (await agent.call("ADD", "c2", other, "eth0", CONF))[0] == 0
            agent.daemon.kill()
            with contextlib.closing(sqlite3.connect(agent.home / "state" / "journal.db")) as journal, journal:
                assert journal.execute("DELETE FROM attachment WHERE container_id = 'c2'").rowcount == 1
                assert journal.execute("SELECT count(*) FROM attachment").fetchone() == (1,)
            assert "not asked: node1 (not connected)" in (await site.ctl("ipam", "check", code=5)).out
            await agent.restart()  # it gives back what its journal does not have
            async with asyncio.timeout(20):
                while (await ctl("ipam", "check", manager=site.address)).code:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            (row,) = await site.rows("get", "portsets")
            assert row[0] == "sandbox/node1/c1/knitter/eth0"


@BOTH
async def test_what_is_broken_in_the_store_is_found_and_repaired(site: Site) -> None:
    await site.ctl("allocate", "--owner", "admin/db", "--network", "media=10.85.0.11", "--network", "wire:eth1")
    await site.ctl("allocate", "--owner", "admin/lost", "--network", "media=10.85.0.12")
    media = await site.network_id("media")
    async with site.broken() as writes:
        writes["portset/named/admin/lost"] = None
        writes[f"addr/{media}/10.85.0.11"] = None
        writes[f"addr/{media}/10.85.0.13"] = b"claim/t1/none"
        writes[f"addr/{media}/10.99.0.1"] = b""
    found = await site.ctl("ipam", "check", "--no-headers", code=1)
    kinds = sorted((row[0], row[2]) for row in found.rows() if row[0] in ("orphan", "missing", "outside"))
    assert [one for one in kinds if "10." in one[1]] == [
        ("missing", "10.85.0.11"), ("orphan", "10.85.0.12"), ("orphan", "10.85.0.13"), ("outside", "10.99.0.1"),
    ]  # fmt: skip
    assert [kind for kind, address in kinds if "10." not in address] == ["orphan", "orphan"]  # its IPv6 address, its MAC
    assert "10.85.0.12 is held for admin/lost, which has no port set" in found.out
    assert (await site.rows("ipam", "show", "--address", "10.85.0.12"))[0][2:4] == ["held", "(orphan)"]
    released = (await site.ctl("ipam", "release", "10.85.0.13", "--network", "media")).out
    assert released.startswith("10.85.0.13 of network admin/media released, it was held for nobody")
    repaired = await site.ctl("ipam", "check", "--repair")
    assert repaired.out.count("repaired: ") == 5
    again = (await site.ctl("ipam", "check")).out
    assert "no difference" in again
    await site.ctl("allocate", "--owner", "admin/new", "--network", "media=10.85.0.12")
    taken = await site.ctl("allocate", "--owner", "admin/late", "--network", "media=10.85.0.11", code=4)
    assert "held by admin/db" in taken.err
    assert "no difference" in (await site.ctl("ipam", "check")).out


async def test_what_is_kept_is_given_back_by_hand(site: Site) -> None:
    await site.ctl("allocate", "--pod", "t1/db-0/u1", "--network", "media=10.85.0.12", "--sticky")
    refused = await site.ctl("ipam", "release", "10.85.0.12", code=4)
    assert "pod t1/db-0 has 10.85.0.12" in refused.err
    await site.ctl("release", "--pod", "t1/db-0/u1")
    released = (await site.ctl("ipam", "release", "10.85.0.12")).out
    assert released.startswith("portset/pod/t1/db-0/u1 released, it was kept: 10.85.0.12, 2001:db8:85::")
    assert "is held by nobody (" in (await site.ctl("ipam", "release", "10.85.0.12")).out
    assert (await site.ctl("get", "portsets", "-o", "name")).out == ""
    await site.ctl("allocate", "--owner", "admin/db", "--network", "media=10.85.0.12")
    assert "it was reserved" in (await site.ctl("ipam", "release", "--owner", "admin/db")).out
    assert "nothing to release" in (await site.ctl("ipam", "release", "--owner", "admin/db")).out
    claimed = await site.ctl("ipam", "release", "10.85.0.25", "10.85.0.26", code=4)
    assert "claim t1/vm-7" in claimed.err
    assert "10.85.0.26 is held by nobody" in claimed.out
    assert "OBJECT_NOT_FOUND" in (await site.ctl("ipam", "release", "10.99.0.1", code=3)).err
    assert "FIELD_INVALID" in (await site.ctl("ipam", "release", code=2)).err
    assert "no difference" in (await site.ctl("ipam", "check")).out


@BOTH
async def test_a_manager_that_follows_compares_what_it_knows(site: Site) -> None:
    await site.ctl("allocate", "--owner", "admin/db", "--network", "media")
    other = f"unix:{site.home}/other.sock"
    await asyncio.to_thread(site.start, other, "other")
    told = (await site.ctl("ipam", "check", "--store-only", manager=other)).out
    assert "no difference" in told
    assert "not compared: the nodes' journals" in told
    assert "counters" not in told
    asked = (await site.ctl("ipam", "check", manager=other)).out  # sent on to the one that writes
    assert "journals compared: none" in asked
    site.manager.terminate()
    assert "no difference" in (await site.ctl("ipam", "check", manager=other)).out
