"""The node's side of what is attached, made whole again: after the host's network was restarted, bridges and gateways may be gone.

Touches nothing that is as it should be, and never a pod's own side; what is lost for good is told, its pod has to be made anew.
"""

import structlog

from knitter_agent.attachment.tools import Tools
from knitter_agent.drivers import Wiring
from knitter_agent.netlink import Kernel
from knitter_agent.record import State
from knitter_common.errors import KnitterError
from knitter_common.model import NetworkType

log = structlog.get_logger()


async def repair(tools: Tools) -> int:
    """One pass over all attachments; returns how many things work again. A kernel that refuses is told, not raised."""
    wirings: dict[NetworkType, list[Wiring]] = {}
    for record in tools.journal.records.values():
        if record.state is State.ATTACHED:
            for wiring in record.wirings:
                wirings.setdefault(wiring.type, []).append(wiring)

    def work(kernel: Kernel) -> tuple[list[str], list[str]]:
        done: list[str] = []
        lost: list[str] = []
        for kind, together in wirings.items():
            mended = tools.drivers(kind).repair(kernel, together)
            done += mended.done
            lost += mended.lost
        return done, lost

    try:
        done, lost = await tools.worker.run(work)
    except KnitterError as error:
        log.error("the node's side cannot be repaired", reason=error.reason, error=error.message)
        return 0
    for sentence in done:
        log.warning("repaired", what=sentence)
    for sentence in lost:
        log.error("cannot be repaired from the node; delete the pod so that it is made anew", what=sentence)
    return len(done)
