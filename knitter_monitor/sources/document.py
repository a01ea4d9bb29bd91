"""A file's text → the objects it declares, document by document: one that is bad never stops the others."""

import re
from collections.abc import Iterator

from knitter_common.errors import Invalid
from knitter_common.objects import load_text
from knitter_monitor.sources.reading import Declared, Parsed
from knitter_monitor.sources.report import Problem, problem_of

# YAML 1.2, 9.1.2: a line that begins with "---" and ends or goes on with white space begins a document, wherever it stands.
_MARKER = re.compile(r"^---(?=\s|\Z)", re.MULTILINE)


def parse(text: str, name: str) -> Parsed:
    """Never raises."""
    objects: list[Declared] = []
    problems: list[Problem] = []
    documents = list(_documents(text))
    for number, document in enumerate(documents, 1):
        place = name if len(documents) == 1 else f"{name}, document {number}"
        try:
            objects += [Declared(obj, place) for obj in load_text(document, place)]
        except Invalid as error:
            problems.append(problem_of(error, place))
    return Parsed(tuple(objects), tuple(problems))


def _documents(text: str) -> Iterator[str]:
    """The documents that hold more than white space and comments; line numbers stay those of the file."""
    starts = [0, *(match.start() for match in _MARKER.finditer(text))]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        document = text[start:end]
        content = (line for line in _MARKER.sub("", document).splitlines() if line.strip() and not line.lstrip().startswith("#"))
        if any(content):
            yield "\n" * text.count("\n", 0, start) + document
