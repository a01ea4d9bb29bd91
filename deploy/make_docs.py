"""Writes the pages that are made from the code: docs/errors.md from the table of reasons, docs/configuration.md from the settings.

    python deploy/make_docs.py [--check]

With --check it writes nothing, and fails when a page is not what the code says.
"""

import argparse
import dataclasses
import importlib
import importlib.util
import json
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from knitter_common.errors import REASONS
from knitter_common.meanings import MEANINGS
from knitter_common.settings import Seconds, key_of

DOCS = Path(__file__).resolve().parent.parent / "docs"
MADE = "<!-- Made by deploy/make_docs.py from the code; change it there. -->"

# daemon, module of its settings, class
DAEMONS = (
    ("knitter-manager", "knitter_manager.config", "ManagerSettings"),
    ("knitter-monitor", "knitter_monitor.config", "MonitorSettings"),
    ("knitter-agent", "knitter_agent.config", "AgentSettings"),
)

ERRORS = """\
# Errors

{made}

Every error of the manager and the monitor is a gRPC status whose details carry `google.rpc.ErrorInfo` with a `reason` of this
table, the domain `knitter.io`, and metadata for programs (field, key, place, value, network, owner …). Its message names the field,
the value and what to do. The agent tells the plugin's caller the same as a CNI error, whose `code` is that of this table.

Codes below 100 are the CNI specification's: 11 means "try again later", 50 that the node cannot serve an ADD now.

| reason | says | gRPC code | CNI code | way out |
|---|---|---|---|---|
"""

CONFIGURATION = """\
# Configuration

{made}

Every daemon reads one JSON file, named by `--config`; `--check` only checks it. A key that is not known is refused, and the nearest
known one named; keys that begin with `x-` are yours, for notes, and ignored with all that is below them. A key written twice is
refused. A span of time is a number of seconds or a text: "250ms", "30s", "5m", "1h". A dot on this page is one level of nesting:
`log.level` is `{{"log": {{"level": "debug"}}}}`. SIGHUP reads the log level again, SIGUSR1
switches to debug and, the next time, back to the file's level; everything else needs a restart. SIGTERM ends a daemon gracefully:
it takes no more calls, finishes those under way within `server.grace`, and exits with 0.

The plugin has no file: see [cni-plugin.md](cni-plugin.md).
"""


def errors_page() -> str:
    """docs/errors.md."""
    rows = (
        f"| `{reason}` | {_cell(MEANINGS[reason])} | {row.kind.grpc_code.name} | {row.cni_code} | {_cell(row.way_out)} |\n"
        for reason, row in REASONS.items()
    )
    return ERRORS.format(made=MADE) + "".join(rows)


def configuration_page() -> str:
    """docs/configuration.md, for the daemons that are there."""
    return CONFIGURATION.format(made=MADE) + "".join(
        _section(daemon, getattr(importlib.import_module(module), name))
        for daemon, module, name in DAEMONS
        if importlib.util.find_spec(module) is not None
    )


def _section(daemon: str, kind: type[Any]) -> str:
    head = f"\n## {daemon}\n\n| key | type | default | meaning |\n|---|---|---|---|\n"
    rows = ((key, _type(hint, field), _default(field), _cell(_meaning(field))) for key, hint, field in _keys(kind, ""))
    return head + "".join(f"| `{key}` | {hint} | {default} | {meaning} |\n" for key, hint, default, meaning in rows)


def _keys(kind: type[Any], prefix: str) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Every key in order, nested ones below their object."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        key, hint = prefix + key_of(field.name), _plain(hints[field.name])
        item = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
        if dataclasses.is_dataclass(hint):
            yield from _keys(typing.cast(type[Any], hint), f"{key}.")
        elif dataclasses.is_dataclass(item):
            yield key, hint, field
            yield from _keys(typing.cast(type[Any], item), f"{key}[].")
        else:
            yield key, hint, field


def _plain(hint: Any) -> Any:
    """Without `| None`."""
    if isinstance(hint, types.UnionType):
        return next(arm for arm in hint.__args__ if arm is not types.NoneType)
    return hint


def _type(hint: Any, field: dataclasses.Field[Any]) -> str:
    if field.metadata.get("choices"):
        return ", ".join(f"`{choice}`" for choice in field.metadata["choices"])
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Seconds: "span of time"}
    if typing.get_origin(hint) is tuple:
        return f"list of {names.get(typing.get_args(hint)[0], 'object')}s".replace("span of times", "spans of time")
    return "object of texts" if typing.get_origin(hint) is dict else names[hint]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    if value is None:
        return "none"
    hint = "" if not isinstance(value, float) else "s" if "Seconds" in str(field.type) else ""
    text = f"{value:g}{hint}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
    return f"`{text}`"


def _meaning(field: dataclasses.Field[Any]) -> str:
    low, high, doc = field.metadata.get("low"), field.metadata.get("high"), field.metadata.get("doc", "")
    if low is None and high is None:
        return str(doc)
    bounds = f"at least {low}" if high is None else f"at most {high}" if low is None else f"from {low} to {high}"
    return f"{doc}; {bounds}{' seconds' if 'Seconds' in str(field.type) else ''}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def main(argv: list[str] | None = None) -> int:
    """0, or 1 when --check finds a page that is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args(argv).check
    stale = 0
    for name, text in (("errors.md", errors_page()), ("configuration.md", configuration_page())):
        path = DOCS / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        print(f"{path}: {'is not what the code says; run python deploy/make_docs.py' if check else 'written'}", file=sys.stderr)
        if not check:
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
