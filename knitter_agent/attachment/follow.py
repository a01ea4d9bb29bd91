"""What networks have on the node follows the networks as monitors push them: an attachment's record is brought to what the network
is now, and the driver brings the kernel to that. The pods' own side stays as it was made.

The kernel first, then the journal: what a crash cuts off in between is found to differ when the network is pushed again.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import structlog

from knitter.v1 import types_pb2 as types
from knitter_agent.attachment.tools import Tools
from knitter_agent.drivers import Wiring
from knitter_agent.record import Key, Record, State
from knitter_common import failpoints
from knitter_common.errors import KnitterError
from knitter_common.managers import Backoff
from knitter_common.model import Network, NetworkType

log = structlog.get_logger()


class Follower:
    """Use from one event loop. `known` tells a network as it was pushed last, by id; None for one that was not."""

    def __init__(self, tools: Tools, known: Callable[[str], Network | None]) -> None:
        self._tools, self._known = tools, known
        self._due: dict[str, set[Key] | None] = {}  # networks, and which attachments on them; None: all
        self._wake = asyncio.Event()

    def pushed(self, network: Network) -> None:
        """A network was pushed: new, changed, or again."""
        self._due[network.id] = None
        self._wake.set()

    def attached(self, record: Record) -> None:
        """An attachment is done. It was perhaps planned before a network became what it is now; or after, and its push is yet to
        come: then what is known is older than the plan, and must not undo it."""
        told = types.PortSet.FromString(record.port_set)
        for port in told.ports:
            network = self._known(port.network_id)
            if network is None:
                continue
            agrees = (port.mtu, port.masquerade, port.public) == (network.mtu, network.masquerade, network.public)
            if agrees or network.revision > told.revision:
                keys = self._due.setdefault(network.id, set())
                if keys is not None:
                    keys.add(record.key)
                self._wake.set()

    async def run(self) -> None:
        """Follows until cancelled; what the kernel or the disk refuses is tried again."""
        backoff = Backoff(first=0.2, most=30.0)
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, {}
            for network_id, keys in due.items():
                try:
                    await self.follow(network_id, keys)
                    backoff.reset()
                except Exception as error:
                    defect = None if isinstance(error, KnitterError) else error
                    text = "a network's change cannot be carried out on this node yet"
                    log.error(text, network=network_id, error=str(error), exc_info=defect)
                    self._due[network_id] = None
            if self._due:
                self._wake.set()
                await backoff.wait()

    async def follow(self, network_id: str, keys: Collection[Key] | None = None) -> int:
        """Brings these attachments on a network, or all, to what it is now; returns how many differed. Raises KnitterError."""
        network = self._known(network_id)
        if network is None:
            return 0
        changed: list[Record] = []
        steps: dict[NetworkType, list[tuple[Wiring, Wiring]]] = {}
        records = self._tools.journal.records
        for record in list(records.values()) if keys is None else [records[key] for key in keys if key in records]:
            after = self._brought(record, network) if record.state is State.ATTACHED else record
            if after is record:
                continue
            changed.append(after)
            for old, new in zip(record.wirings, after.wirings, strict=True):
                if new is not old:
                    steps.setdefault(new.type, []).append((old, new))
        if changed:
            await failpoints.reach("follow.before-settle")
        for kind, pairs in steps.items():
            await self._settled(kind, pairs)
        if changed:
            await failpoints.reach("follow.settled")
            await self._tools.journal.rewire(*changed)
            log.info("a network has changed", network=network.path, attachments=len(changed))
        return len(changed)

    async def _settled(self, kind: NetworkType, pairs: Iterable[tuple[Wiring, Wiring]]) -> None:
        together = tuple(pairs)
        await self._tools.remover.run(lambda kernel: self._tools.drivers(kind).settle(kernel, together))

    def _brought(self, record: Record, network: Network) -> Record:
        """The record with its wirings on this network as they are to be; the record itself where nothing differs."""
        on = _interfaces(record)
        if network.id not in on.values():
            return record
        wirings = tuple(
            self._tools.drivers(wiring.type).follow(wiring, network) if on.get(wiring.interface) == network.id else wiring
            for wiring in record.wirings
        )
        if wirings == record.wirings:
            return record
        kept = tuple(old if old == new else new for old, new in zip(record.wirings, wirings, strict=True))
        return replace(record, wirings=kept)


def _interfaces(record: Record) -> Mapping[str, str]:
    """The network's id of each interface."""
    return {port.interface: port.network_id for port in types.PortSet.FromString(record.port_set).ports}
