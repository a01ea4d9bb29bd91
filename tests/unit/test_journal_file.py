"""knitter_agent.journal: what is on the disk after which accident."""

import asyncio
import contextlib
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from knitter_agent.drivers import Wiring
from knitter_agent.journal import _COLUMNS, Journal, _of_row, open_journal
from knitter_agent.record import Delegation, Key, Record, State
from knitter_common import failpoints, groupcommit
from knitter_common.errors import Internal, Unavailable
from knitter_common.model import NetworkType


def _record(number: int = 1, state: State = State.ATTACHED) -> Record:
    return Record(
        Key("knitter", f"c{number}", "eth0"), state, "/run/netns/a", 2**63 + number, number, b"\x0a\x01\xff",
        (Wiring(NetworkType.BRIDGE, "eth0", {"host": "kv1", "mtu": 1400, "routes": [["10.0.0.0/8", None]]}),),
        (Delegation({"type": "bridge", "name": "lan"}, "eth0"),), {"ips": [{"address": "10.0.0.2/24"}]}, "A=1", "/opt", 2,
    )  # fmt: skip


async def _reopened(journal: Journal, path: Path) -> Journal:
    await journal.close()
    return open_journal(path)


async def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = open_journal(path)
    await journal.put(_record(1), _record(2, State.DETACHING), meta={"boot_id": "b1"})
    await journal.put(_record(3))
    await journal.drop([_record(3).key, Key("no", "such", "row")])
    journal = await _reopened(journal, path)
    assert dict(journal.records) == {record.key: record for record in (_record(1), _record(2, State.DETACHING))}
    assert (journal.boot_id, journal.meta("none")) == ("b1", "")
    await journal.close()


