"""Where the manager keeps its state."""

from dataclasses import dataclass

from knitter_common.settings import Seconds, setting
from knitter_manager.store.sqlite import Retention


@dataclass(frozen=True)
class StoreSettings:
    """The store: a SQLite file (default), an etcd cluster, or memory for tests."""

    kind: str = setting("sqlite, etcd, or memory (nothing survives the process)", "sqlite", choices=("sqlite", "etcd", "memory"))
    path: str = setting(
        "sqlite: the file, on a local disk; `<path>.writer` beside it is the writer's lock", "/var/lib/knitter/store.db"
    )
    retention: Retention = setting("how long changes are kept for those who resume; etcd uses its age alone", Retention())
    endpoints: tuple[str, ...] = setting("etcd: the members, each host:port", ("127.0.0.1:2379",))
    prefix: str = setting("etcd: all keys lie below this prefix", "/knitter/")
    ca: str = setting('etcd: file with the authority\'s certificates (PEM); "" for no TLS', "")
    cert: str = setting("etcd: file with the client's certificate (PEM)", "")
    key: str = setting("etcd: file with the client's private key (PEM)", "")
    lease: Seconds = setting("etcd: how long a writer that is silent stays the writer", Seconds(3.0), low=1, high=60)
    timeout: Seconds = setting("etcd: how long one request may take before the store counts as down", Seconds(5.0), low=0.5)
    compact: bool = setting(
        "etcd: the writer compacts the cluster's history by the retention's age; false: etcd's own --auto-compaction does", True
    )
