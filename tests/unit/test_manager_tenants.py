"""Tenants when the store does not answer: nobody is given more than what may hold by now."""

from collections.abc import Sequence
from typing import Any

import pytest
from harness.manager import allocate, core_on, named, network, release

from knitter_common.errors import Exhausted, Unavailable
from knitter_common.model import Quota, Tenant, Wish
from knitter_manager.store.memory import MemoryStore
from knitter_manager.store.protocol import Commit, StoreDown

WISH = Wish("control")


@pytest.mark.parametrize("written", [True, False])
async def test_a_quota_that_may_have_been_lowered_holds(monkeypatch: pytest.MonkeyPatch, written: bool) -> None:
    async with core_on(MemoryStore()) as core:
        await core.tenants.create(Tenant("t1", quota=Quota(ports=3)))
        await core.networks.create(network("control", "10.1.0.0/24", tenant="t1"))
        await allocate(core, named("a", "t1"), WISH)
        commit, take = core.store.commit, core.feed._take
        late: list[Sequence[Commit]] = []

        async def unanswered(*asked: Any) -> int:
            if written:
                await commit(*asked)
            raise StoreDown("no answer")

        monkeypatch.setattr(core.feed, "_take", late.append)  # and the feed lags behind
        monkeypatch.setattr(core.store, "commit", unanswered)
        with pytest.raises(Unavailable):
            await core.tenants.update(Tenant("t1", quota=Quota(ports=1)))
        monkeypatch.setattr(core.store, "commit", commit)
        with pytest.raises(Exhausted, match="1 of 1 ports"):
            await allocate(core, named("b", "t1"), WISH)
        monkeypatch.setattr(core.feed, "_take", take)
        for commits in late:
            take(commits)
        assert core.tenants.get("t1").quota.ports == (1 if written else 3)
        await core.tenants.update(Tenant("t1", quota=Quota(ports=3)))  # where it was not written, as it is
        await allocate(core, named("b", "t1"), WISH)
        await release(core, named("b", "t1"))
