"""Snapshots, roll-backs and moves while agents run, on SQLite and etcd: what runs is adopted, nothing running is dropped, and no
address is given out twice."""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import etcd
from harness.agent import AgentProcess, agent_in
from harness.ctl import Result, ctl
from harness.daemons import Daemon, Daemons
from harness.netns import ip, network_namespace, ping

from knitter.v1 import manager_pb2 as pb
from knitter_common.managers import Managers

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
    pytest.mark.timeout(120),
]

CONF = {"networks": "admin/small@net1"}
NETWORKS = """
apiVersion: knitter.io/v1
kind: Network
metadata: {name: small}
spec: {rest: 0s, subnets: [{cidr: 10.84.0.0/28, gateway: 10.84.0.1}]}
---
apiVersion: knitter.io/v1
kind: Network
metadata: {name: default}
spec: {rest: 0s, subnets: [{cidr: 10.85.0.0/28, gateway: 10.85.0.1}]}
"""


class Site:
    """A manager on a socket of its own, two nodes with an agent each."""

    def __init__(self, home: Path, store: dict[str, Any]) -> None:
        self.home, self.store, self.address = home, store, f"unix:{home}/manager.sock"
        self.daemons = Daemons(home)
        self.nodes: list[AgentProcess] = []
        self.pods: dict[str, tuple[int, str]] = {}  # container → node and namespace
        self.held: dict[str, tuple[str, ...]] = {}  # container → what its ADD was answered
        self.managers = Managers([self.address])
        self._spaces = contextlib.ExitStack()
        self.manager = self.start()

    def start(self, store: dict[str, Any] | None = None, address: str = "", name: str = "manager", failpoints: str = "") -> Daemon:
        """A manager."""
        config = {"listen": address or self.address, "store": store or self.store, "heartbeat": 0.5}
        env = {"KNITTER_FAILPOINTS": failpoints} if failpoints else {}
        return self.daemons.start("knitter-manager", config, name=name, env=env)

    async def ctl(self, *arguments: str, text: str = "", code: int = 0) -> Result:
        """knitterctl, which must end with this code."""
        result = await ctl(*arguments, manager=self.address, stdin=text)
        assert result.code == code, result.out + result.err
        return result

    async def add(self, container: str, node: int, code: int = 0) -> None:
        """A pod on a node; its addresses are no other one's."""
        if container not in self.pods:
            self.pods[container] = node, self._spaces.enter_context(network_namespace(container))
        ended, answer = await self.nodes[node].call("ADD", container, self.pods[container][1], "eth0", CONF)
        assert (0 if ended == 0 else answer["code"]) == code, answer
        if ended == 0:
            self.held[container] = tuple(sorted(entry["address"].split("/")[0] for entry in answer["ips"]))
            everyone = [address for addresses in self.held.values() for address in addresses]
            assert len(everyone) == len(set(everyone)), self.held

    async def delete(self, container: str) -> None:
        """Its end."""
        node, netns = self.pods[container]
        assert await self.nodes[node].call("DEL", container, netns, "eth0", CONF) == (0, None)
        self.held.pop(container)

    async def store_holds(self) -> dict[str, set[str]]:
        """What the manager says is held, by container; no address twice."""
        answer = await self.managers.call(lambda stub: stub.ListPortSets, pb.ListPortSetsRequest())
        found: dict[str, set[str]] = {}
        for message in answer.port_sets:
            addresses = {one.cidr.split("/")[0] for port in message.ports for one in port.addresses}
            found[message.owner.sandbox.container_id] = addresses
        everyone = [address for addresses in found.values() for address in addresses]
        assert len(everyone) == len(set(everyone))
        return found

    async def settled(self) -> None:
        """The manager has recovered, and the store holds exactly what runs; the kernel still has it."""
        async with asyncio.timeout(15):
            while await self._unsettled():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        for container, addresses in (await self.store_holds()).items():
            assert set(self.held[container]) <= addresses
            shown = [entry["addr_info"] for entry in ip(self.pods[container][1], "addr", "show")]
            assert addresses == {one["local"] for entries in shown for one in entries if one["scope"] == "global"}
            ping(self.pods[container][1], "10.84.0.1")

    async def _unsettled(self) -> bool:
        told = await self.managers.call(lambda stub: stub.GetStatus, pb.GetStatusRequest())
        return told.recovering or (await self.store_holds()).keys() != self.held.keys()

    async def close(self) -> None:
        """Ends all."""
        await self.managers.close()
        self._spaces.close()
        self.daemons.close()


def store_in(kind: str, folder: Path) -> dict[str, Any]:
    """The settings of an empty store."""
    if kind == "sqlite":
        return {"kind": "sqlite", "path": str(folder / f"store-{secrets.token_hex(3)}.db")}
    prefix = f"/test/{secrets.token_hex(6)}/"
    return {"kind": "etcd", "endpoints": list(etcd.shared().endpoints), "prefix": prefix, "compact": False}


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ks-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def site_on(kind: str, home: Path, store: dict[str, Any] | None = None, managers: Sequence[str] = ()) -> AsyncIterator[Site]:
    site = Site(home, store or store_in(kind, home))
    try:
        with contextlib.ExitStack() as stack:
            more = {"managers": list(managers)} if managers else {}
            await site.ctl("apply", "-f", "-", text=NETWORKS)
            for number in range(2):
                netns = stack.enter_context(network_namespace(f"node{number}"))
                site.nodes.append(
                    stack.enter_context(agent_in(netns, site.address, node=f"node{number}", managerPatience=2, **more))
                )
            yield site
    finally:
        await site.close()


