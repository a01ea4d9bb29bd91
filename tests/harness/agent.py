"""The agent in tests: its parts over fakes in one process, and the real daemon in a namespace with a small manager beside it.

async with SmallManager() as manager:            # a real gRPC server; addresses are counted, sets are in memory
    with agent_in(netns, manager.address, home) as agent:
        answer = await agent.call("ADD", "c1", sandbox, "eth0", {"defaultNetwork": "admin/default"})
"""

import asyncio
import itertools
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import grpc

from harness.daemons import Daemon, start
from harness.netns import entered
from knitter.v1 import agent_pb2, agent_pb2_grpc, manager_pb2, manager_pb2_grpc
from knitter_agent.attachment import Attachments, Delegates, Tools
from knitter_agent.cni import Call, parse_call
from knitter_agent.drivers import UNCHANGED, Changed, HostInterface, Mended, Wiring, planned_routes
from knitter_agent.journal import Journal, open_journal
from knitter_agent.manager_client import Granted
from knitter_agent.netlink import Kernel, Namespace
from knitter_agent.worker import KernelWorker
from knitter_common import convert
from knitter_common.errors import Exhausted, Exists, Internal, KnitterError, NotFound, Unavailable, to_status
from knitter_common.model import Allocation, Network, Port, PortAddress, PortSet, Return, Route, Wish
from knitter_common.serve.interceptor import ErrorInterceptor

CONF: dict[str, Any] = {"cniVersion": "1.0.0", "name": "knitter", "type": "knitter-cni"}
METHODS: dict[str, tuple[str, Any]] = {
    "ADD": ("Attach", agent_pb2.AttachRequest),
    "DEL": ("Detach", agent_pb2.DetachRequest),
    "CHECK": ("Check", agent_pb2.CheckRequest),
    "GC": ("CollectGarbage", agent_pb2.CollectGarbageRequest),
    "STATUS": ("Status", agent_pb2.StatusRequest),
}


# --- the manager's part


class Sets:
    """Port sets as a manager keeps them: same owner same answer. Addresses are 10.<network>.0.2 and fd00:<network>::2 on."""

    def __init__(self) -> None:
        self.held: dict[str, PortSet] = {}
        self.released: list[Return] = []
        self.allocated: list[Allocation] = []
        self.refuse: KnitterError | None = None
        self._networks: dict[str, int] = {}
        self._next = itertools.count(2)
        self._revision = itertools.count(1)

    def allocate(self, allocation: Allocation) -> PortSet:
        """The set of an owner. Raises `refuse` when it is set."""
        self.allocated.append(allocation)
        if self.refuse is not None:
            raise self.refuse
        if allocation.owner.key not in self.held:
            number = next(self._next)
            if number > 60000:
                raise Exhausted("POOL_EXHAUSTED", "no address is left")
            self.held[allocation.owner.key] = PortSet(
                allocation.owner, allocation.tenant, allocation.node, allocation.wishes,
                tuple(self._port(wish, number, index) for index, wish in enumerate(allocation.wishes)),
                allocation.binding, revision=next(self._revision),
            )  # fmt: skip
        return self.held[allocation.owner.key]

    def release(self, back: Return) -> None:
        """Missing is success."""
        self.released.append(back)
        self.held.pop(back.owner.key, None)

    def _port(self, wish: Wish, number: int, index: int) -> Port:
        network = wish.network or "admin/default"
        if network.endswith("missing"):
            raise NotFound("NETWORK_NOT_FOUND", f"{wish.place}: network {network!r} does not exist", network=network)
        segment = self._networks.setdefault(network, len(self._networks) + 1)
        high, low = divmod(number, 256)
        addresses = (
            PortAddress(f"10.{segment}.{high}.{low}/16", f"10.{segment}.0.1"),
            PortAddress(f"fd00:{segment}::{number:x}/64", f"fd00:{segment}::1"),
        )
        routes = tuple(Route("::/0" if ":" in hop else "0.0.0.0/0", hop) for hop in wish.default_routes)
        return Port(
            f"p{number}x{index}", f"net{segment:09d}", network, wish.interface, f"02:4b:{index:02x}:00:{high:02x}:{low:02x}",
            addresses, routes, mtu=1400, primary=wish.primary, node_gateway=True, place=wish.place,
        )  # fmt: skip


class MemoryAllocator:
    """`Allocator` over Sets, in the same process. `hold` makes everybody wait."""

    def __init__(self) -> None:
        self.sets = Sets()
        self.open = asyncio.Event()
        self.open.set()

    async def allocate(self, allocation: Allocation, patience: float) -> Granted:
        """As ManagerClient."""
        await self.open.wait()
        port_set = self.sets.allocate(allocation)
        return Granted(tuple(port_set.ports), convert.port_set_to_proto(port_set).SerializeToString())

    async def release(self, back: Return) -> None:
        """As ManagerClient."""
        await self.open.wait()
        self.sets.release(back)


