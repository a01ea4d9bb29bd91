"""Where the manager keeps its state: one small protocol, several implementations, one suite that all of them pass."""

from pathlib import Path

from knitter_common.errors import Invalid
from knitter_manager.store.protocol import Store
from knitter_manager.store.settings import StoreSettings

__all__ = ["Store", "StoreSettings", "open_store"]


async def open_store(settings: StoreSettings) -> Store:
    """Opens the store that the settings name; its methods belong to the running event loop.

    Raises Refused(STORE_UNUSABLE) for a file that this release cannot use, Invalid for settings that cannot be.
    """
    match settings.kind:
        case "sqlite":
            from knitter_manager.store.sqlite import SqliteStore

            return await SqliteStore.open(Path(settings.path), settings.retention)
        case "memory":
            from knitter_manager.store.memory import MemoryStore

            return MemoryStore()
    raise Invalid("FIELD_INVALID", f"store: kind {settings.kind!r} is not there yet", field="kind")