@pytest.mark.parametrize("kind", ["sqlite", "etcd"])
async def test_a_restore_while_agents_run_drops_nothing_and_gives_nothing_twice(kind: str, home: Path) -> None:
    async with site_on(kind, home) as site:
        await site.add("a0", 0)
        await site.add("b0", 1)
        await site.add("a1", 0)
        saved = home / "state.snap"
        await site.ctl("snapshot", "save", str(saved))
        assert "portset: 3" in (await site.ctl("snapshot", "inspect", str(saved))).out
        gone = set(site.held["a1"])
        await site.delete("a1")  # its addresses go to others, on the other node
        number = 0
        while not gone <= {address for addresses in site.held.values() for address in addresses}:
            number += 1
            await site.add(f"b{number}", 1)
        before = dict(site.held)
        out = (await site.ctl("snapshot", "restore", str(saved))).out
        assert "waits for the journals of node0, node1" in out
        await site.settled()
        assert site.held == before
        for container in ("b0", "b2", "a0"):
            await site.delete(container)
        await site.settled()
        for number in range(3):
            await site.add(f"c{number}", number % 2)
        await site.settled()


async def test_nodes_that_idle_at_another_manager_tell_in_a_new_epoch(home: Path) -> None:
    store, second = store_in("etcd", home), f"unix:{home}/second.sock"
    async with site_on("etcd", home, store, [f"unix:{home}/manager.sock", second]) as site:
        other = await asyncio.to_thread(site.start, None, second, "second")
        await site.add("a0", 0)
        await site.add("b0", 1)
        saved = home / "state.snap"
        await site.ctl("snapshot", "save", str(saved))
        while not (await status_of(second)).writing:
            fields = etcd.shared().ctl("get", f"{store['prefix']}writer", "-w", "fields").splitlines()
            lease = next((int(line.split(" : ")[1]) for line in fields if line.startswith('"Lease"')), 0)
            if lease:
                etcd.shared().ctl("lease", "revoke", f"{lease:x}")
            await asyncio.sleep(0.5)
        assert other.running
        done = await ctl("snapshot", "restore", str(saved), manager=second)
        assert "waits for the journals of node0, node1" in done.out, done.err
        await site.settled()
        await site.add("a1", 0)


async def status_of(address: str) -> pb.GetStatusResponse:
    """What one manager says."""
    managers = Managers([address])
    try:
        return await managers.call(lambda stub: stub.GetStatus, pb.GetStatusRequest())
    finally:
        await managers.close()


async def test_a_node_that_is_away_is_waited_for(home: Path) -> None:
    async with site_on("sqlite", home) as site:
        await site.add("a0", 0)
        await site.add("b0", 1)
        saved = home / "state.snap"
        await site.ctl("snapshot", "save", str(saved))
        await site.add("b1", 1)
        site.nodes[1].daemon.kill()
        await site.ctl("snapshot", "restore", str(saved))
        async with asyncio.timeout(10):
            while "waits for node1;" not in (await site.ctl("recover")).out:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await site.add("a1", 0, code=11)
        await site.ctl("allocate", "--network", "small", "--owner", "admin/x", "--timeout", "1", code=5)
        await site.nodes[1].restart()
        await site.settled()
        await site.add("a1", 0)
        await site.settled()


async def test_a_file_copied_back_is_noticed_by_what_the_agents_have_seen(home: Path) -> None:
    async with site_on("sqlite", home) as site:
        await site.add("a0", 0)
        path = Path(site.store["path"])
        site.manager.terminate()
        shutil.copy(path, home / "backup.db")
        site.manager = await asyncio.to_thread(site.start)
        await site.add("b0", 1)
        await site.add("b1", 1)
        epoch = epoch_of((await site.ctl("status")).out)
        site.manager.kill()
        for left in home.glob(f"{path.name}*"):
            left.unlink()
        shutil.copy(home / "backup.db", path)
        site.manager = await asyncio.to_thread(site.start)
        await site.settled()
        assert epoch_of((await site.ctl("status")).out) != epoch
        await site.add("a1", 0)
        await site.settled()


def epoch_of(status: str) -> str:
    """The epoch that `knitterctl status` shows."""
    return status.split("epoch ")[1].split(",")[0]


