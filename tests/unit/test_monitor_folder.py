"""A folder as a source: applied when it changes, what vanished, what fails, a manager that is away. The manager is a stand-in."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness.monitor import eventually

from knitter_common.errors import KnitterError, Refused, Unavailable
from knitter_common.model import Network
from knitter_common.settings import Seconds
from knitter_monitor.config import FilesSettings
from knitter_monitor.sources.document import parse
from knitter_monitor.sources.files import FolderSource
from knitter_monitor.sources.kinds import Key, key_of
from knitter_monitor.sources.reading import FolderReader

RETRY = 60.0  # seconds: nothing but an event is waited for


class Manager:
    """Stands in for the applier: holds objects, refuses what it is told to, and counts."""

    source = "files:test"

    def __init__(self) -> None:
        self.objects: dict[Key, Any] = {}
        self.calls: list[str] = []
        self.refuse: dict[str, KnitterError] = {}
        self.away = False
        self.revision = 0

    async def held(self) -> dict[Key, Any]:
        self._call("held")
        return dict(self.objects)

    async def apply(self, wanted: Any) -> Any:
        self._call(f"apply {wanted.name}")
        self.revision += 1
        stored = replace(wanted, source=self.source, revision=self.revision)
        self.objects[key_of(wanted)] = stored
        return stored

    async def delete(self, obj: Any) -> bool:
        self._call(f"delete {obj.name}")
        self.objects.pop(key_of(obj), None)
        return True

    def _call(self, what: str) -> None:
        if self.away:
            raise Unavailable("MANAGER_UNAVAILABLE", "nobody answers")
        self.calls.append(what)
        if what in self.refuse:
            raise self.refuse[what]

    def names(self) -> list[str]:
        return sorted(key.name for key in self.objects)


def declare(*names: str, mtu: int = 1500) -> str:
    """Networks as YAML."""
    document = "apiVersion: knitter.io/v1\nkind: Network\nmetadata: {{name: {}, namespace: t1}}\nspec: {{type: bridge, mtu: {}}}\n"
    return "---\n".join(document.format(name, mtu) for name in names)


@pytest.fixture
def manager() -> Manager:
    return Manager()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "conf"
    made.mkdir()
    return made


Start = Callable[[], Awaitable[FolderSource]]


@pytest.fixture
async def start(manager: Manager, folder: Path) -> AsyncIterator[Start]:
    tasks = []

    async def begin() -> FolderSource:
        settings = FilesSettings(
            settle=Seconds(0.02), settle_most=Seconds(0.2), vanish_grace=Seconds(0.15), retry_most=Seconds(RETRY)
        )
        source = FolderSource(FolderReader(folder, parse), manager, settings)  # type: ignore[arg-type]
        tasks.append(asyncio.create_task(source.run()))
        await eventually(lambda: source.report.read_time)
        return source

    yield begin
    for task in tasks:
        assert not task.done(), task.exception()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_is_there_is_applied_and_what_comes_and_changes_too(manager: Manager, folder: Path, start: Start) -> None:
    (folder / "a.yaml").write_text(declare("a", "b"))
    source = await start()
    assert manager.names() == ["a", "b"]
    (folder / "c.yaml").write_text(declare("c"))
    await eventually(lambda: manager.names() == ["a", "b", "c"])
    calls = len(manager.calls)
    (folder / "a.yaml").write_text(declare("a") + "---\n" + declare("b", mtu=1400))
    await eventually(lambda: manager.objects[key_of(Network("t1", "b"))].mtu == 1400)
    assert manager.calls[calls:] == ["apply b"], "what did not change is not sent again"
    await eventually(lambda: source.report.applied == source.report.declared == 3)


async def test_a_file_that_is_replaced_is_read_again(manager: Manager, folder: Path, start: Start, tmp_path: Path) -> None:
    (folder / "a.yaml").write_text(declare("a"))
    await start()
    fresh = tmp_path / "fresh"
    fresh.write_text(declare("a", mtu=1300))
    fresh.replace(folder / "a.yaml")
    await eventually(lambda: manager.objects[key_of(Network("t1", "a"))].mtu == 1300)


async def test_links_swapped_as_a_configmap_does_are_followed(manager: Manager, folder: Path, start: Start) -> None:
    def version(number: int) -> None:
        (folder / f"..v{number}").mkdir()
        (folder / f"..v{number}" / "a.yaml").write_text(declare("a", mtu=1000 + number))
        (folder / "..tmp").symlink_to(f"..v{number}")
        (folder / "..tmp").rename(folder / "..data")

    version(1)
    (folder / "a.yaml").symlink_to("..data/a.yaml")
    await start()
    for number in (2, 3):
        version(number)
        await eventually(lambda number=number: manager.objects[key_of(Network("t1", "a"))].mtu == 1000 + number)


async def test_a_linked_file_that_changes_elsewhere_is_read_again(
    manager: Manager, folder: Path, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "real.yaml").write_text(declare("a"))
    (folder / "a.yaml").symlink_to("../elsewhere/real.yaml")
    await start()
    (tmp_path / "elsewhere" / "real.yaml").write_text(declare("a", mtu=1234))
    await eventually(lambda: manager.objects[key_of(Network("t1", "a"))].mtu == 1234)


async def test_a_folder_that_appears_is_read(manager: Manager, folder: Path, start: Start, tmp_path: Path) -> None:
    folder.rmdir()
    source = await start()
    assert not source.report.readable
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "a.yaml").write_text(declare("a"))
    (tmp_path / "fresh").rename(folder)
    await eventually(lambda: manager.names() == ["a"])
    await eventually(lambda: source.report.readable and not source.report.problems)


async def test_a_folder_that_is_replaced_whole_is_read_again(manager: Manager, folder: Path, start: Start, tmp_path: Path) -> None:
    (folder / "a.yaml").write_text(declare("a"))
    await start()
    for mtu in (1100, 1200):
        (tmp_path / "fresh").mkdir()
        (tmp_path / "fresh" / "a.yaml").write_text(declare("a", mtu=mtu))
        folder.rename(tmp_path / f"old{mtu}")
        (tmp_path / "fresh").rename(folder)
        await eventually(lambda mtu=mtu: manager.objects[key_of(Network("t1", "a"))].mtu == mtu)


async def test_what_vanished_is_deleted_after_the_grace(manager: Manager, folder: Path, start: Start) -> None:
    (folder / "a.yaml").write_text(declare("a"))
    (folder / "b.yaml").write_text(declare("b"))
    await start()
    (folder / "b.yaml").unlink()
    await eventually(lambda: manager.names() == ["a"])
    assert manager.calls.count("delete b") == 1


async def test_what_comes_back_within_the_grace_is_not_deleted(manager: Manager, folder: Path, start: Start) -> None:
    (folder / "a.yaml").write_text(declare("a"))
    (folder / "b.yaml").write_text(declare("b"))
    source = await start()
    (folder / "b.yaml").unlink()
    await eventually(lambda: source.report.declared == 1)
    (folder / "b.yaml").write_text(declare("b"))
    await eventually(lambda: source.report.declared == 2)
    await asyncio.sleep(0.3)  # longer than the grace: nothing may happen
    assert not [call for call in manager.calls if call.startswith("delete")]


@pytest.mark.parametrize("spoil", ["emptied", "bad file", "gone", "unreadable"])
async def test_a_folder_that_cannot_be_trusted_deletes_nothing(manager: Manager, folder: Path, start: Start, spoil: str) -> None:
    (folder / "a.yaml").write_text(declare("a"))
    (folder / "b.yaml").write_text(declare("b"))
    source = await start()
    match spoil:
        case "emptied":
            (folder / "a.yaml").unlink()
            (folder / "b.yaml").unlink()
        case "bad file":
            (folder / "a.yaml").write_text("{ this is no YAML")
        case "gone":
            folder.rename(folder.with_name("moved"))
        case "unreadable":
            (folder / "a.yaml").unlink()
            (folder / "a.yaml").symlink_to("nowhere")
    await eventually(lambda: any("missing and are not deleted" in problem.message for problem in source.report.problems))
    await asyncio.sleep(0.3)  # longer than the grace: nothing may happen
    assert manager.names() == ["a", "b"]


async def test_what_vanished_while_away_obeys_the_same_rule(manager: Manager, folder: Path, start: Start) -> None:
    for name in ("a", "old"):
        await manager.apply(Network("t1", name))
    source = await start()
    await asyncio.sleep(0.3)  # longer than the grace: nothing may happen
    assert manager.names() == ["a", "old"], "the folder is empty"
    assert source.report.problems
    (folder / "a.yaml").write_text(declare("a"))
    await eventually(lambda: manager.names() == ["a"])


async def test_what_others_declared_meanwhile_for_this_source_is_left_alone(manager: Manager, folder: Path, start: Start) -> None:
    (folder / "a.yaml").write_text(declare("a"))
    source = await start()
    await manager.apply(Network("t1", "newer"))
    source.nudge(anew=True)
    await eventually(lambda: any("never seen it declared" in problem.message for problem in source.report.problems))
    await asyncio.sleep(0.3)  # longer than the grace: nothing may happen
    assert manager.names() == ["a", "newer"]


async def test_what_is_in_use_stays_is_told_and_goes_when_it_can(manager: Manager, folder: Path, start: Start) -> None:
    (folder / "a.yaml").write_text(declare("a"))
    (folder / "b.yaml").write_text(declare("b"))
    source = await start()
    manager.refuse["delete b"] = Refused("OBJECT_IN_USE", "pod t1/p uses it")
    (folder / "b.yaml").unlink()
    await eventually(lambda: [problem.message for problem in source.report.problems] == ["pod t1/p uses it"])
    (problem,) = source.report.problems
    assert (problem.place, problem.object) == ("b.yaml", "Network t1/b")
    manager.refuse.clear()
    source.nudge(anew=False)
    await eventually(lambda: manager.names() == ["a"] and not source.report.problems)


async def test_one_that_is_refused_does_not_stop_the_others(manager: Manager, folder: Path, start: Start) -> None:
    (folder / "a.yaml").write_text(declare("a", "b", "c"))
    manager.refuse["apply b"] = Refused("SOURCE_FOREIGN", "declared elsewhere")
    source = await start()
    assert manager.names() == ["a", "c"]
    assert (source.report.declared, source.report.applied) == (3, 2)
    manager.refuse.clear()
    await eventually(lambda: manager.names() == ["a", "b", "c"])  # tried again by itself
    await eventually(lambda: not source.report.problems)


async def test_what_is_declared_twice_stays_as_it_is(manager: Manager, folder: Path, start: Start) -> None:
    (folder / "a.yaml").write_text(declare("a", "z"))
    source = await start()
    (folder / "b.yaml").write_text(declare("a", mtu=1111))
    await eventually(lambda: source.report.problems)
    await asyncio.sleep(0.3)  # longer than the grace: nothing may happen
    assert manager.objects[key_of(Network("t1", "a"))].mtu == 1500
    (folder / "a.yaml").write_text(declare("z"))
    await eventually(lambda: manager.objects[key_of(Network("t1", "a"))].mtu == 1111)


async def test_a_manager_that_is_away_is_told_and_everything_follows_when_it_is_back(
    manager: Manager, folder: Path, start: Start
) -> None:
    (folder / "a.yaml").write_text(declare("a"))
    manager.away = True
    source = await start()
    assert [problem.reason for problem in source.report.problems] == ["MANAGER_UNAVAILABLE"]
    (folder / "b.yaml").write_text(declare("b"))
    manager.away = False
    source.nudge(anew=True)
    await eventually(lambda: manager.names() == ["a", "b"] and not source.report.problems)


async def test_what_others_deleted_is_made_again(manager: Manager, folder: Path, start: Start) -> None:
    (folder / "a.yaml").write_text(declare("a"))
    source = await start()
    manager.objects.clear()
    source.nudge(anew=True)
    await eventually(lambda: manager.names() == ["a"])


async def test_without_inotify_the_folder_is_read_again_after_a_time(
    manager: Manager, folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("knitter_monitor.sources.watching.Inotify", refuse)
    monkeypatch.setattr("test_monitor_folder.RETRY", 0.1)
    await start()
    (folder / "a.yaml").write_text(declare("a"))
    await eventually(lambda: manager.names() == ["a"])


async def test_files_copied_together_are_read_together(manager: Manager, folder: Path, start: Start) -> None:
    source = await start()
    readings: list[int] = []
    original = source.bring

    async def bring(reading: Any) -> None:
        readings.append(len(reading.declared))
        await original(reading)

    source.bring = bring  # type: ignore[method-assign]
    for index in range(20):
        (folder / f"{index:02}.yaml").write_text(declare(f"n{index}"))
    await eventually(lambda: len(manager.objects) == 20)
    assert len(readings) <= 3
