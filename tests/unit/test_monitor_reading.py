"""What a folder declares: which files count, what is wrong with which, and which entries have to be watched."""

import os
from pathlib import Path

import pytest

from knitter_common.model import Network
from knitter_monitor.sources.kinds import key_of
from knitter_monitor.sources.reading import MOST_BYTES, Declared, FolderReader, Parsed, Reading
from knitter_monitor.sources.report import Problem


def _parse(text: str, name: str) -> Parsed:
    """One network name per line; "!" is a mistake."""
    lines = text.split()
    objects = tuple(Declared(Network(tenant="t1", name=line), f"{name}, line {number}") for number, line in enumerate(lines, 1))
    bad = tuple(Problem(entry.place, "", "FIELD_INVALID", "a mistake") for entry in objects if entry.obj.name == "!")
    return Parsed(tuple(entry for entry in objects if entry.obj.name != "!"), bad)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "conf"
    made.mkdir()
    return made


def _read(folder: Path) -> Reading:
    return FolderReader(folder, _parse).read()


def _names(reading: Reading) -> list[str]:
    return sorted(key.name for key in reading.declared)


def test_yaml_yml_and_json_count_and_hidden_temporary_and_other_files_do_not(folder: Path) -> None:
    for name in ("a.yaml", "b.yml", "c.json", ".d.yaml", "e.yaml~", "f.yaml.swp", "#g.yaml#", "README", ".h.yaml.tmp"):
        (folder / name).write_text(name[:1] if name[0].isalpha() else name[1])
    (folder / "below").mkdir()
    (folder / "below" / "i.yaml").write_text("i")
    reading = _read(folder)
    assert _names(reading) == ["a", "b", "c"]
    assert reading.whole
    assert not reading.problems


@pytest.mark.parametrize("spoil", ["missing", "file", "loop"])
def test_a_folder_that_is_none_is_a_problem_and_not_whole(folder: Path, spoil: str) -> None:
    folder.rmdir()
    if spoil == "file":
        folder.write_text("")
    if spoil == "loop":
        folder.symlink_to(folder)
    reading = _read(folder)
    assert not reading.whole
    assert not reading.readable
    (problem,) = reading.problems
    assert (problem.place, problem.reason) == (str(folder), "SOURCE_INCOMPLETE")
    assert folder.name in reading.watch[folder.parent]


def test_an_empty_folder_is_readable_and_not_whole(folder: Path) -> None:
    (folder / "a.yaml").write_text("")
    reading = _read(folder)
    assert reading.readable
    assert not reading.whole


def test_one_bad_file_does_not_stop_the_others_and_makes_nothing_vanish(folder: Path) -> None:
    (folder / "a.yaml").write_text("a")
    (folder / "b.yaml").write_bytes(b"\xff\xfe")
    (folder / "c.yaml").write_text("c ! d")
    (folder / "d.yaml").symlink_to("nowhere")
    (folder / "e.yaml").write_bytes(b" " * (MOST_BYTES + 1))
    os.mkfifo(folder / "f.yaml")
    (folder / "g.yaml").mkdir()
    reading = _read(folder)
    assert _names(reading) == ["a", "c", "d"]
    assert not reading.whole
    assert sorted(problem.place for problem in reading.problems) == [
        "b.yaml",
        "c.yaml, line 2",
        "d.yaml",
        "e.yaml",
        "f.yaml",
        "g.yaml",
    ]


def test_what_is_declared_twice_counts_as_neither_and_both_places_are_named(folder: Path) -> None:
    (folder / "a.yaml").write_text("x y")
    (folder / "b.yaml").write_text("x z")
    reading = _read(folder)
    assert _names(reading) == ["y", "z"]
    assert reading.whole
    assert reading.names(key_of(Network(tenant="t1", name="x")))
    (problem,) = reading.problems
    assert "a.yaml, line 1 and b.yaml, line 1" in problem.message
    assert problem.object == "Network t1/x"


def test_files_that_did_not_change_are_not_parsed_again(folder: Path) -> None:
    parsed: list[str] = []

    def parse(text: str, name: str) -> Parsed:
        parsed.append(name)
        return _parse(text, name)

    (folder / "a.yaml").write_text("a")
    (folder / "b.yaml").write_text("b")
    reader = FolderReader(folder, parse)
    assert reader.read().declared.keys() == reader.read().declared.keys()
    (folder / "b.yaml").write_text("c")
    assert _names(reader.read()) == ["a", "c"]
    assert parsed == ["a.yaml", "b.yaml", "b.yaml"]


def test_links_are_followed_and_every_step_is_watched(folder: Path, tmp_path: Path) -> None:
    (folder / "..v1").mkdir()
    (folder / "..v1" / "a.yaml").write_text("a")
    (folder / "..data").symlink_to("..v1")
    (folder / "a.yaml").symlink_to("..data/a.yaml")
    link = tmp_path / "link"
    link.symlink_to(folder)
    reading = _read(link)
    assert _names(reading) == ["a"]
    assert reading.watch[folder] == set(), "all of it"
    assert "a.yaml" in reading.watch[folder / "..v1"]
    assert "link" in reading.watch[tmp_path]


def test_a_missing_path_is_waited_for_where_it_begins_to_be_missing(tmp_path: Path) -> None:
    reading = _read(tmp_path / "a" / "b" / "c")
    assert reading.watch == {tmp_path: {"a"}}
