"""What all components share. It imports none of them.

Whoever imports grpc imports this first: grpc reads the variable once. Its EventEngine (the default in Python since grpcio 1.80)
hands a call from thread to thread 18 times where the polling before it did so 6 times, and takes half as much processor time again
(docs/performance.md). A release of grpc that has no such choice any more says so in the log, and works.
"""

import os

GRPC_POLLING = "-event_engine_client,-event_engine_listener"

os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_POLLING)