@pytest.mark.parametrize(("old", "new"), [("sqlite", "etcd"), ("etcd", "sqlite")])
async def test_the_state_moves_to_another_store_under_running_agents(old: str, new: str, home: Path) -> None:
    async with site_on(old, home) as site:
        await site.add("a0", 0)
        await site.add("b0", 1)
        store = store_in(new, home)
        other = await asyncio.to_thread(site.start, store, f"unix:{home}/other.sock", "other")
        moved = await site.ctl("store", "migrate", "--from-manager", site.address, "--to-manager", other.address)
        assert "moved and compared" in moved.out
        await site.add("a1", 0, code=11)
        assert "frozen" in (await site.ctl("status")).out
        again = await site.ctl("store", "migrate", "--from-manager", site.address, "--to-manager", other.address, code=4)
        assert "STORE_NOT_EMPTY" in again.err
        assert "frozen" in (await site.ctl("status")).out
        site.manager.terminate()
        other.terminate()
        site.manager = await asyncio.to_thread(site.start, store)
        await site.settled()
        await site.add("a1", 0)
        await site.delete("b0")
        await site.settled()
        assert "waits" not in (await site.ctl("recover")).out


@pytest.mark.parametrize(("old", "new"), [("sqlite", "etcd"), ("etcd", "sqlite")])
@pytest.mark.parametrize("step", ["restore.staged", "restore.applied"])
async def test_a_move_whose_target_dies_half_way_leaves_both_usable(old: str, new: str, step: str, home: Path) -> None:
    async with site_on(old, home) as site:
        await site.add("a0", 0)
        store, address = store_in(new, home), f"unix:{home}/other.sock"
        dying = await asyncio.to_thread(site.start, store, address, "other", f"{step}=kill")
        move = ("store", "migrate", "--from-manager", site.address, "--to-manager", address)
        failed = await site.ctl(*move, code=5)
        assert "MANAGER_UNAVAILABLE" in failed.err
        assert dying.wait() == -signal.SIGKILL
        assert "frozen" not in (await site.ctl("status")).out
        await site.add("a1", 0)
        other = await asyncio.to_thread(site.start, store, address, "other")
        told = (await ctl("status", manager=address)).out
        assert "writes" in told
        assert "restored" not in told
        if step == "restore.applied":  # it had begun to replace the state, so it has gone on to the end, and holds a copy of before
            assert "1 port sets" in told
            assert "STORE_NOT_EMPTY" in (await site.ctl(*move, code=4)).err
            await site.add("b1", 1)
            other.terminate()
            store = store_in(new, home)
            other = await asyncio.to_thread(site.start, store, address, "other")
        await site.ctl(*move)
        site.manager.terminate()
        other.terminate()
        site.manager = await asyncio.to_thread(site.start, store)
        await site.settled()
        await site.add("b2", 1)


@pytest.mark.parametrize(("old", "new"), [("sqlite", "etcd"), ("etcd", "sqlite")])
async def test_a_move_whose_source_dies_half_way_leaves_both_usable(old: str, new: str, home: Path) -> None:
    async with site_on(old, home) as site:
        await site.add("a0", 0)
        site.manager.terminate()
        site.manager = await asyncio.to_thread(site.start, failpoints="snapshot.begun=kill")
        store, address = store_in(new, home), f"unix:{home}/other.sock"
        other = await asyncio.to_thread(site.start, store, address, "other")
        move = ("store", "migrate", "--from-manager", site.address, "--to-manager", address)
        await site.ctl(*move, "--timeout", "1", code=5)
        site.manager = await asyncio.to_thread(site.start)
        assert "frozen: no writes (knitterctl store unfreeze)" in (await site.ctl("status")).out
        assert "0 port sets" in (await ctl("status", manager=address)).out
        await site.ctl("store", "unfreeze")
        await site.add("a1", 0)
        await site.ctl(*move)
        site.manager.terminate()
        other.terminate()
        site.manager = await asyncio.to_thread(site.start, store)
        await site.settled()


async def test_a_move_to_nobody_changes_nothing(home: Path) -> None:
    async with site_on("sqlite", home) as site:
        move = ("store", "migrate", "--from-manager", site.address, "--to-manager", f"unix:{home}/nobody.sock")
        assert "MANAGER_UNAVAILABLE" in (await site.ctl(*move, "--timeout", "1", code=5)).err
        assert "frozen" not in (await site.ctl("status")).out
        await site.add("a0", 0)


@pytest.mark.parametrize("kind", ["sqlite", "etcd"])
async def test_a_broken_file_changes_nothing(kind: str, home: Path) -> None:
    async with site_on(kind, home) as site:
        await site.add("a0", 0)
        saved, cut = home / "state.snap", home / "cut.snap"
        await site.ctl("snapshot", "save", str(saved))
        cut.write_bytes(saved.read_bytes()[:-1])
        assert "SNAPSHOT_INVALID" in (await site.ctl("snapshot", "restore", str(cut), code=2)).err
        assert "SNAPSHOT_INVALID" in (await site.ctl("snapshot", "inspect", str(cut), code=2)).err
        assert "No such file" in (await site.ctl("snapshot", "restore", str(home / "none"), code=2)).err
        refused = await site.ctl("snapshot", "restore", "--only-if-empty", str(saved), code=4)
        assert "STORE_NOT_EMPTY" in refused.err
        await site.settled()
