"""Which sandbox is at a path now. A record's sandbox lives as long as its path opens with the recorded cookie."""

from knitter_agent.attachment.tools import Tools
from knitter_agent.netlink import Kernel
from knitter_common.errors import Invalid, NotFound


async def cookie_at(tools: Tools, netns: str) -> int | None:
    """The cookie of the namespace at a path; None where there is nothing, or something else than a sandbox's namespace.

    Raises KnitterError or OSError where it could not be found out (no descriptors, no permission): nobody may be declared dead for
    that.
    """

    def look(_: Kernel) -> int | None:
        try:
            with tools.open_namespace(netns) as sandbox:
                return sandbox.cookie
        except (NotFound, Invalid):
            return None

    return await tools.worker.run(look)
