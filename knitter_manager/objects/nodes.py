"""Nodes: registered by their agents, declared gone or forgotten by people."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

from knitter_common.convert import node_to_proto
from knitter_common.errors import Exists, NotFound
from knitter_common.model import Node
from knitter_common.names import nearest
from knitter_common.objects.validate import validate_node
from knitter_manager import keys
from knitter_manager.objects.book import API, Book, check_change

_BATCH = 100  # records in one commit


class Nodes:
    """`free` ends what was lent to a node that is gone, or forgotten."""

    def __init__(self, book: Book, free: Callable[[str], Awaitable[None]]) -> None:
        self._book, self._free = book, free

    def get(self, name: str) -> Node:
        """Raises NotFound(OBJECT_NOT_FOUND)."""
        entry = self._book.cluster.nodes.get(name)
        if entry is None or not entry.node.revision:
            there = [other for other, entry in self._book.cluster.nodes.items() if entry.node.revision]
            way = nearest(name, there) if there else "none has registered yet"
            raise NotFound("OBJECT_NOT_FOUND", f"there is no node {name!r}; {way}", node=name)
        return entry.node

    async def create(self, wanted: Node) -> Node:
        """The node; one that is there in the same shape is returned."""
        asked = validate_node(wanted)

        async def step() -> Node:
            current = self._book.cluster.node(asked.name).node
            if current.revision:
                same = replace(current, create_time=0, last_seen=0, revision=0, source="", gone=False)
                if same == replace(asked, create_time=0, last_seen=0, revision=0, source="", gone=False):
                    return current
                raise Exists("OBJECT_EXISTS", f"node {asked.name} exists with other facts; update it", node=asked.name)
            now = self._book.wall()
            return await self._store(replace(asked, create_time=now, last_seen=now, source=asked.source or API), 0)

        return await self._book.change(step)

    async def register(self, told: Node) -> Node:
        """What an agent tells of its own node: new facts replace the old ones, and it is not gone (any more)."""
        asked = validate_node(told)

        async def step() -> Node:
            current = self._book.cluster.node(asked.name).node
            now = self._book.wall()
            node = replace(
                current,
                underlay_address=asked.underlay_address or current.underlay_address,
                agent_version=asked.agent_version or current.agent_version,
                labels=asked.labels or current.labels,
                gone=False,
                create_time=current.create_time or now,
                source=current.source or API,
            )
            if current.revision and node == current:
                return current
            return await self._store(replace(node, last_seen=now), current.revision)

        return await self._book.change(step)

    async def update(self, wanted: Node) -> Node:
        """The whole node as it shall be. Declared gone, what was lent to it comes free."""
        asked = validate_node(wanted)

        async def step() -> Node:
            current = self.get(asked.name)
            check_change(f"node {asked.name}", current, asked.revision, asked.source)
            node = replace(asked, create_time=current.create_time, last_seen=current.last_seen, source=current.source, revision=0)
            return current if node == replace(current, revision=0) else await self._store(node, current.revision)

        node = await self._book.change(step)
        if node.gone:
            await self._free(node.name)
        return node

    async def delete(self, name: str, revision: int) -> None:
        """Forgets a node: what was lent to it comes free. Missing is success."""

        async def step() -> None:
            current = self._book.cluster.node(name).node
            if current.revision:
                check_change(f"node {name}", current, revision, current.source)
                await self._book.commit({keys.node(name): current.revision}, {}, [keys.node(name)])

        await self._book.change(step)
        await self._free(name)
        await self.acquit(name)

    async def acquit(self, name: str, carried: Collection[str] = ()) -> None:
        """The node carries none of the networks that it may have carried when it was declared gone, but these (by id)."""

        async def step() -> None:
            told = [key for key in self._book.cluster.owed if keys.owed_of(key)[1] == name]
            over = [key for key in told if keys.owed_of(key)[0] not in carried]
            for begin in range(0, len(over), _BATCH):
                await self._book.commit({}, {}, over[begin : begin + _BATCH])

        await self._book.change(step)

    async def _store(self, node: Node, before: int) -> Node:
        await self._book.commit({keys.node(node.name): before}, {keys.node(node.name): node_to_proto(node).SerializeToString()})
        return self._book.cluster.node(node.name).node
