"""The kernel's network configuration, spoken over plain AF_NETLINK sockets.

    Namespace   a sandbox's network namespace, opened for one call
    Kernel      the node's own namespace, open as long as the agent runs
    wire        rtnetlink's messages as bytes
    sysctl      settings below /proc/sys/net

Everything here blocks (microseconds, or a kernel grace period where something is deleted): call it in the agent's worker thread.
"""

from knitter_agent.netlink.kernel import Kernel
from knitter_agent.netlink.namespace import Namespace, cookie_of

__all__ = ["Kernel", "Namespace", "cookie_of"]
