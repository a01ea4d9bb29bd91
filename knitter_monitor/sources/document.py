"""A file's text → the objects it declares: one that is bad never stops the others."""

from knitter_common.errors import KnitterError
from knitter_common.objects import read_text
from knitter_monitor.sources.reading import Declared, Parsed
from knitter_monitor.sources.report import Problem, problem_of


def parse(text: str, name: str) -> Parsed:
    """Never raises."""
    loaded = read_text(text, name)
    return Parsed(tuple(Declared(obj, name) for obj in loaded.objects), tuple(_problem(error, name) for error in loaded.errors))


def _problem(error: KnitterError, name: str) -> Problem:
    line = error.metadata.get("line", "")
    return problem_of(error, f"{name}, line {line}" if line else name)
