"""Where the manager keeps its state: one small protocol, several implementations, one suite that all of them pass."""

from pathlib import Path

from knitter_common.errors import Invalid
from knitter_manager.store.protocol import Store
from knitter_manager.store.settings import StoreSettings

__all__ = ["Store", "StoreSettings", "open_store"]


async def open_store(settings: StoreSettings) -> Store:
    """Opens the store that the settings name; its methods belong to the running event loop.

    Raises Invalid for settings that cannot be, Refused(STORE_UNUSABLE) for what this release cannot use, Unavailable
    (STORE_UNAVAILABLE) when etcd does not answer.
    """
    match settings.kind:
        case "sqlite":
            from knitter_manager.store.sqlite import SqliteStore

            return await SqliteStore.open(Path(settings.path), settings.retention)
        case "etcd":
            return await _open_etcd(settings)
        case "memory":
            from knitter_manager.store.memory import MemoryStore

            return MemoryStore()
    raise Invalid("FIELD_INVALID", f"store: kind: {settings.kind!r} is none of sqlite, etcd, memory", field="kind")


async def _open_etcd(settings: StoreSettings) -> Store:
    from knitter_manager.store.etcd import EtcdStore, Tls

    if not settings.endpoints:
        raise Invalid("FIELD_INVALID", "store: endpoints: name at least one member, as host:port", field="endpoints")
    if bool(settings.cert) != bool(settings.key) or (settings.cert and not settings.ca):
        raise Invalid("FIELD_INVALID", "store: cert and key go together, and with ca", field="cert")
    prefix = settings.prefix if settings.prefix.endswith("/") else settings.prefix + "/"
    return await EtcdStore.open(
        settings.endpoints,
        prefix,
        tls=Tls(settings.ca, settings.cert, settings.key) if settings.ca else None,
        ttl=settings.lease,
        patience=settings.timeout,
        age=settings.retention.age if settings.compact else None,
    )
