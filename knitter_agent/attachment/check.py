"""CHECK: the record of ADD, what the runtime believes (prevResult) and what the kernel has must agree."""

import asyncio
from collections.abc import Sequence

from knitter_agent.attachment.delegates import Surroundings
from knitter_agent.attachment.tools import Tools
from knitter_agent.attachment.undo import Undoer
from knitter_agent.cni import Call
from knitter_agent.cni.result import differences, read
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
            found = list(_told(call, record))
            found += await asyncio.shield(self._tools.worker.run(lambda kernel: self._look(kernel, call.netns, record)))
            if found:
                raise Refused(
                    "CNI_CHECK_FAILED",
                    f"{key.interface} is not as it was attached: {'; '.join(found)}",
                    differences="; ".join(found),
                )
            if record.delegations:
                around = Surroundings(key, call.netns, record.args, record.path)
                await self._tools.delegates.check(record.delegations, around, call.conf.prev_result)

    def _look(self, kernel: Kernel, netns: str, record: Record) -> Sequence[str]:
        """In the worker: the kernel's side."""
        found: list[str] = []
        with self._tools.open_namespace(netns) as sandbox:
            if sandbox.cookie != record.cookie:
                return [f"CNI_NETNS {netns!r} is another network namespace than the one that was attached"]
            for wiring in record.wirings:
                found += self._tools.drivers(wiring.type).check(kernel, sandbox, wiring)
        return found


def _told(call: Call, record: Record) -> Sequence[str]:
    assert call.conf.prev_result is not None
    result = record.result or {}
    if "cniVersion" in result:  # another plugin's, and that one's to check
        return []
    return differences(read(call.conf.prev_result, call.conf.version), result, call.interface)
