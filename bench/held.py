"""States with very many held addresses, made quickly: the records that a manager would have written, in order of key.

One set is planned by a real manager on a store that does nothing; all others are its bytes with another owner, address, port id and
MAC. Each is a pod's: one interface, one IPv4 or IPv6 address, on one of 1000 nodes, in one of 100 tenants.
"""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from harness.manager import Clock, network, start_core

from knitter_common.convert import network_to_proto
from knitter_common.model import Allocation, Network, PodOwner, PortAddress, Subnet, Wish
from knitter_manager import keys
from knitter_manager.core import Core
from knitter_manager.records import port_set_of, stored
from knitter_manager.store.feed import Tail
from knitter_manager.store.protocol import EVERYTHING, MOST_KEYS, Commit, Condition, Record, Snapshot, Span

BATCH = 10_000


class NoStore:
    """A Store (knitter_manager/store/protocol.py) that keeps nothing and agrees to everything, so that only the manager's own work
    is measured. `records` is what it says at `load`."""

    most_keys = MOST_KEYS

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records = records
        self._revision = 1
        self._tail = Tail(1)
        self._lost = asyncio.Event()
        self._name = ""

    async def acquire_writer(self, name: str) -> asyncio.Event:
        """At once."""
        self._name = name
        return self._lost

    async def writer(self) -> str:
        """This one."""
        return self._name

    async def load(self, spans: Sequence[Span] = EVERYTHING) -> Snapshot:
        """The given records, of all keys: those that nobody wants are ignored."""
        return Snapshot("bench.0", 1, self._batches())

    async def _batches(self) -> AsyncIterator[Sequence[Record]]:
        batch: list[Record] = []
        for record in self._records:
            batch.append(record)
            if len(batch) == BATCH:
                yield batch
                batch = []
        yield batch

    async def get(self, names: Sequence[str]) -> Mapping[str, Record]:
        """Nothing."""
        return {}

    async def commit(self, conditions: Sequence[Condition], puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        """The next revision, one turn of the loop later."""
        await asyncio.sleep(0)
        self._revision += 1
        self._tail.extend([Commit(self._revision, puts, tuple(deletes))])
        return self._revision

    async def changes(self, after: int) -> AsyncIterator[Sequence[Commit]]:
        """As a real one tells them. An empty one is at no commit's revision, and nothing came before the first."""
        after = max(after, 1)
        while True:
            news = self._tail.news()
            batch = self._tail.since(after, 1000)
            if batch:
                after = batch[-1].revision
                yield batch
            else:
                await news.wait()

    async def compact(self, revision: int) -> None:
        """Nothing to forget."""

    async def close(self) -> None:
        """Ends `changes`."""
        self._tail.end("closed")


async def core_on(store: NoStore) -> Core:
    """A core that writes."""
    return await start_core(store, Clock())


def owner(name: str, number: int) -> PodOwner:
    """The pod that holds the address of that number; all of one name have keys of the same length."""
    return PodOwner(f"tenant-{number % 100:03}", f"{name}-6f8d9cb7-{number:08}", f"b1946ac9-2497-4cf1-8b6c-{number:012x}")


async def records(shape: Network, count: int, name: str = "web") -> list[Record]:
    """The records of a network and of `count` pods that hold its lowest addresses, in order of key."""
    template = await _Template.planned(shape, name)
    found = [Record(f"net/{shape.path}", template.network.id.encode(), 1)]
    found.append(Record(keys.network(template.network.id), network_to_proto(template.network).SerializeToString(), 1))
    for number in range(count):
        found += template.records(name, number)
    found.sort()
    return found


class _Template:
    """One pod's records, to be written again for others."""

    def __init__(self, made: Network, port_set: bytes, pod: PodOwner) -> None:
        self.network = made
        self._model, self._pod = port_set_of(port_set), pod
        self._segment = made.id
        subnet = ipaddress.ip_network(made.subnets[0].cidr)
        self._first = int(subnet[2])
        self._length, self._address = subnet.prefixlen, type(subnet[0])
        self._pieces: dict[int, list[bytes]] = {}

    @classmethod
    async def planned(cls, shape: Network, name: str) -> "_Template":
        """By a manager that has nothing else."""
        core = await core_on(NoStore())
        made = await core.networks.create(shape)
        pod = owner(name, 0)
        wish = Wish(network=made.path, interface="eth0")
        record = await core.sets.allocate(Allocation(owner=pod, node="node-0000", wishes=(wish,)))
        await core.stop()
        assert record is not None
        return cls(replace(made, revision=0), record, pod)

    def records(self, name: str, number: int) -> Iterator[Record]:
        """Those of one pod."""
        pod, text = owner(name, number), str(self._address(self._first + number))
        digest = sha256(number.to_bytes(8, "big")).digest()
        mac = b"\x02" + digest[:5]
        yield Record(keys.address(self.network.id, text), pod.key.encode(), 1)
        yield Record(keys.mac(self._segment, mac.hex(":")), pod.key.encode(), 1)
        yield Record(keys.port_set(pod.key), self._set(pod, text, digest[6:12].hex(), mac.hex(":"), number), 1)

    def _set(self, pod: PodOwner, text: str, port_id: str, mac: str, number: int) -> bytes:
        pieces = self._pieces.get(len(text))
        if pieces is None:
            pieces = self._pieces[len(text)] = self._cut(len(text))
        values = {
            b"\1": pod.namespace, b"\2": pod.name, b"\3": pod.uid, b"\4": port_id, b"\5": mac, b"\6": text,
            b"\7": f"node-{number % 1000:04}",
        }  # fmt: skip
        return b"".join([values[piece].encode() if piece in values else piece for piece in pieces])

    def _cut(self, length: int) -> list[bytes]:
        """The set's bytes between what differs from pod to pod; a mark of one byte stands for that."""
        model, port = self._model, self._model.ports[0]
        hole = PortAddress(f"{'A' * length}/{self._length}", port.addresses[0].gateway)
        marked = replace(
            model, owner=PodOwner("N" * len(self._pod.namespace), "P" * len(self._pod.name), "U" * 36),
            tenant="N" * len(model.tenant), node="O" * 9, revision=0,
            ports=(replace(port, id="I" * 12, mac="M" * 17, addresses=(hole,)),),
        )  # fmt: skip
        text = stored(marked)
        holes = (
            (b"N" * len(model.tenant), b"\1"), (b"P" * len(self._pod.name), b"\2"), (b"U" * 36, b"\3"), (b"I" * 12, b"\4"),
            (b"M" * 17, b"\5"), (b"A" * length, b"\6"), (b"O" * 9, b"\7"),
        )  # fmt: skip
        pieces = [text]
        for hole_text, mark in holes:
            pieces = [part for piece in pieces for part in _between(piece, hole_text, mark)]
        return pieces


def _between(piece: bytes, hole: bytes, mark: bytes) -> list[bytes]:
    first, *rest = piece.split(hole)
    parts = [first]
    for part in rest:
        parts += [mark, part]
    return parts


def bench_network(name: str, cidr: str, **fields: object) -> Network:
    """A public network of one subnet, whose released addresses can go out again at once."""
    subnet = ipaddress.ip_network(cidr)
    return network(name, Subnet(cidr, gateway=str(subnet[1])), public=True, rest=0.0, **fields)
