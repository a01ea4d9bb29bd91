"""The rules of sticky addresses, through the API, on every store: those of a pod that keeps them are its name's, not its life's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from harness.rules import Manager, manager_on, pod_owner, refusal, told, users, wish
from harness.stores import Site, open_site

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types

WISH = wish("control", interface="eth0")
KEPT, LENT, RESERVED = types.PORT_SET_STATE_KEPT, types.PORT_SET_STATE_LENT, types.PORT_SET_STATE_RESERVED


@pytest.fixture
async def manager(site: Site) -> AsyncIterator[Manager]:
    """t1 has `control`; the nodes n1 and n2 are known."""
    async with manager_on(await site.open()) as manager:
        await manager.network("control", "10.1.0.0/28", "2001:db8::/124")
        for node in ("n1", "n2"):
            await manager.stub.CreateNode(pb.CreateNodeRequest(node=types.Node(name=node)))
        yield manager


async def only(manager: Manager) -> types.PortSet:
    """The one set that there is."""
    (found,) = await manager.sets()
    return found


async def kept_pod(manager: Manager) -> types.PortSet:
    """web-0 of UID 1 had these ports, on no node, and is gone."""
    made = await manager.pod("web-0", WISH, uid="1", sticky=True)
    await manager.end_pod("web-0", uid="1")
    return made


async def test_the_addresses_stay_when_the_pod_is_gone(manager: Manager) -> None:
    made = await kept_pod(manager)
    kept = await only(manager)
    assert (kept.state, kept.owner, kept.ports) == (KEPT, made.owner, made.ports)
    assert kept.expire_time.ToSeconds() > made.create_time.ToSeconds() + 3600
    assert not kept.HasField("binding")
    assert kept.node == ""


async def test_the_next_pod_of_that_name_takes_them_over_on_any_node(manager: Manager) -> None:
    made = await kept_pod(manager)
    again = await manager.pod("web-0", WISH, uid="2", sticky=True, node="n2")
    assert told(again) == told(made)
    assert again.ports[0].mac == made.ports[0].mac
    assert (again.owner, again.node, again.state) == (pod_owner("web-0", "2"), "n2", RESERVED)
    assert not again.HasField("expire_time")
    assert await only(manager) == again
    assert [one.owner for one in await manager.sets(address=told(made)[0])] == [again.owner]


async def test_what_still_fits_stays_and_the_rest_is_let_go(manager: Manager) -> None:
    await manager.network("media", "10.3.0.0/29")
    made = await manager.pod("web-0", WISH, wish("media", interface="net1"), uid="1", sticky=True)
    await manager.end_pod("web-0", uid="1")
    again = await manager.pod("web-0", wish("control", interface="eth0", addresses=["10.1.0.9"]), uid="2", sticky=True)
    assert told(again) == ["10.1.0.9", told(made)[1]]
    for address in (told(made)[0], told(made)[2]):
        assert await manager.sets(address=address) == []


async def test_another_pod_gets_others(manager: Manager) -> None:
    made = await kept_pod(manager)
    for pod in ({"name": "web-1"}, {"name": "web-0", "tenant": "t2"}):
        await manager.network("control", "10.9.0.0/28", tenant="t2")
        other = await manager.pod(pod["name"], WISH, uid="9", sticky=True, tenant=pod.get("tenant", "t1"))
        assert not set(told(other)) & set(told(made))
    with refusal("ADDRESS_TAKEN", "pod t1/web-0"):
        await manager.pod("thief", wish("control", addresses=[told(made)[0]]))


async def test_a_pod_that_asks_for_nothing_of_the_kind_keeps_nothing(manager: Manager) -> None:
    made = await manager.pod("web-0", WISH, uid="1")
    await manager.end_pod("web-0", uid="1")
    assert await manager.sets() == []
    assert told(await manager.pod("web-0", WISH, uid="2", sticky=True)) != told(made)


async def test_while_a_node_still_has_them_the_next_pod_waits(manager: Manager) -> None:
    made = await manager.pod("web-0", WISH, uid="1", sticky=True, node="n1", sandbox="c1")
    with refusal("SET_BOUND_ELSEWHERE", "sandbox c1 on node n1") as waiting:
        await manager.pod("web-0", WISH, uid="2", sticky=True, node="n2")
    assert waiting.error.grpc_code is grpc.StatusCode.UNAVAILABLE
    assert waiting.error.cni_code == 11
    await manager.end_pod("web-0", uid="1")
    assert (await only(manager)).state == LENT
    with refusal("SET_BOUND_ELSEWHERE"):
        await manager.pod("web-0", WISH, uid="2", sticky=True, node="n2")
    await manager.end_pod("web-0", uid="1", container_id="c1", unbind_only=True)
    assert (await only(manager)).state == KEPT
    assert told(await manager.pod("web-0", WISH, uid="2", sticky=True, node="n2")) == told(made)


async def test_a_set_that_was_pushed_and_never_used_is_waited_for_too(manager: Manager) -> None:
    made = await manager.pod("web-0", WISH, uid="1", sticky=True, node="n1")
    for state in (RESERVED, LENT):
        assert (await only(manager)).state == state
        with refusal("SET_BOUND_ELSEWHERE", "node n1"):
            await manager.pod("web-0", WISH, uid="2", sticky=True, node="n2")
        await manager.end_pod("web-0", uid="1")
    await manager.end_pod("web-0", uid="1", unbind_only=True)
    assert told(await manager.pod("web-0", WISH, uid="2", sticky=True, node="n2")) == told(made)


@pytest.mark.parametrize("how", ["forgotten", "declared gone"])
async def test_or_until_the_node_is_gone(manager: Manager, how: str) -> None:
    made = await manager.pod("web-0", WISH, uid="1", sticky=True, node="n1", sandbox="c1")
    await manager.end_pod("web-0", uid="1")
    if how == "forgotten":
        await manager.stub.DeleteNode(pb.DeleteNodeRequest(name="n1"))
    else:
        await manager.stub.UpdateNode(pb.UpdateNodeRequest(node=types.Node(name="n1", gone=True)))
    assert (await only(manager)).state == KEPT
    assert told(await manager.pod("web-0", WISH, uid="2", sticky=True, node="n2")) == told(made)


async def test_a_late_word_of_the_old_node_ends_nothing(manager: Manager) -> None:
    made = await kept_pod(manager)
    await manager.end_pod("web-0", uid="1", container_id="c1", unbind_only=True)
    await manager.end_pod("web-0", uid="1", container_id="c1")
    assert (await only(manager)).state == KEPT
    again = await manager.pod("web-0", WISH, uid="2", sticky=True)
    await manager.end_pod("web-0", uid="1")
    assert await only(manager) == again
    assert told(again) == told(made)


async def test_released_by_hand_they_are_free(manager: Manager) -> None:
    made = await kept_pod(manager)
    await manager.end_pod("web-0", uid="1")
    assert await manager.sets() == []
    assert told(await manager.pod("other", wish("control", addresses=[told(made)[0]])))[0] == told(made)[0]


async def test_the_same_pod_after_all_has_its_own(manager: Manager) -> None:
    made = await kept_pod(manager)
    again = await manager.pod("web-0", WISH, uid="1", sticky=True)
    assert (told(again), again.state) == (told(made), RESERVED)
    assert not again.HasField("expire_time")


async def test_they_stay_in_their_group_and_with_their_claim(manager: Manager) -> None:
    await manager.stub.CreateIPGroup(
        pb.CreateIPGroupRequest(ip_group=types.IPGroup(tenant="t1", name="g", network="control", ips=["10.1.0.9", "10.1.0.8"]))
    )
    claim = await manager.claim("c")
    wishes = wish("control", interface="eth0", ip_group="g"), wish("control", interface="net1", ip_claim="c")
    made = await manager.pod("web-0", *wishes, uid="1", sticky=True)
    await manager.end_pod("web-0", uid="1")
    assert users(await manager.read_group("g")) == {"10.1.0.9": "web-0"}
    with refusal("OBJECT_IN_USE", "pod t1/web-0"):
        await manager.pod("web-1", wishes[1])
    again = await manager.pod("web-0", *wishes, uid="2", sticky=True)
    assert told(again) == told(made)
    assert (await manager.read_claim("c")).used_by == again.owner
    assert list(again.ports[1].addresses) == list(claim.addresses)


async def test_many_at_once_take_over_once(manager: Manager) -> None:
    made = await kept_pod(manager)
    outcomes = await asyncio.gather(
        *(manager.pod("web-0", WISH, uid=f"u{number}", sticky=True, node="n2") for number in range(6)), return_exceptions=True
    )
    won = [one for one in outcomes if isinstance(one, types.PortSet)]
    assert len(won) == 1
    assert told(won[0]) == told(made)
    assert len(await manager.sets()) == 1


async def test_they_outlive_the_manager(site: Site) -> None:
    async with manager_on(await site.open()) as manager:
        await manager.network("control", "10.1.0.0/28")
        made = await kept_pod(manager)
        kept = await only(manager)
    async with manager_on(await site.open()) as manager:
        assert await only(manager) == kept
        assert told(await manager.pod("other", WISH)) != told(made)
        assert told(await manager.pod("web-0", WISH, uid="2", sticky=True)) == told(made)


async def test_their_time_ends(tmp_path: Path) -> None:
    async with open_site("memory", tmp_path) as site, manager_on(await site.open(), stickyTtl=0.05) as manager:
        await manager.network("control", "10.1.0.0/28")
        await kept_pod(manager)
        changes = manager.stub.Changes(pb.ChangesRequest())
        async with asyncio.timeout(10):
            async for answer in changes:
                if any(change.HasField("deleted") for change in answer.changes.changes):
                    break
        changes.cancel()
        assert await manager.sets() == []


async def test_with_no_time_at_all_nothing_is_kept(tmp_path: Path) -> None:
    async with open_site("memory", tmp_path) as site, manager_on(await site.open(), stickyTtl=0) as manager:
        await manager.network("control", "10.1.0.0/28")
        await kept_pod(manager)
        assert await manager.sets() == []


async def test_a_plan_that_fails_costs_the_pod_nothing(manager: Manager) -> None:
    made = await kept_pod(manager)
    with refusal("NETWORK_NOT_FOUND"):
        await manager.pod("web-0", wish("nowhere"), uid="2", sticky=True, replace=True)
    again = await manager.pod("web-0", WISH, uid="2", sticky=True, replace=True)
    assert told(again) == told(made)
    assert await only(manager) == again
