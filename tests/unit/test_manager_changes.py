"""The feed of changes while changes do not cease."""

from harness.manager import allocate, core_on, named, network

from knitter.v1 import manager_pb2 as pb
from knitter_common.model import Wish
from knitter_manager.core import Core
from knitter_manager.service.changes import Subscription
from knitter_manager.store.memory import MemoryStore

PATIENCE = 20  # messages within which a client must be synced: a snapshot and a few batches


async def _messages_until_synced(core: Core, position: pb.ChangesRequest) -> list[str]:
    """The kinds of the feed's messages; while each is on its way, one more set is allocated."""
    kinds: list[str] = []
    async for message in Subscription(core, position, heartbeat=60).run():
        kinds.append(str(message.WhichOneof("event")))
        if kinds[-1] == "synced" or len(kinds) == PATIENCE:
            return kinds
        before = core.cluster.revision
        await allocate(core, named(f"{position.after_revision}-{len(kinds)}"), Wish(network="net"))
        await core.feed.until(before + 1)
    return kinds


async def test_a_client_is_synced_however_fast_changes_come() -> None:
    """What it is told by then includes all that was so when it came."""
    async with core_on(MemoryStore()) as core:
        await core.networks.create(network("net", "10.1.0.0/16"))
        assert await _messages_until_synced(core, pb.ChangesRequest()) == ["reset", "changes", "changes", "synced"]
        position = pb.ChangesRequest(epoch=core.cluster.epoch, after_revision=core.cluster.revision)
        await allocate(core, named("meanwhile"), Wish(network="net"))
        assert await _messages_until_synced(core, position) == ["changes", "synced"]
