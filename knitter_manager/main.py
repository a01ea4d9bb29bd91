"""knitter-manager."""

import sys

from knitter_common.serve import run
from knitter_manager.config import ManagerSettings
from knitter_manager.daemon import ManagerDaemon


def main(argv: list[str] | None = None) -> int:
    """Runs the manager; returns the exit code."""
    return run("knitter-manager", ManagerSettings, ManagerDaemon, argv)


if __name__ == "__main__":
    sys.exit(main())
