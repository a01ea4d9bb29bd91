"""README and docs: no link leads nowhere, every component has its page, and what they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")
CODE = re.compile(r"```.*?```", re.DOTALL)
# a file or folder of the repository in backquotes; generated and installed ones are not
NAMED = re.compile(r"`((?:knitter_[a-z]+|protos|tests|deploy|bench|docs)/[\w./-]*)`")


def anchors(page: Path) -> set[str]:
    """The fragments that headings of a page make."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target, fragment in LINK.findall(text):
        if "://" in target:
            continue
        file = page if not target else (page.parent / target)
        if not file.exists() or (fragment and fragment not in anchors(file)):
            broken.append(f"{target}#{fragment}" if fragment else target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = NAMED.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("component", ["manager", "monitor", "agent", "cni-plugin", "knitterctl"])
def test_every_component_has_a_page_that_the_readme_names(component: str) -> None:
    assert (ROOT / "docs" / f"{component}.md").is_file()
    assert f"(docs/{component}.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.exists():
            reached.add(page)
            links = LINK.findall(page.read_text(encoding="utf-8"))
            waiting += [(page.parent / target).resolve() for target, _ in links if target.endswith(".md") and "://" not in target]
    assert [page.name for page in sorted((ROOT / "docs").glob("*.md")) if page not in reached] == []


def test_every_word_of_the_build_script_runs_something_and_is_told() -> None:
    """`help`, README and the script itself name the same words."""
    script = (ROOT / "build.sh").read_text(encoding="utf-8")
    told = set(re.findall(r"^  ([a-z0-9-]+)  +\S", script[script.index("./build.sh WORD") : script.index("\nEND")], re.MULTILINE))
    cases = script[script.index('case "$word"') :]
    known = {word for line in re.findall(r"^  ([a-z0-9 |-]+)\)", cases, re.MULTILINE) for word in line.split(" | ")}
    assert told == known - {"help", "-h", "--help"}
    listed = re.search(r"lists the words: `([^`]+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert listed is not None
    assert set(listed[1].split()) == told
