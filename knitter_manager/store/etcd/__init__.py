"""The store on an etcd cluster (v3 API, over grpc.aio): many managers, one writer by lease. docs/store.md says how to run it."""

from knitter_manager.store.etcd.members import Tls
from knitter_manager.store.etcd.store import EtcdStore

__all__ = ["EtcdStore", "Tls"]
