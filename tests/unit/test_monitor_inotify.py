"""knitter_common.inotify: events reach the loop."""

import asyncio
from pathlib import Path

import pytest

from knitter_common.inotify import CLOSE_WRITE, DELETE, IGNORED, MOVED_TO, Event, Inotify


async def _until(inotify: Inotify, name: str, mask: int) -> Event:
    async with asyncio.timeout(5):
        while True:
            for event in await inotify.read():
                if event.name == name and event.mask & mask:
                    return event


async def test_a_write_a_rename_and_a_removal_are_told(tmp_path: Path) -> None:
    async with Inotify() as inotify:
        inotify.watch(tmp_path)
        (tmp_path / "a").write_text("x")
        assert (await _until(inotify, "a", CLOSE_WRITE)).directory == tmp_path
        (tmp_path / "a").replace(tmp_path / "b")
        await _until(inotify, "b", MOVED_TO)
        (tmp_path / "b").unlink()
        await _until(inotify, "b", DELETE)


async def test_it_waits_for_an_event_and_can_be_cancelled(tmp_path: Path) -> None:
    async with Inotify() as inotify:
        inotify.watch(tmp_path)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(inotify.read(), 0.05)
        waiting = asyncio.create_task(_until(inotify, "late", CLOSE_WRITE))
        await asyncio.sleep(0)
        (tmp_path / "late").write_text("x")
        await waiting


async def test_a_directory_that_goes_ends_its_watch(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    async with Inotify() as inotify:
        inotify.watch(inside)
        inside.rmdir()
        await _until(inotify, "", IGNORED)
        assert not inotify.watched
        inotify.unwatch(inside)


async def test_unwatched_directories_are_silent(tmp_path: Path) -> None:
    async with Inotify() as inotify:
        inotify.watch(tmp_path)
        inotify.unwatch(tmp_path)
        (tmp_path / "a").write_text("x")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(inotify.read(), 0.05)


async def test_what_cannot_be_watched_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with Inotify() as inotify:
        with pytest.raises(FileNotFoundError):
            inotify.watch(tmp_path / "missing")
        with pytest.raises(NotADirectoryError):
            inotify.watch(tmp_path / "file")


async def test_closing_frees_the_descriptor() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        async with Inotify():
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before
