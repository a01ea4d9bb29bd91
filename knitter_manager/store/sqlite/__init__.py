"""The embedded store: one SQLite file, one writer thread that gathers commits into one fsync."""

from knitter_manager.store.sqlite.store import SqliteStore
from knitter_manager.store.sqlite.writer import Retention

__all__ = ["Retention", "SqliteStore"]
