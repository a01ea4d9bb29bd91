"""knitter_agent.journal: what is on the disk after which accident."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from knitter_agent.drivers import Wiring
from knitter_agent.journal import Journal, open_journal
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
