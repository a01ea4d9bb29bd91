"""Comparing: the store with itself, the memory with the store, the store with the nodes' journals; and repairing what differs."""
