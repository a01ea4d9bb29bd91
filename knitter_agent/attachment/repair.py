"""The node's side of what is attached, made whole again: after the host's network was restarted, bridges and gateways may be gone.

Touches nothing that is as it should be, and never a pod's own side; what is lost for good is told, its pod has to be made anew.
"""

from collections.abc import Sequence

import structlog

from knitter_agent.attachment.tools import Tools
from knitter_agent.drivers import Wiring
from knitter_agent.record import State
from knitter_common.errors import KnitterError
from knitter_common.model import NetworkType

log = structlog.get_logger()

_CHUNK = 16  # attachments in one piece of the worker's time, so that ADDs get theirs in between


async def repair(tools: Tools) -> int:
    """One pass over all attachments; returns how many things work again. A kernel that refuses is told, not raised."""
    count = 0
    keys = [key for key, record in tools.journal.records.items() if record.state is State.ATTACHED and record.wirings]
    for start in range(0, len(keys), _CHUNK):
        wirings: dict[NetworkType, list[Wiring]] = {}
        for key in keys[start : start + _CHUNK]:
            record = tools.journal.records.get(key)
            if (
                record is not None and record.state is State.ATTACHED
            ):  # still: what is handed to the worker now comes before its undo
                for wiring in record.wirings:
                    wirings.setdefault(wiring.type, []).append(wiring)
        for kind, together in wirings.items():
            count += await _mend(tools, kind, together)
    return count


async def _mend(tools: Tools, kind: NetworkType, together: Sequence[Wiring]) -> int:
    try:
        mended = await tools.remover.run(lambda kernel: tools.drivers(kind).repair(kernel, together))
    except KnitterError as error:
        log.error("the node's side cannot be repaired", reason=error.reason, error=error.message)
        return 0
    except Exception as error:
        log.error("the repair of the node's side failed unexpectedly", exc_info=error)  # an agent that cannot mend can serve
        return 0
    for sentence in mended.done:
        log.warning("repaired", what=sentence)
    for sentence in mended.lost:
        log.error("cannot be repaired from the node; delete the pod so that it is made anew", what=sentence)
    return len(mended.done)
