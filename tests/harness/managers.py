"""Several managers over one store, all real processes, and what their clients see of them.

site = Managing(tmp_path, store_settings)
async with Churn(site).running(client):        # clients that allocate and release for ever
    site.managers[await site.writer()].kill()  # afterwards their history is judged against the store
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from harness.daemons import Daemon, Daemons
from harness.history import History, Holding
from knitter.v1 import manager_pb2 as pb
from knitter_common import convert
from knitter_common.errors import Unavailable, from_rpc_error
from knitter_common.managers import Managers
from knitter_common.model import Allocation, NamedOwner, Network, PortSet, Return, Subnet, Wish


class Managing:
    """`size` managers; `stores` are their settings of the store, one for all or one for each. They listen on loopback, or on unix
    sockets in the folder, which other network namespaces reach too."""

    def __init__(
        self, folder: Path, stores: Mapping[str, Any] | Sequence[Mapping[str, Any]], size: int = 3, sockets: bool = False
    ) -> None:
        self._stores = [stores] * size if isinstance(stores, Mapping) else list(stores)
        self.daemons = Daemons(folder)
        self.managers: list[Daemon] = [
            self._start(number, f"unix:{folder}/m{number}/s" if sockets else "127.0.0.1:0") for number in range(size)
        ]
        self.addresses = [manager.address for manager in self.managers]

    def _start(self, number: int, listen: str) -> Daemon:
        config = {"listen": listen, "store": self._stores[number], "heartbeat": 0.3}
        return self.daemons.start("knitter-manager", config, name=f"manager{number}")

    async def start(self, number: int) -> None:
        """The manager again, where it was."""
        self.managers[number] = await asyncio.to_thread(self._start, number, self.addresses[number])

    async def status(self, number: int, within: float = 1.0) -> pb.GetStatusResponse | None:
        """What a manager says of itself; None when it does not answer."""
        async with grpc.aio.insecure_channel(self.addresses[number]) as channel:
            call = channel.unary_unary(
                "/knitter.v1.ManagerService/GetStatus",
                request_serializer=pb.GetStatusRequest.SerializeToString,
                response_deserializer=pb.GetStatusResponse.FromString,
            )
            try:
                return await call(pb.GetStatusRequest(), timeout=within, wait_for_ready=True)
            except grpc.aio.AioRpcError:
                return None

    async def writer(self, within: float = 10.0, but: int = -1) -> int:
        """The number of the manager that writes; not `but`."""
        until = time.monotonic() + within
        while True:
            for number in range(len(self.managers)):
                if number != but and self.managers[number].running:
                    told = await self.status(number, 0.3)
                    if told is not None and told.writing:
                        return number
            assert time.monotonic() < until, "nobody writes"
            await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Managers]:
        """A client of all; the network `small` is there."""
        client = Managers(self.addresses)
        wanted = convert.network_to_proto(Network(tenant="admin", name="small", subnets=(Subnet("10.4.0.0/26"),), rest=0.0))
        try:
            await client.call(lambda stub: stub.CreateNetwork, pb.CreateNetworkRequest(network=wanted), within=20)
            yield client
        finally:
            await client.close()

    def close(self) -> None:
        """Ends all."""
        self.daemons.close()


_numbers = itertools.count()


def some_owner() -> NamedOwner:
    """One that nobody else is."""
    return NamedOwner("admin", f"vm{next(_numbers)}")


async def allocate(managers: Managers, owner: NamedOwner, within: float = 10.0) -> PortSet:
    """One address on `small`."""
    wanted = convert.allocation_to_proto(Allocation(owner=owner, wishes=(Wish(network="small"),)))
    answer = await managers.call(lambda stub: stub.Allocate, pb.AllocateRequest(allocation=wanted), within=within)
    return convert.port_set_from_proto(answer.port_set)


async def release(managers: Managers, owner: NamedOwner, within: float = 10.0) -> None:
    """Its end."""
    message = convert.give_back_to_proto(Return(owner))
    await managers.call(lambda stub: stub.Release, pb.ReleaseRequest(release=message), within=within)


def addresses_of(port_set: PortSet) -> tuple[str, ...]:
    """All of a set, with prefix length."""
    return tuple(one.cidr for port in port_set.ports for one in port.addresses)


class Churn:
    """Clients that allocate and release for ever, and what they were told."""

    def __init__(self, site: Managing, width: int = 8) -> None:
        self.history, self._site, self._width = History(), site, width
        self._ending, self._answered = asyncio.Event(), asyncio.Event()
        self._doubtful: set[str] = set()

    async def _client(self) -> None:
        managers = Managers(self._site.addresses)
        try:
            while not self._ending.is_set():
                owner = some_owner()
                operation = self.history.call("allocate", owner.key)
                try:
                    got = await allocate(managers, owner)
                except Unavailable as error:  # anything else is a failure of the test
                    operation.answer(error.message)
                    self.history.failed(f"{owner.name}: {error.message}")
                    self._doubtful.add(owner.key)
                    continue
                self._answered.set()
                holding = self.history.added(owner.key, addresses_of(got))
                operation.answer(" ".join(holding.addresses))
                await asyncio.sleep(random.uniform(0, 0.02))
                if random.random() < 0.02 and len(self.history.living()) < 30:
                    continue  # kept to the end
                await self._give_back(managers, owner, holding)
        finally:
            await managers.close()

    async def _give_back(self, managers: Managers, owner: NamedOwner, holding: Holding) -> None:
        holding.until = time.monotonic()
        operation = self.history.call("release", owner.key)
        try:
            await release(managers, owner)
            operation.answer("released")
        except Unavailable as error:
            operation.answer(error.message)
            self.history.failed(f"{owner.name}: {error.message}")
            self._doubtful.add(owner.key)

    @contextlib.asynccontextmanager
    async def running(self, managers: Managers) -> AsyncIterator["Churn"]:
        """Runs the clients; afterwards judges what they were told against what the store holds, and empties it."""
        clients = [asyncio.create_task(self._client()) for _ in range(self._width)]
        try:
            await asyncio.sleep(0.5)
            yield self
            await asyncio.sleep(0.5)
        finally:
            self._ending.set()
            await asyncio.gather(*clients)
        assert self.history.violations() == []
        held = await everything(self._site, await self._site.writer())
        for holding in self.history.living():
            assert addresses_of(held[holding.container]) == holding.addresses
        unasked = held.keys() - {holding.container for holding in self.history.living()} - self._doubtful
        assert unasked == set()
        for number, manager in enumerate(self._site.managers):
            if manager.running and await self._site.status(number) is not None:
                assert await differences(self._site, number) == []
        for owner_set in held.values():
            assert isinstance(owner_set.owner, NamedOwner)
            await release(managers, owner_set.owner)

    async def until_answered(self, within: float = 20.0) -> None:
        """Until a write that was begun after now is answered: each client has at most one under way."""
        async with asyncio.timeout(within):
            for _ in range(self._width + 1):
                self._answered.clear()
                await self._answered.wait()


async def everything(site: Managing, number: int) -> dict[str, PortSet]:
    """All sets as one manager lists them."""
    managers = Managers([site.addresses[number]])
    try:
        found, token = {}, ""
        while True:
            answer = await managers.call(lambda stub: stub.ListPortSets, pb.ListPortSetsRequest(page_token=token))
            for message in answer.port_sets:
                port_set = convert.port_set_from_proto(message)
                found[port_set.owner.key] = port_set
            token = answer.next_page_token
            if not token:
                return found
    finally:
        await managers.close()


async def differences(site: Managing, number: int) -> list[str]:
    """What one manager finds that does not fit together: in the store, and between the store and what it knows."""
    managers = Managers([site.addresses[number]])
    try:
        responses = managers.stub().CheckState(pb.CheckStateRequest(), timeout=20)
        return [finding.message async for response in responses for finding in response.findings]
    finally:
        await managers.close()


async def follow(site: Managing, number: int, until: int, epoch: str = "", after: int = 0) -> tuple[set[str], str, int, bool]:
    """The feed of one manager up to a revision: the owners then, where it got to, and whether it began anew."""
    owners: set[str] = set()
    reset = False
    managers = Managers([site.addresses[number]])
    try:
        async with asyncio.timeout(15):
            async for message in managers.stub().Changes(pb.ChangesRequest(epoch=epoch, after_revision=after)):
                match message.WhichOneof("event"):
                    case "reset":
                        owners, reset, epoch = set(), True, message.reset.epoch
                    case "changes":
                        for change in message.changes.changes:
                            after = max(after, change.revision)
                            if change.WhichOneof("object") == "port_set":
                                owners.add(convert.owner_from_proto(change.port_set.owner).key)
                            elif change.deleted.HasField("owner"):
                                owners.discard(convert.owner_from_proto(change.deleted.owner).key)
                    case "synced":
                        epoch, after = message.synced.epoch, message.synced.revision
                    case "heartbeat":
                        after = max(after, message.heartbeat.revision)
                if after >= until and message.WhichOneof("event") != "reset":
                    return owners, epoch, after, reset
        raise AssertionError("the feed ended")
    finally:
        await managers.close()


async def direct(site: Managing, number: int, within: float = 5.0) -> None:
    """One Allocate to one manager, once. Raises KnitterError."""
    managers = Managers([site.addresses[number]])
    wanted = convert.allocation_to_proto(Allocation(owner=some_owner(), wishes=(Wish(network="small"),)))
    try:
        await managers.stub().Allocate(pb.AllocateRequest(allocation=wanted), timeout=within)
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure) from failure
    finally:
        await managers.close()
