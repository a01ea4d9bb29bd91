"""How every daemon starts, logs, serves and stops. `daemon.run` is the only thing a `main` calls."""

from knitter_common.serve.daemon import Daemon, run
from knitter_common.serve.server import GrpcServer, ServerSettings

__all__ = ["Daemon", "GrpcServer", "ServerSettings", "run"]