async def test_concurrent_changes_share_commits(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal.db")
    await asyncio.gather(*(journal.put(_record(number)) for number in range(100)))
    assert len(journal.records) == 100
    await journal.close()


async def test_what_is_deferred_goes_with_the_next_commit(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = open_journal(path)
    await journal.put(_record(1), _record(2))
    journal.note_answered(_record(1).key)
    journal.note_answered(Key("no", "such", "row"))
    journal = await _reopened(journal, path)
    assert [record.answered for record in journal.records.values()] == [True, False]
    await journal.close()


async def test_what_is_deferred_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groupcommit, "PATIENCE", 0.05)
    journal = open_journal(tmp_path / "journal.db")
    await journal.put(_record(1))
    commits = journal._database.total_changes
    journal.note_answered(_record(1).key)
    async with asyncio.timeout(5):
        while journal._database.total_changes == commits:  # noqa: ASYNC110 - the group's thread
            await asyncio.sleep(0.01)
    await journal.close()


async def test_what_a_thread_writes_by_itself_is_in_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = open_journal(path)
    intent = replace(_record(1, State.ATTACHING), result=None)
    journal.expect(intent)
    assert dict(journal.records) == {intent.key: intent}
    await asyncio.to_thread(journal.write, intent)
    assert _copied(path, tmp_path / "1") == {intent.key: intent}
    done = _record(1)
    await asyncio.to_thread(journal.write, done)
    assert journal.may_be(done.key, State.ATTACHED)  # also where nobody says what became of that thread
    journal.wrote(done)
    assert dict(journal.records) == _copied(path, tmp_path / "2") == {done.key: done}
    await journal.close()


async def test_changes_are_synced_after_what_a_thread_wrote(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal.db")

    def level() -> int:
        return int(journal._database.execute("PRAGMA synchronous").fetchone()[0])

    normal, full = 1, 2
    for change in (lambda: journal.put(_record(2)), lambda: journal.end([_record(2).key]), journal.sync):
        await asyncio.to_thread(journal.write, _record(1, State.ATTACHING))
        assert level() == normal
        await change()
        assert level() == full
    await journal.close()


async def test_threads_and_changes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = open_journal(path)

    def write(numbers: range) -> None:
        for number in numbers:
            journal.write(_record(number, State.ATTACHING))
            journal.write(_record(number))

    writing = asyncio.gather(*(asyncio.to_thread(write, range(first, first + 50)) for first in (0, 50)))
    await asyncio.gather(*(journal.put(_record(number), _record(number + 100)) for number in range(100, 200)))
    await writing
    journal = await _reopened(journal, path)
    assert dict(journal.records) == {record.key: record for record in map(_record, range(300))}
    await journal.close()


async def test_a_thread_hears_of_a_full_disk(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal.db")
    journal._database.execute("PRAGMA max_page_count = 12")

    def fill() -> None:
        for number in range(200):
            journal.write(_record(number, State.ATTACHING))

    with pytest.raises(Internal, match="full"):
        await asyncio.to_thread(fill)
    await journal.close()


async def test_a_late_word_of_an_answer_is_not_for_the_next_attachment(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = open_journal(path)
    await journal.put(_record(1))
    journal.note_answered(_record(1).key)
    newer = replace(_record(1, State.ATTACHING), time=99)
    await asyncio.to_thread(journal.write, newer)
    journal = await _reopened(journal, path)
    assert not journal.records[newer.key].answered
    await journal.close()


def _copied(path: Path, to: Path) -> dict[Key, Record]:
    """What an agent would find that starts when this one was killed."""
    to.mkdir()
    for part in path.parent.glob(f"{path.name}*"):
        shutil.copy(part, to / part.name)
    database = sqlite3.connect(to / path.name)
    with contextlib.closing(database):
        found = database.execute(f"SELECT {_COLUMNS} FROM attachment").fetchall()
    return {record.key: record for record in map(_of_row, found)}


async def test_a_cancelled_waiter_changes_nothing(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal.db")
    waiting = journal.put(_record(1))
    await asyncio.sleep(0)
    waiting.cancel()
    await journal.put(_record(2))
    assert set(journal.records) == {_record(1).key, _record(2).key}
    await journal.close()


async def test_a_refusing_disk_is_told_and_nothing_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = open_journal(path)
    await journal.put(_record(1))
    failpoints.arm("journal.before-commit=1*error")
    with pytest.raises(Internal):
        await journal.put(_record(2))
    failpoints.arm("")
    assert list(journal.records) == [_record(1).key]
    journal = await _reopened(journal, path)
    assert list(journal.records) == [_record(1).key]
    await journal.close()


async def test_a_full_disk_is_told_and_the_journal_goes_on(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal.db")
    journal._database.execute("PRAGMA max_page_count = 12")
    outcomes = await asyncio.gather(*(journal.put(_record(number)) for number in range(200)), return_exceptions=True)
    assert {error.reason for error in outcomes if isinstance(error, Internal)} == {"CNI_IO_FAILURE"}
    kept = list(journal.records)
    assert len(kept) == outcomes.count(None) > 0
    await journal.drop(kept)
    await journal.put(_record(1))
    await journal.close()


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
async def test_an_empty_or_broken_file_is_taken_as_absent(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    journal = open_journal(path)
    assert not journal.records
    await journal.put(_record(1))
    journal = await _reopened(journal, path)
    assert list(journal.records) == [_record(1).key]
    await journal.close()
    assert len(list(tmp_path.glob("*.broken-1"))) == (1 if content else 0)


async def test_a_damaged_row_or_page_moves_the_file_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = open_journal(path)
    await journal.put(_record(1))
    await journal.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE attachment SET wirings = '{'")
    database.close()
    journal = open_journal(path)
    assert not journal.records
    assert journal.found_broken
    await journal.close()
    assert (tmp_path / "journal.db.broken-1").exists()


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await open_journal(path).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    database.close()
    with pytest.raises(Unavailable):
        open_journal(path)
    assert path.exists()


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = open_journal(path)
    await journal.put(_record(1))
    with pytest.raises(Unavailable):
        open_journal(path)
    await journal.close()
