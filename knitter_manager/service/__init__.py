"""The gRPC side of the manager: message → dataclass → domain → message, a few lines each."""
