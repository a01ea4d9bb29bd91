"""knitter_agent.delqueue and liveness: what is ended late, and what must not be."""

import asyncio
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from harness.agent import CONF, Parts, environment_of, parts
from harness.scarce import run_without_inotify

from knitter.v1.agent_pb2 import Invocation, QueuedDetach
from knitter_agent import delqueue
from knitter_agent.cni import Call
from knitter_agent.delqueue import BrokenEntry, DelQueue, read_entry
from knitter_agent.liveness import Liveness
from knitter_agent.record import Key
from knitter_common.errors import Internal, Unavailable

LATER = 2_000_000_000_000_000_000


def _entry(container: str = "c1", time: int = LATER, boot: str = "boot-1", stdin: bytes = json.dumps(CONF).encode()) -> bytes:
    invocation = Invocation(environment=environment_of("DEL", container, "/ns/a", "eth0"), stdin=stdin, request_id="r")
    body = QueuedDetach(invocation=invocation, time_ns=time, boot_id=boot).SerializeToString()
    return b"KDQ1" + zlib.crc32(body).to_bytes(4, "big") + body


def _put(directory: Path, data: bytes, name: str = "5-r.del") -> Path:
    directory.mkdir(exist_ok=True)
    (directory / ".tmp-r").write_bytes(data)
    return (directory / ".tmp-r").replace(directory / name)


async def _started(agent: Parts, directory: Path) -> DelQueue:
    queue = DelQueue(directory, agent.attachments, agent.boot)
    await queue.start()
    return queue


