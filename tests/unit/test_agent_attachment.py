"""knitter_agent.attachment over fakes: ADD is everything or nothing, DEL succeeds, nothing live is touched."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from harness.agent import call_of, parts

from knitter_agent.attachment import Attachments
from knitter_agent.cni.capabilities import ANNOTATIONS
from knitter_agent.netlink import Namespace
from knitter_agent.record import Key, State
from knitter_common import failpoints
from knitter_common.errors import Exhausted, Exists, Internal, Invalid, KnitterError, NotFound, Refused, Unavailable
from knitter_common.failpoints import Panic
from knitter_common.model import Bandwidth
from knitter_common.wishes import NPWG_KEY

KEY = Key("knitter", "c1", "eth0")
TWO = {"networks": "t1/control@net1"}


@pytest.fixture(autouse=True)
def _disarmed() -> Any:
    yield
    failpoints.arm("")


async def test_add_answers_the_primary_and_makes_all(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        result = await agent.add(**TWO)
        assert result["cniVersion"] == "1.0.0"
        assert [ip["address"] for ip in result["ips"]] == ["10.1.0.2/16", "fd00:1::2/64"]
        assert result["interfaces"][result["ips"][0]["interface"]] == {
            "name": "eth0",
            "mac": "02:4b:00:00:00:02",
            "sandbox": "/ns/a",
        }
        assert agent.kernel.interfaces("/ns/a") == ["eth0", "net1"]
        assert agent.journal.records[KEY].state is State.ATTACHED
        (allocation,) = agent.manager.sets.allocated
        assert allocation.owner.key == "sandbox/node1/c1/knitter/eth0"
        assert (allocation.binding.container_id, allocation.binding.netns) == ("c1", "/ns/a")
        assert agent.kernel.opened == 0


async def test_del_is_answered_when_durable_and_carried_out_after(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add(**TWO)
        agent.manager.open.clear()  # the manager is away
        await agent.delete()
        assert agent.journal.records[KEY].state is State.DETACHING
        await agent.attachments.undoer.settled("c1", "")
        assert agent.kernel.interfaces("/ns/a") == []
        assert agent.manager.sets.held
        agent.manager.open.set()
        await agent.settle()
        assert not agent.manager.sets.held
        assert not agent.journal.records


async def test_del_of_the_unknown_and_del_again_succeed(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.delete("never")
        await agent.add()
        await agent.delete()
        await agent.delete()
        await agent.settle()
        await agent.delete()
        assert not agent.journal.records


async def test_del_succeeds_when_the_namespace_is_gone(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        agent.kernel.remove_namespace("/ns/a")
        await agent.delete(netns="/ns/a")
        await agent.settle()
        assert not agent.manager.sets.held


async def test_undos_are_gathered(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        for number in range(8):
            agent.kernel.add_namespace(f"/ns/{number}")
            await agent.add(f"c{number}", f"/ns/{number}")
        await asyncio.gather(*(agent.delete(f"c{number}") for number in range(8)))
        await agent.settle()
        assert len(agent.kernel.detached) <= 2
        assert not agent.kernel.made


async def test_add_again_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        made = dict(agent.kernel.made)
        with pytest.raises(Exists) as caught:
            await agent.add()
        assert caught.value.reason == "CNI_INTERFACE_EXISTS"
        assert agent.kernel.made == made
        assert agent.journal.records[KEY].state is State.ATTACHED


async def test_an_attachment_that_cannot_be_looked_at_does_not_give_way(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()

        def refuse(path: str) -> NoReturn:
            raise Unavailable("AGENT_BUSY", "no descriptors")

        crowded = Attachments(replace(agent.tools, open_namespace=refuse))
        with pytest.raises(Unavailable):
            await crowded.add(call_of("ADD", "c1", "/ns/a", "eth0", {}))
        await crowded.close()
        assert agent.journal.records[KEY].state is State.ATTACHED
        assert agent.kernel.interfaces("/ns/a") == ["eth0"]


async def test_a_wished_default_route_is_made_and_told_beside_the_primary_ones(tmp_path: Path) -> None:
    annotation = {NPWG_KEY: '[{"name": "control", "namespace": "t1", "interface": "net1", "default-route": ["10.2.0.9"]}]'}
    async with parts(tmp_path) as agent:
        result = await agent.add(cniVersion="1.1.0", runtimeConfig={ANNOTATIONS: annotation})
        assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "priority": 4096}, {"dst": "::/0", "gw": "fd00:1::1"}]
        eth0, net1 = agent.journal.records[KEY].wirings
        assert eth0.facts["routes"] == [["0.0.0.0/0", "10.1.0.1", 4096], ["::/0", "fd00:1::1", 0]]
        assert net1.facts["routes"] == [["0.0.0.0/0", "10.2.0.9", 0]]


async def test_add_after_a_crash_before_the_answer_is_served(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.attachments.add(call_of("ADD", "c1", "/ns/a", "eth0", {}))  # done, but nobody was told
        await agent.restart()
        result = await agent.add()
        assert result["ips"]
        assert agent.kernel.interfaces("/ns/a") == ["eth0"]


async def test_add_where_the_recorded_namespace_is_gone_is_served(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        agent.kernel.remove_namespace("/ns/a")
        agent.kernel.add_namespace("/ns/a")
        await agent.add()
        assert agent.kernel.interfaces("/ns/a") == ["eth0"]


async def test_add_waits_for_an_undo_in_its_namespace(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        failpoints.arm("undo.before-unwire=delay(100)")
        await agent.delete()
        await agent.add("c2")
        assert [key[1] for key in agent.kernel.made] == ["eth0"]
        assert next(iter(agent.kernel.made.values())) == "kv-c2/knitter/eth0/eth0"


async def test_add_of_what_is_not_given_back_yet_says_try_again(tmp_path: Path) -> None:
    async with parts(tmp_path, patience=0.1) as agent:
        await agent.add()
        agent.manager.open.clear()
        await agent.delete()
        with pytest.raises(Unavailable) as caught:
            await agent.add()
        assert caught.value.reason == "MANAGER_UNAVAILABLE"
        agent.manager.open.set()
        await agent.settle()
        await agent.add()


async def test_a_refusal_of_the_manager_leaves_nothing(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        agent.manager.sets.refuse = Exhausted("POOL_EXHAUSTED", "network t1/a is full")
        with pytest.raises(Exhausted):
            await agent.add()
        assert not agent.journal.records
        assert agent.kernel.opened == 0


async def test_a_refusal_is_told_when_the_namespace_is_closed_again(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        agent.manager.sets.refuse = Exhausted("POOL_EXHAUSTED", "network t1/a is full")
        opened: list[str] = []

        def slow(path: str) -> Namespace:
            time.sleep(0.05)
            namespace = agent.tools.open_namespace(path)
            opened.append(path)
            return namespace

        attachments = Attachments(replace(agent.tools, open_namespace=slow))
        with pytest.raises(Exhausted):
            await attachments.add(call_of("ADD", "c1", "/ns/a", "eth0", {}))
        assert (opened, agent.kernel.opened) == (["/ns/a"], 0)
        await attachments.close()


async def test_a_namespace_that_does_not_open_gives_the_set_back(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        with pytest.raises(NotFound):
            await agent.add(netns="/ns/none")
        await agent.settle()
        assert not agent.manager.sets.held
        assert not agent.journal.records


async def test_a_namespace_that_does_not_open_does_not_wait_for_the_manager(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        agent.manager.open.clear()
        with pytest.raises(NotFound):
            await agent.add(netns="/ns/none")
        agent.manager.open.set()


async def test_a_step_that_fails_undoes_the_ones_before(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        agent.kernel.failing["net1"] = Internal("WIRING_FAILED", "the kernel refuses")
        with pytest.raises(Internal):
            await agent.add(**TWO)
        assert agent.kernel.interfaces("/ns/a") == []
        await agent.settle()
        assert not agent.manager.sets.held
        assert not agent.journal.records


async def test_a_foreign_interface_of_that_name_stays(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        agent.kernel.made[(agent.kernel.namespaces["/ns/a"], "net1")] = "kv-c1/knitter/eth0/net1"  # the very name ours would have
        agent.kernel.failing["net1"] = Exists("CNI_INTERFACE_EXISTS", "net1 exists")
        with pytest.raises(Exists):
            await agent.add(**TWO)
        await agent.settle()
        assert agent.kernel.interfaces("/ns/a") == ["net1"]


async def test_an_undo_that_fails_is_tried_again(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        agent.kernel.fail_detach = 3
        await agent.delete()
        await agent.settle()
        assert not agent.kernel.made
        assert not agent.journal.records


async def test_a_caller_that_is_gone_leaves_nothing(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        agent.kernel.slow = 0.1
        adding = asyncio.create_task(agent.add(**TWO))
        await asyncio.sleep(0.05)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        await agent.settle()
        assert not agent.kernel.made
        assert not agent.journal.records
        assert not agent.manager.sets.held
        assert agent.kernel.opened == 0


async def test_a_del_ends_an_add_under_way(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        agent.manager.open.clear()
        adding = asyncio.create_task(agent.add())
        await asyncio.sleep(0.01)
        await agent.delete()
        with pytest.raises(Unavailable):
            await adding
        agent.manager.open.set()
        await agent.settle()
        assert not agent.journal.records


STEPS = ("add.before-allocate", "add.after-allocate", "add.before-intent", "journal.before-commit", "add.after-intent", "add.wire",
         "add.wired", "add.before-done")  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["error", "panic"])
async def test_whatever_fails_in_add_leaves_nothing(tmp_path: Path, step: str, kind: str) -> None:
    async with parts(tmp_path) as agent:
        failpoints.arm(f"{step}=1*{kind}")
        with pytest.raises((KnitterError, Panic)):
            await agent.add(**TWO)
        await agent.settle()
        assert not agent.kernel.made
        assert not agent.journal.records
        assert not agent.manager.sets.held
        assert agent.kernel.opened == 0
        assert (await agent.add(**TWO))["ips"]


@pytest.mark.parametrize(
    "step", ["undo.before-unwire", "undo.unwire", "undo.after-unwire", "undo.before-release", "undo.before-drop"]
)
@pytest.mark.parametrize("kind", ["error", "panic"])
async def test_whatever_fails_in_an_undo_is_done_in_the_end(tmp_path: Path, step: str, kind: str) -> None:
    async with parts(tmp_path) as agent:
        await agent.add(**TWO)
        failpoints.arm(f"{step}=1*{kind}")
        await agent.delete()
        await agent.settle()
        assert not agent.kernel.made
        assert not agent.journal.records
        assert not agent.manager.sets.held


async def test_a_disk_that_refuses_the_del_has_it_carried_out_first(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        failpoints.arm("del.before-mark=1*error")
        await agent.delete()
        assert not agent.kernel.made


async def test_unfinished_business_is_undone_at_the_start(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add("c2", interface="eth9")
        before = dict(agent.kernel.made)
        await agent.add()
        record = agent.journal.records[KEY]
        for state in (State.ATTACHING, State.DETACHING):
            await agent.journal.put(type(record)(**{name: getattr(record, name) for name in record.__slots__} | {"state": state}))
            await agent.restart()
            await agent.settle()
            assert agent.kernel.made == before
            assert list(agent.journal.records) == [Key("knitter", "c2", "eth9")]


async def test_a_reboot_ends_everything(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add(**TWO)
        agent.kernel.made.clear()
        agent.boot = "boot-2"
        await agent.restart()
        await agent.settle()
        assert not agent.journal.records
        assert not agent.manager.sets.held


async def test_a_restart_touches_nothing_that_runs(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        result = await agent.add(**TWO)
        made = dict(agent.kernel.made)
        await agent.restart()
        assert agent.kernel.made == made
        assert agent.kernel.detached == []
        assert agent.kernel.repaired == [["eth0", "net1"]]
        await agent.check(result)


@pytest.mark.parametrize("trouble", [Internal("WIRING_FAILED", "the kernel refuses"), RuntimeError("a defect"), OSError(13, "no")])
async def test_an_agent_that_cannot_repair_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception) -> None:
    async with parts(tmp_path) as agent:
        await agent.add(**TWO)

        def refuse(*_: object) -> NoReturn:
            raise trouble

        monkeypatch.setattr(agent.kernel, "repair", refuse)
        await agent.restart()
        assert await agent.attachments.repair() == 0
        await agent.delete()
        await agent.settle()
        assert not agent.journal.records


async def test_check_lists_every_difference(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        result = await agent.add(**TWO)
        await agent.check(result)
        agent.kernel.differences = ["eth0: MTU is 9000, not 1400"]
        with pytest.raises(Refused) as caught:
            await agent.check({**result, "ips": result["ips"][1:]})
        assert caught.value.reason == "CNI_CHECK_FAILED"
        for word in ("MTU is 9000", "10.1.0.2/16"):
            assert word in caught.value.message


async def test_check_of_what_is_not_attached(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        with pytest.raises(NotFound):
            await agent.check({"cniVersion": "1.0.0"})
        result = await agent.add()
        agent.kernel.add_namespace("/ns/b")
        with pytest.raises(Refused):
            await agent.check(result, netns="/ns/b")
        with pytest.raises(Invalid):
            await agent.attachments.check(call_of("CHECK", "c1", "/ns/a", "eth0", {}))


async def test_gc_ends_what_is_not_listed_in_its_own_network(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add("c1", **TWO)
        await agent.add("c2", interface="eth2")
        await agent.add("c3", interface="eth3", name="other")
        await agent.collect(("c2", "eth2"))
        assert agent.kernel.interfaces("/ns/a") == ["eth2", "eth3"]
        await agent.collect()
        await agent.settle()
        assert agent.kernel.interfaces("/ns/a") == ["eth3"]


async def test_an_existing_primary_is_passed_through(tmp_path: Path) -> None:
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/ns/a", "x": 1}],
        "ips": [],
        "dns": {"domain": "d"},
    }
    async with parts(tmp_path) as agent:
        assert await agent.add(prevResult=previous, **TWO) == previous
        assert agent.kernel.interfaces("/ns/a") == ["net1"]
        await agent.delete(prevResult=previous)
        await agent.settle()
        assert not agent.journal.records
        assert await agent.add("c2", prevResult=previous) == previous
        assert agent.journal.records[Key("knitter", "c2", "eth0")].port_set == b""


async def test_another_plugins_interface_cannot_be_claimed(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        with pytest.raises(Invalid):
            await agent.add(prevResult={"cniVersion": "1.0.0"}, networks="t1/control@eth0")
        assert not agent.journal.records


async def test_the_tenant_and_the_default_network(tmp_path: Path) -> None:
    async with parts(tmp_path, default_network="admin/node") as agent:
        await agent.add(tenant="t1")
        await agent.add("c2", interface="eth2", defaultNetwork="admin/conf")
        first, second = agent.manager.sets.allocated
        assert (first.tenant, first.wishes[0].network) == ("t1", "admin/node")
        assert (second.tenant, second.wishes[0].network) == ("", "admin/conf")


async def test_what_the_runtime_asks_is_for_the_primary_and_must_not_contradict(tmp_path: Path) -> None:
    limits = {"IngressRate": 8000, "IngressBurst": 80, "EgressRate": 0, "EgressBurst": 0}  # as containerd writes it
    asked = {"ips": ["10.1.0.9"], "mac": "02:00:00:00:00:09", "bandwidth": limits}
    async with parts(tmp_path) as agent:
        await agent.add(runtimeConfig=asked, **TWO)
        primary, other = agent.manager.sets.allocated[0].wishes
        assert (primary.addresses, primary.mac, primary.bandwidth) == (("10.1.0.9",), "02:00:00:00:00:09", Bandwidth(8000, 80))
        assert (other.addresses, other.mac, other.bandwidth) == ((), "", None)
        attributes = {"nic_name": "eth0", "ip_addr": "10.1.0.8"}
        annotations = {"networks": json.dumps({"ports": [{"attach_to_network": "a", "attributes": attributes}]})}
        with pytest.raises(Invalid) as caught:
            await agent.add("c2", runtimeConfig={ANNOTATIONS: annotations, "ips": ["10.1.0.9"]})
        assert "runtimeConfig.ips 10.1.0.9 contradicts 10.1.0.8" in caught.value.message


async def test_annotations_go_before_the_configuration(tmp_path: Path) -> None:
    annotations = {"networks": '{"ports":[{"attach_to_network":"a","attributes":{"nic_name":"eth0"}}]}'}
    async with parts(tmp_path) as agent:
        await agent.add(runtimeConfig={"io.kubernetes.cri.pod-annotations": annotations, "mac": "02:00:00:00:00:AA"}, **TWO)
        (allocation,) = agent.manager.sets.allocated
        assert [(wish.network, wish.interface, wish.primary) for wish in allocation.wishes] == [("a", "eth0", True)]
        assert allocation.wishes[0].mac == "02:00:00:00:00:aa"


async def test_a_del_that_the_disk_refused_is_not_answered_before_a_crash_keeps_it(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        agent.manager.open.clear()  # so the row stays for now
        failpoints.arm("del.before-mark=1*error")
        await agent.delete()
        assert agent.journal.records[KEY].state is State.DETACHING
        await agent.restart()
        assert agent.journal.records[KEY].state is State.DETACHING
        agent.manager.open.set()
        await agent.settle()
        assert not agent.journal.records
        assert not agent.manager.sets.held


async def test_a_late_mark_brings_no_row_back(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.journal.end([KEY])
        assert not agent.journal.records
        await agent.restart()
        assert not agent.journal.records


async def test_an_add_right_after_a_del_whose_caller_is_gone_waits_for_it(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        deleting = asyncio.create_task(agent.delete())
        await asyncio.sleep(0)
        deleting.cancel()
        async with asyncio.timeout(10):
            while True:  # at whatever moment of the DEL it comes
                try:
                    result = await agent.add()
                    break
                except Exists:
                    await asyncio.sleep(0)
        await agent.settle()
        assert result["ips"]
        assert agent.kernel.interfaces("/ns/a") == ["eth0"]
        assert agent.journal.records[KEY].state is State.ATTACHED
        assert len(agent.manager.sets.held) == 1
