"""YAML text → documents as node trees that know their lines. Bounded before anything is built.

Refused, each with its line: more than 4 MiB, nesting deeper than 32, more than 10,000 documents, what is no YAML. Nothing is
constructed from tags; an alias is the same node again, and who walks the tree counts (`field.Source.visit`).
"""

from collections.abc import Callable
from typing import Any, NoReturn

import yaml

from knitter_common.errors import Invalid

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 32
MAX_DOCUMENTS = 10_000

_loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(text: str, origin: str) -> list[yaml.Node]:
    """The documents that are not empty. Raises Invalid(FIELD_INVALID | LIMIT_EXCEEDED)."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise Invalid("FIELD_INVALID", f"{origin}: is no UTF-8 text near character {error.start}", file=origin) from None
    if size > MAX_BYTES:
        said = f"{origin}: {size} bytes are too many; at most {MAX_BYTES}, spread the objects over several files"
        raise Invalid("LIMIT_EXCEEDED", said, file=origin, limit=MAX_BYTES)
    _bounded(text, origin)
    nodes: list[yaml.Node] = _guarded(origin, lambda: [node for node in yaml.compose_all(text, _loader) if node is not None])
    return [node for node in nodes if not (isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null")]


def _bounded(text: str, origin: str) -> None:
    """One pass over the events, which needs no stack, before the pass that does."""

    def walk() -> None:
        depth = count = 0
        for event in yaml.parse(text, _loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    _refuse(origin, event.start_mark, f"is nested deeper than {MAX_DEPTH} levels; make it flatter")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.DocumentStartEvent):
                count += 1
                if count > MAX_DOCUMENTS:
                    _refuse(origin, event.start_mark, f"has more than {MAX_DOCUMENTS} documents; spread them over several files")

    _guarded(origin, walk)


def _guarded(origin: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except yaml.MarkedYAMLError as error:
        sentence = f"not YAML: {error.problem or error.context}"
        if error.problem and error.context:
            sentence += f" ({error.context})"
        _refuse(origin, error.problem_mark or error.context_mark, sentence)
    except (yaml.YAMLError, ValueError) as error:
        raise Invalid("FIELD_INVALID", f"{origin}: not YAML: {' '.join(str(error).split())}", file=origin) from error


def _refuse(origin: str, mark: Any, sentence: str) -> NoReturn:
    place = f"{origin}: " if mark is None else f"{origin}: line {mark.line + 1}, column {mark.column + 1}: "
    raise Invalid("FIELD_INVALID", place + sentence, file=origin, line=0 if mark is None else mark.line + 1)