async def test_a_kept_del_is_carried_out_and_goes(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        entry = _put(tmp_path / "delq", _entry())
        (await _started(agent, tmp_path / "delq")).close()
        await agent.settle()
        assert not agent.journal.records
        assert not entry.exists()


async def test_the_queue_is_followed_while_the_agent_runs(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        queue = await _started(agent, tmp_path / "delq")
        following = asyncio.create_task(queue.follow())
        _put(tmp_path / "delq", _entry())
        async with asyncio.timeout(5):
            while agent.journal.records:  # noqa: ASYNC110 - another task's doing
                await asyncio.sleep(0.01)
        following.cancel()
        queue.close()


async def test_a_newer_attachment_of_that_name_stays(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        entry = _put(tmp_path / "delq", _entry(time=5))
        (await _started(agent, tmp_path / "delq")).close()
        assert Key("knitter", "c1", "eth0") in agent.journal.records
        assert agent.kernel.interfaces("/ns/a") == ["eth0"]
        assert not entry.exists()


async def test_a_del_of_another_boot_does_nothing(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        _put(tmp_path / "delq", _entry(boot="boot-0"))
        (await _started(agent, tmp_path / "delq")).close()
        assert agent.kernel.interfaces("/ns/a") == ["eth0"]


async def test_broken_entries_are_set_aside_and_the_others_served(tmp_path: Path) -> None:
    good = _entry()
    broken = [b"", b"KDQ1", good[:-1], b"XXXX" + good[4:], good[:20] + b"\0" + good[21:]]
    async with parts(tmp_path) as agent:
        await agent.add()
        for number, data in enumerate(broken):
            _put(tmp_path / "delq", data, f"{number}-r.del")
        _put(tmp_path / "delq", good, "9-r.del")
        (await _started(agent, tmp_path / "delq")).close()
        assert len(list((tmp_path / "delq").glob("*.bad"))) == len(broken)
        await agent.settle()
        assert not agent.journal.records


async def test_an_entry_that_nobody_expected_stops_neither_the_others_nor_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path) as agent:
        await agent.add()
        first, second = _put(tmp_path / "delq", _entry("c0"), "1-r.del"), _put(tmp_path / "delq", _entry(), "2-r.del")
        served = agent.attachments.delete_late

        async def defective(call: Call, asked: int) -> None:
            if call.container_id == "c0":
                raise RuntimeError("a defect")
            await served(call, asked)

        monkeypatch.setattr(agent.attachments, "delete_late", defective)
        (await _started(agent, tmp_path / "delq")).close()
        await agent.settle()
        assert not agent.journal.records
        assert (first.exists(), second.exists()) == (True, False)


async def test_of_broken_entries_the_newest_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delqueue, "MOST_ASIDE", 3)
    async with parts(tmp_path) as agent:
        for number in range(8, 13):
            _put(tmp_path / "delq", b"x", f"{number}-r.del")
        (await _started(agent, tmp_path / "delq")).close()
        assert sorted(path.name for path in (tmp_path / "delq").iterdir()) == ["10-r.bad", "11-r.bad", "12-r.bad"]


async def test_a_call_that_can_never_be_served_goes(tmp_path: Path) -> None:
    async with parts(tmp_path) as agent:
        entry = _put(tmp_path / "delq", _entry(stdin=b"{"))
        (await _started(agent, tmp_path / "delq")).close()
        assert not entry.exists()


def test_no_protobuf_behind_a_right_checksum(tmp_path: Path) -> None:
    path = tmp_path / "x.del"
    path.write_bytes(b"KDQ1" + zlib.crc32(b"\xff\xff").to_bytes(4, "big") + b"\xff\xff")
    with pytest.raises(BrokenEntry):
        read_entry(path)


async def test_a_dead_sandbox_is_ended_at_the_second_look_after_the_grace(tmp_path: Path) -> None:
    now = [0.0]
    async with parts(tmp_path) as agent:
        await agent.add()
        agent.kernel.add_namespace("/ns/b")
        await agent.add("c2", "/ns/b")
        liveness = Liveness(agent.tools, agent.attachments, 60, 120, lambda: now[0])
        assert await liveness.look() == 0
        agent.kernel.remove_namespace("/ns/a")
        agent.kernel.add_namespace("/ns/a")  # the path is used again, by another
        assert await liveness.look() == 0
        now[0] = 119
        assert await liveness.look() == 0
        now[0] = 120
        assert await liveness.look() == 1
        await agent.settle()
        assert list(agent.journal.records) == [Key("knitter", "c2", "eth0")]


async def test_a_sandbox_that_was_replaced_between_two_looks_lives(tmp_path: Path) -> None:
    now = [0.0]
    async with parts(tmp_path) as agent:
        await agent.add()
        liveness = Liveness(agent.tools, agent.attachments, 60, 120, lambda: now[0])
        agent.kernel.remove_namespace("/ns/a")
        await liveness.look()
        await agent.delete()
        agent.kernel.add_namespace("/ns/a")
        await agent.add()
        agent.kernel.remove_namespace("/ns/a")
        now[0] = 500
        assert await liveness.look() == 0  # the first look at this one
        now[0] = 1000
        assert await liveness.look() == 1


@pytest.mark.parametrize("trouble", [Unavailable("AGENT_BUSY", "x"), Internal("WIRING_FAILED", "x"), OSError(24, "x")])
async def test_what_cannot_be_found_out_ends_nobody(tmp_path: Path, trouble: Exception) -> None:
    now = [0.0]
    async with parts(tmp_path) as agent:
        await agent.add()

        def refuse(path: str) -> NoReturn:
            raise trouble

        liveness = Liveness(replace(agent.tools, open_namespace=refuse), agent.attachments, 60, 120, lambda: now[0])
        for now[0] in (0.0, 200.0, 400.0):
            assert await liveness.look() == 0
        assert list(agent.journal.records) == [Key("knitter", "c1", "eth0")]


_AN_UNWATCHED_QUEUE = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from harness.agent import parts
from knitter_agent import delqueue
from test_agent_delqueue import _entry, _put, _started

async def main():
    delqueue.UNWATCHED = 0.01
    folder = Path(sys.argv[1])
    async with parts(folder) as agent:
        await agent.add()
        queue = await _started(agent, folder / "delq")
        following = asyncio.create_task(queue.follow())
        entry = _put(folder / "delq", _entry())
        async with asyncio.timeout(10):
            while agent.journal.records or entry.exists():
                await asyncio.sleep(0.01)
        following.cancel()

asyncio.run(main())
"""


def test_a_queue_that_cannot_be_watched_is_read_all_the_same(tmp_path: Path) -> None:
    said = run_without_inotify(_AN_UNWATCHED_QUEUE, str(tmp_path), str(Path(__file__).parent))
    assert "cannot be watched" in said
