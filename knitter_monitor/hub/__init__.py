"""Fan-out: what the manager's feed tells, laid out as topics, and the nodes that follow them."""
