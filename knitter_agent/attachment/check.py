"""CHECK: the record of ADD, what the runtime believes (prevResult) and what the kernel has must agree.

CNI specification 1.1.0, "CHECK": "The plugin must allow for a later chained plugin to have modified networking resources". Such a
plugin tells in the result what it changed, so MAC, MTU and routes of the primary interface are expected as prevResult has them.
"""

import asyncio
from collections.abc import Sequence

from knitter_agent.attachment.delegates import Surroundings
from knitter_agent.attachment.tools import Tools
from knitter_agent.attachment.undo import Undoer
from knitter_agent.cni import Call
from knitter_agent.cni.result import changed_since, differences, read
from knitter_agent.drivers import UNCHANGED, Changed
from knitter_agent.netlink import Kernel
from knitter_agent.record import Key, Record, State
from knitter_common.errors import Invalid, NotFound, Refused


class Checker:
    """Carries CHECKs out; changes nothing."""

    def __init__(self, tools: Tools, undoer: Undoer) -> None:
        self._tools = tools
        self._undoer = undoer

    async def check(self, call: Call) -> None:
        """Returns when all is as ADD told. Raises Refused(CNI_CHECK_FAILED) listing every difference."""
        key = Key(call.conf.name, call.container_id, call.interface)
        if call.conf.prev_result is None:
            raise Invalid("CNI_CONFIG_INVALID", "prevResult is missing; CHECK needs it", field="prevResult")
        async with self._tools.locks.hold(f"id/{call.container_id}"):
            await self._undoer.settled(call.container_id, call.netns)
            record = self._tools.journal.records.get(key)
            if record is None or record.state is not State.ATTACHED:
                raise NotFound(
                    "CNI_CONTAINER_UNKNOWN", f"container {key.container_id} is not attached to {key.network} as {key.interface}"
                )
            found, changed = _told(call, record)
            found += await asyncio.shield(self._tools.worker.run(lambda kernel: self._look(kernel, call, record, changed)))
            if found:
                raise Refused(
                    "CNI_CHECK_FAILED",
                    f"{key.interface} is not as it was attached: {'; '.join(found)}",
                    differences="; ".join(found),
                )
            if record.delegations:
                around = Surroundings(key, call.netns, record.args, record.path)
                await self._tools.delegates.check(record.delegations, around, call.conf.prev_result)

    def _look(self, kernel: Kernel, call: Call, record: Record, changed: Changed) -> Sequence[str]:
        """In the worker: the kernel's side. The runtime tells, and later plugins change, the primary interface alone."""
        found: list[str] = []
        with self._tools.open_namespace(call.netns) as sandbox:
            if sandbox.cookie != record.cookie:
                return [f"CNI_NETNS {call.netns!r} is another network namespace than the one that was attached"]
            for wiring in record.wirings:
                since = changed if wiring.interface == call.interface else UNCHANGED
                found += self._tools.drivers(wiring.type).check(kernel, sandbox, wiring, since)
        return found


def _told(call: Call, record: Record) -> tuple[list[str], Changed]:
    """What of ADD's result the runtime tells differently, and what later plugins of the chain made of the interface."""
    assert call.conf.prev_result is not None
    result = record.result or {}
    if "cniVersion" in result:  # another plugin's, and that one's to check
        return [], UNCHANGED
    told = read(call.conf.prev_result, call.conf.version)
    return differences(told, result, call.interface), changed_since(told, result, call.interface)