class SmallManager(manager_pb2_grpc.ManagerServiceServicer):
    """A gRPC server with what an agent needs of a manager. It listens on a unix socket, which every namespace
    reaches, and keeps it and its sets over `stop` and `start`."""

    def __init__(self) -> None:
        self.sets = Sets()
        self.address = ""
        self.told: list[manager_pb2.ReconcileRequest] = []
        self.refused: list[Any] = []
        self.delay = 0.0
        self.writer = ""  # another manager's address: this one does not write
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Serves."""
        self._server = grpc.aio.server(interceptors=[ErrorInterceptor()])
        manager_pb2_grpc.add_ManagerServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self) -> None:
        """Ends at once; streams break."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def __aenter__(self) -> Self:
        self._home = tempfile.mkdtemp(prefix="km-")
        self.address = f"unix:{self._home}/manager.sock"
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    async def Reconcile(self, request: Any, context: Any) -> Any:
        """What the node tells is believed; what it does not tell is unknown to it."""
        self.told.append(request)
        self._may_write()
        known = {convert.owner_from_proto(port_set.owner).key for port_set in request.in_use}
        for port_set in request.in_use:
            self.sets.held.setdefault(convert.owner_from_proto(port_set.owner).key, convert.port_set_from_proto(port_set))
        unknown = [convert.port_set_to_proto(held) for key, held in self.sets.held.items() if key not in known]
        return manager_pb2.ReconcileResponse(epoch="e1", revision=100, unknown_to_node=unknown, refused=self.refused)

    async def StreamAllocations(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Each operation in its turn."""
        async for request in requests:
            if self.delay:
                await asyncio.sleep(self.delay)
            yield manager_pb2.StreamAllocationsResponse(outcomes=[self._judge(operation) for operation in request.operations])

    def _may_write(self) -> None:
        if self.writer:
            raise Unavailable("NOT_WRITER", "this manager does not write", writer=self.writer)

    def _judge(self, operation: Any) -> Any:
        try:
            self._may_write()
            if operation.WhichOneof("operation") == "release":
                self.sets.release(convert.give_back_from_proto(operation.release))
                return manager_pb2.AllocationOutcome(id=operation.id, released=manager_pb2.ReleaseResponse())
            port_set = self.sets.allocate(convert.allocation_from_proto(operation.allocate))
            return manager_pb2.AllocationOutcome(id=operation.id, port_set=convert.port_set_to_proto(port_set))
        except KnitterError as error:
            return manager_pb2.AllocationOutcome(id=operation.id, error=to_status(error))


# --- the kernel's part


class FakeNamespace:
    """An opened namespace of FakeKernel."""

    def __init__(self, kernel: "FakeKernel", path: str) -> None:
        if path not in kernel.namespaces:
            raise NotFound("CNI_CONTAINER_UNKNOWN", f"CNI_NETNS {path!r}: there is no network namespace", netns=path)
        self._kernel, self.path, self.cookie = kernel, path, kernel.namespaces[path]
        kernel.opened += 1

    def close(self) -> None:
        """Counted."""
        self._kernel.opened -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class FakeKernel:
    """What drivers make, in memory, and the driver of every type. `made` maps (cookie, interface) to the host link."""

    namespaces: dict[str, int] = field(default_factory=dict)
    made: dict[tuple[int, str], str] = field(default_factory=dict)
    detached: list[list[str]] = field(default_factory=list)
    failing: dict[str, BaseException] = field(default_factory=dict)
    fail_detach: int = 0
    differences: list[str] = field(default_factory=list)
    slow: float = 0.0
    opened: int = 0
    repaired: list[list[str]] = field(default_factory=list)
    settled: list[list[tuple[int | None, int]]] = field(default_factory=list)
    unsettling: int = 0
    cookies: "itertools.count[int]" = field(default_factory=lambda: itertools.count(101))

    def add_namespace(self, path: str) -> int:
        """A new namespace at a path; returns its cookie, never the same twice."""
        self.namespaces[path] = next(self.cookies)
        return self.namespaces[path]

    def remove_namespace(self, path: str) -> None:
        """The namespace goes, and with it all inside."""
        cookie = self.namespaces.pop(path)
        self.made = {key: host for key, host in self.made.items() if key[0] != cookie}

    def interfaces(self, path: str) -> list[str]:
        """What the namespace has."""
        return sorted(name for cookie, name in self.made if cookie == self.namespaces.get(path))

    def close(self) -> None:
        """As Kernel."""

    def plan(self, port: Port, attachment: str) -> Wiring:
        """As Driver."""
        return Wiring(port.type, port.interface, {
            "host": f"kv-{attachment}/{port.interface}", "mac": port.mac,
            "routes": [[route.destination, route.gateway, route.metric] for route in planned_routes(port)],
        })  # fmt: skip

    def follow(self, wiring: Wiring, network: Network) -> Wiring:
        """As Driver: the fact `mtu` is the network's."""
        return Wiring(wiring.type, wiring.interface, {**wiring.facts, "mtu": network.mtu})

    def settle(self, kernel: Kernel, changes: Sequence[tuple[Wiring, Wiring]]) -> None:
        """As Driver."""
        if self.unsettling:
            self.unsettling -= 1
            raise Internal("WIRING_FAILED", "the kernel does not take it")
        self.settled.append([(old.facts.get("mtu"), new.facts["mtu"]) for old, new in changes])

    def attach(self, kernel: Kernel, sandbox: Namespace, wiring: Wiring) -> tuple[HostInterface, ...]:
        """As Driver."""
        if self.slow:
            import time

            time.sleep(self.slow)
        if wiring.interface in self.failing:
            raise self.failing[wiring.interface]
        if (sandbox.cookie, wiring.interface) in self.made:
            raise Exists("CNI_INTERFACE_EXISTS", f"interface {wiring.interface} exists already")
        host = str(wiring.facts["host"])
        self.made[(sandbox.cookie, wiring.interface)] = host
        return (HostInterface(host, "02:00:00:00:00:01"),)

    def detach(self, kernel: Kernel, wirings: Sequence[Wiring]) -> None:
        """As Driver."""
        if self.fail_detach:
            self.fail_detach -= 1
            raise Internal("WIRING_FAILED", "the kernel does not let go")
        gone = {str(wiring.facts["host"]) for wiring in wirings}
        self.detached.append(sorted(gone))
        self.made = {key: host for key, host in self.made.items() if host not in gone}

    def repair(self, kernel: Kernel, wirings: Sequence[Wiring]) -> Mended:
        """As Driver."""
        self.repaired.append([wiring.interface for wiring in wirings])
        return Mended()

    def check(self, kernel: Kernel, sandbox: Namespace, wiring: Wiring, changed: Changed = UNCHANGED) -> Sequence[str]:
        """As Driver."""
        missing = [] if (sandbox.cookie, wiring.interface) in self.made else [f"{wiring.interface} is missing"]
        return [*missing, *self.differences]


class Parts:
    """An agent's inner life over fakes. `boot` and the journal's file survive `crash` and `begin`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "journal.db"
        self.kernel = FakeKernel()
        self.manager = MemoryAllocator()
        self.delegates = Delegates(5.0)
        self.boot = "boot-1"
        self.clock = itertools.count(1_000_000_000_000_000_000, 1_000_000)
        self.journal: Journal
        self.attachments: Attachments
        self.worker: KernelWorker

    async def begin(self, **changes: Any) -> None:
        """Opens the journal and recovers."""
        self.journal = open_journal(self.path)
        self.worker = KernelWorker(cast(Kernel, self.kernel))
        tools = Tools(
            "node1", self.journal, self.worker, self.manager, self.delegates, 2.0,
            drivers=lambda _: cast(Any, self.kernel),
            open_namespace=lambda path: cast(Namespace, FakeNamespace(self.kernel, path)),
            clock=lambda: next(self.clock),
        )  # fmt: skip
        self.tools = replace(tools, **changes)
        self.attachments = Attachments(self.tools)
        await self.attachments.start(self.boot)

    async def end(self) -> None:
        """A graceful end."""
        await self.attachments.close()
        await self.worker.close()
        await self.journal.close()

    async def restart(self, **changes: Any) -> None:
        """A graceful end and a new beginning."""
        await self.end()
        await self.begin(**changes)

    async def settle(self) -> None:
        """Until every undo has ended."""
        async with asyncio.timeout(5):
            while self.attachments.undoer.pending:
                await asyncio.wait([undo.gone for undo in self.attachments.undoer.pending.values()])
                await asyncio.sleep(0)

    async def add(self, container: str = "c1", netns: str = "/ns/a", interface: str = "eth0", **conf: Any) -> Mapping[str, Any]:
        """An ADD that is answered."""
        call = call_of("ADD", container, netns, interface, conf)
        result = await self.attachments.add(call)
        self.attachments.answered(call)
        return result

    async def delete(self, container: str = "c1", netns: str = "", interface: str = "eth0", **conf: Any) -> None:
        """A DEL."""
        await self.attachments.delete(call_of("DEL", container, netns, interface, conf))

    async def check(
        self, previous: Mapping[str, Any], container: str = "c1", netns: str = "/ns/a", interface: str = "eth0"
    ) -> None:
        """A CHECK."""
        await self.attachments.check(call_of("CHECK", container, netns, interface, {"prevResult": previous}))

    async def collect(self, *valid: tuple[str, str], **conf: Any) -> None:
        """A GC."""
        entries = [{"containerID": container, "ifname": interface} for container, interface in valid]
        conf = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": entries, **conf}
        await self.attachments.collect_garbage(call_of("GC", "", "", "", conf))


@asynccontextmanager
async def parts(directory: Path, **changes: Any) -> AsyncIterator[Parts]:
    """Parts that have begun, with one namespace at /ns/a; what remains is ended."""
    made = Parts(directory)
    made.kernel.add_namespace("/ns/a")
    await made.begin(**changes)
    try:
        yield made
    finally:
        await made.end()


def call_of(verb: str, container: str, netns: str, interface: str, conf: Mapping[str, Any]) -> Call:
    """A judged call."""
    return parse_call(
        verb, environment_of(verb, container, netns, interface), json.dumps({**CONF, **conf}).encode(), "0123456789abcdef"
    )


def environment_of(
    verb: str, container: str, netns: str, interface: str, more: Mapping[str, str] | None = None
) -> dict[str, bytes]:
    """What a runtime sets."""
    told = {
        "CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": interface,
        "CNI_PATH": "/usr/lib/cni", **(more or {}),
    }  # fmt: skip
    return {name: value.encode() for name, value in told.items() if value}


# --- the real daemon


@dataclass
class AgentProcess:
    """A running knitter-agent. `home` holds its socket and its state."""

    daemon: Daemon
    home: Path
    config: Mapping[str, Any]
    netns: str

    @property
    def address(self) -> str:
        """Its socket."""
        return f"unix:{self.home}/agent.sock"

    async def call(
        self, verb: str, container: str = "c1", netns: str = "", interface: str = "eth0", conf: Mapping[str, Any] | None = None,
        more: Mapping[str, str] | None = None, within: float = 20.0,
    ) -> tuple[int, Any]:  # fmt: skip
        """One call of the plugin's; returns the exit code and what was to be printed, parsed (None for nothing)."""
        method, request = METHODS[verb]
        stdin = json.dumps({**CONF, **(conf or {})}).encode()
        environment = environment_of(verb, container, netns, interface, more)
        invocation = agent_pb2.Invocation(environment=environment, stdin=stdin, request_id=f"{os.getpid():016x}")
        async with grpc.aio.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = agent_pb2_grpc.AgentServiceStub(channel)
            response = await getattr(stub, method)(request(invocation=invocation), timeout=within)
        printed = response.answer.stdout
        return response.answer.exit_code, json.loads(printed) if printed else None

    async def attachments(self) -> list[Any]:
        """The journal."""
        async with grpc.aio.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = agent_pb2_grpc.AgentServiceStub(channel)
            return list((await stub.ListAttachments(agent_pb2.ListAttachmentsRequest(), timeout=10)).attachments)

    def reboot(self) -> None:
        """Makes the journal, of an agent that has ended, one of an earlier boot."""
        database = sqlite3.connect(self.home / "state" / "journal.db")
        with database:
            database.execute("UPDATE meta SET value = '00000000-0000-0000-0000-000000000000' WHERE key = 'boot_id'")
        database.close()

    def lose_journal(self) -> None:
        """Breaks the journal of an agent that has ended."""
        for path in (self.home / "state").glob("journal.db*"):
            path.write_bytes(b"\xff" * 5000 if path.name == "journal.db" else b"")

    async def restart(self, env: Mapping[str, str] | None = None) -> None:
        """Starts it again, after whatever ended it."""
        self.daemon = await asyncio.to_thread(_start, self.config, self.home, self.netns, env)


async def gone(agent: AgentProcess) -> None:
    """Until the journal is empty: undoing follows an answer."""
    async with asyncio.timeout(10):
        while await agent.attachments():  # noqa: ASYNC110 - another process's journal
            await asyncio.sleep(0.02)


def _start(config: Mapping[str, Any], home: Path, netns: str, env: Mapping[str, str] | None) -> Daemon:
    with entered(netns):
        return start("knitter-agent", config, home, env=env)


@contextmanager
def agent_in(netns: str, manager: str, env: Mapping[str, str] | None = None, **settings: Any) -> Iterator[AgentProcess]:
    """The daemon in a namespace, with files of its own in a short directory. `manager` must be reachable from there."""
    home = Path(tempfile.mkdtemp(prefix="ka-"))
    config = {"listen": f"unix:{home}/agent.sock", "state": f"{home}/state", "node": "node1", "managers": [manager], **settings}
    try:
        agent = AgentProcess(_start(config, home, netns, env), home, config, netns)
        try:
            yield agent
        finally:
            agent.daemon.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)
