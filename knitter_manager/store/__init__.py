"""Where the manager keeps its state: one small protocol, several implementations, one suite that all of them pass."""
