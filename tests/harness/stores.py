"""Places where state lies, for tests that must hold on every store: the fixture `site` (tests/conftest.py) is one, for each
kind.

A `Site` is one disk, cluster or memory: each `await site.open()` is another process, or the same one after a restart.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from harness import etcd
from knitter_manager.store import Store, StoreSettings, open_store
from knitter_manager.store.memory import MemorySpace, MemoryStore
from knitter_manager.store.protocol import Commit, Record

KINDS = ("memory", "sqlite", "etcd")


class Site:
    """Opens stores on one place and closes what a test leaves open. `settings` is what another process opens it with."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        self._space = MemorySpace() if settings.kind == "memory" else None
        self._stores: list[Store] = []

    @property
    def kind(self) -> str:
        """sqlite, etcd or memory."""
        return self.settings.kind

    async def open(self, **changed: object) -> Store:
        """A new instance on this place; keywords replace settings."""
        settings = replace(self.settings, **changed)  # type: ignore[arg-type]
        store = MemoryStore(self._space) if self._space else await open_store(settings)
        self._stores.append(store)
        return store

    async def open_writer(self, name: str = "writer:1", **changed: object) -> Store:
        """A new instance that is the writer."""
        store = await self.open(**changed)
        await store.acquire_writer(name)
        return store

    async def close(self) -> None:
        """Closes every instance, the newest first."""
        while self._stores:
            await self._stores.pop().close()


@contextlib.asynccontextmanager
async def open_site(kind: str, folder: Path) -> AsyncIterator[Site]:
    """A fresh, empty place of that kind; its files lie in `folder`. Skips the test where the machine lacks what it needs."""
    if kind == "etcd":
        # history is the member's, not the prefix's: a test compacts it by itself or not at all
        prefix = f"/test/{secrets.token_hex(6)}/"
        settings = StoreSettings(kind=kind, endpoints=etcd.shared().endpoints, prefix=prefix, compact=False)
    else:
        settings = StoreSettings(kind=kind, path=str(folder / "store.db"))
    site = Site(settings)
    try:
        yield site
    finally:
        await site.close()


async def everything(store: Store) -> dict[str, Record]:
    """The store's whole state as it loads it; checks the order of the keys on the way."""
    records = [record async for batch in (await store.load()).batches for record in batch]
    keys = [record.key for record in records]
    assert keys == sorted(set(keys))
    return {record.key: record for record in records}


async def take(store: Store, after: int, until: int) -> list[Commit]:
    """The changes after a revision, up to and including another one, which must be a commit's; checks their order."""
    taken: list[Commit] = []
    changes = store.changes(after)
    async for batch in changes:
        assert batch
        taken += batch
        if taken[-1].revision >= until:
            break
    await changes.aclose()  # type: ignore[attr-defined]
    revisions = [commit.revision for commit in taken]
    assert revisions == sorted(set(revisions))
    assert revisions[0] > after
    return taken
