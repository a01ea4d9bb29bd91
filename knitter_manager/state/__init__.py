"""The cluster's state in memory: what the store holds, indexed. Rebuilt from the store at start, kept up to date by its changes."""

from knitter_manager.state.cluster import Cluster
from knitter_manager.state.entries import GroupEntry, NetworkEntry, NodeEntry, TenantEntry

__all__ = ["Cluster", "GroupEntry", "NetworkEntry", "NodeEntry", "TenantEntry"]
