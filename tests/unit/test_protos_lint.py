"""The contracts keep buf's STANDARD rules (https://buf.build/docs/lint/rules), and everything in them has a comment.

Works on the descriptor set that protoc makes of protos/, with the comments of the sources.
"""

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc_tools
import pytest
from google.protobuf import descriptor_pb2

PROTOS = Path(__file__).resolve().parents[2] / "protos"
PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*\Z")
SNAKE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*\Z")
UPPER = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*\Z")
LABEL_REQUIRED = descriptor_pb2.FieldDescriptorProto.LABEL_REQUIRED


@dataclass
class Compiled:
    """What protoc made of protos/, and what it complained about."""

    files: list[descriptor_pb2.FileDescriptorProto]
    warnings: str


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    out = tmp_path_factory.mktemp("protos") / "set.bin"
    spec = importlib.util.find_spec("google.rpc")
    assert spec is not None
    googleapis = Path(next(iter(spec.submodule_search_locations or ()))).parent.parent
    includes = (PROTOS, Path(grpc_tools.__file__).parent / "_proto", googleapis)
    names = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", *(f"-I{path}" for path in includes), "--include_source_info"]
    ran = subprocess.run([*command, f"--descriptor_set_out={out}", *names], capture_output=True, text=True, timeout=60, check=True)
    made = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    assert sorted(file.name for file in made.file) == names
    return Compiled(list(made.file), ran.stderr)


@dataclass
class Thing:
    """Something that is declared: its kind, full name, descriptor, and comment."""

    kind: str
    name: str
    what: Any
    comment: str

    @property
    def short(self) -> str:
        return self.name.rpartition(".")[2]


def things(compiled: Compiled, *kinds: str) -> list[Thing]:
    """Everything of these kinds: message, field, oneof, enum, value, service, rpc."""
    return [thing for file in compiled.files for thing in _of_file(file) if thing.kind in kinds]


def _of_file(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Thing]:
    comments = {tuple(entry.path): entry.leading_comments.strip() for entry in file.source_code_info.location}
    for index, message in enumerate(file.message_type):
        yield from _of_message(message, (4, index), file.package, comments)
    for index, enum in enumerate(file.enum_type):
        yield from _of_enum(enum, (5, index), file.package, comments)
    for index, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield Thing("service", name, service, comments.get((6, index), ""))
        for number, rpc in enumerate(service.method):
            yield Thing("rpc", f"{name}.{rpc.name}", rpc, comments.get((6, index, 2, number), ""))


def _of_message(message: Any, path: tuple[int, ...], scope: str, comments: dict[tuple[int, ...], str]) -> Iterator[Thing]:
    if message.options.map_entry:
        return
    name = f"{scope}.{message.name}"
    yield Thing("message", name, message, comments.get(path, ""))
    for kind, number, entries in (("field", 2, message.field), ("oneof", 8, message.oneof_decl)):
        for index, entry in enumerate(entries):
            if kind == "oneof" and all(field.proto3_optional for field in message.field if field.oneof_index == index):
                continue
            yield Thing(kind, f"{name}.{entry.name}", entry, comments.get((*path, number, index), ""))
    for index, inner in enumerate(message.nested_type):
        yield from _of_message(inner, (*path, 3, index), name, comments)
    for index, enum in enumerate(message.enum_type):
        yield from _of_enum(enum, (*path, 4, index), name, comments)


def _of_enum(enum: Any, path: tuple[int, ...], scope: str, comments: dict[tuple[int, ...], str]) -> Iterator[Thing]:
    yield Thing("enum", f"{scope}.{enum.name}", enum, comments.get(path, ""))
    for index, value in enumerate(enum.value):
        yield Thing("value", f"{scope}.{enum.name}.{value.name}", value, comments.get((*path, 2, index), ""))


def test_everything_has_a_comment(compiled: Compiled) -> None:
    everything = things(compiled, "message", "field", "oneof", "enum", "value", "service", "rpc")
    assert len(everything) > 300
    assert [thing.name for thing in everything if not thing.comment] == []


def test_comments_are_sentences(compiled: Compiled) -> None:
    everything = things(compiled, "message", "field", "enum", "value", "service", "rpc")
    unfinished = [thing for thing in everything if not thing.comment.rstrip("\"'`)").endswith((".", "…"))]
    assert [f"{thing.name}: {thing.comment}" for thing in unfinished] == []


def test_every_file_says_what_it_is_for(compiled: Compiled) -> None:
    syntax = 12
    for file in compiled.files:
        (location,) = [entry for entry in file.source_code_info.location if list(entry.path) == [syntax]]
        assert location.leading_comments or location.leading_detached_comments, file.name


def test_files_packages_and_imports(compiled: Compiled) -> None:
    """FILE_LOWER_SNAKE_CASE, PACKAGE_DEFINED, PACKAGE_DIRECTORY_MATCH, PACKAGE_LOWER_SNAKE_CASE, PACKAGE_VERSION_SUFFIX,
    SYNTAX_SPECIFIED, IMPORT_NO_PUBLIC, IMPORT_NO_WEAK, IMPORT_USED."""
    for file in compiled.files:
        path = Path(file.name)
        assert SNAKE.match(path.stem), file.name
        assert file.package == ".".join(path.parent.parts), file.name
        assert all(SNAKE.match(part) for part in file.package.split(".")), file.package
        assert re.search(r"\.v\d+(?:(?:alpha|beta)\d+)?\Z", file.package), file.package
        assert file.syntax == "proto3", file.name
        assert not file.public_dependency, file.name
        assert not file.weak_dependency, file.name
    assert "unused" not in compiled.warnings


def test_names_of_messages_and_fields(compiled: Compiled) -> None:
    """MESSAGE_PASCAL_CASE, FIELD_LOWER_SNAKE_CASE, FIELD_NOT_REQUIRED, ONEOF_LOWER_SNAKE_CASE."""
    assert [thing.name for thing in things(compiled, "message") if not PASCAL.match(thing.short)] == []
    assert [thing.name for thing in things(compiled, "field", "oneof") if not SNAKE.match(thing.short)] == []
    assert [thing.name for thing in things(compiled, "field") if thing.what.label == LABEL_REQUIRED] == []


def test_enums(compiled: Compiled) -> None:
    """ENUM_PASCAL_CASE, ENUM_FIRST_VALUE_ZERO, ENUM_NO_ALLOW_ALIAS, ENUM_VALUE_PREFIX, ENUM_VALUE_UPPER_SNAKE_CASE,
    ENUM_ZERO_VALUE_SUFFIX."""
    for thing in things(compiled, "enum"):
        prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", thing.short).upper()
        values = [(value.name, value.number) for value in thing.what.value]
        assert PASCAL.match(thing.short), thing.name
        assert values[0] == (f"{prefix}_UNSPECIFIED", 0), thing.name
        assert not thing.what.options.allow_alias, thing.name
        assert all(UPPER.match(name) and name.startswith(f"{prefix}_") for name, _ in values), thing.name


def test_services_and_rpcs(compiled: Compiled) -> None:
    """SERVICE_PASCAL_CASE, SERVICE_SUFFIX, RPC_PASCAL_CASE, RPC_REQUEST_STANDARD_NAME, RPC_RESPONSE_STANDARD_NAME,
    RPC_REQUEST_RESPONSE_UNIQUE."""
    services, rpcs = things(compiled, "service"), things(compiled, "rpc")
    assert {thing.short for thing in services} == {"ManagerService", "MonitorService", "AgentService"}
    assert [thing.name for thing in services if not (PASCAL.match(thing.short) and thing.short.endswith("Service"))] == []
    for thing in rpcs:
        assert PASCAL.match(thing.short), thing.name
        assert thing.what.input_type.endswith(f".v1.{thing.short}Request"), thing.name
        assert thing.what.output_type.endswith(f".v1.{thing.short}Response"), thing.name
    used = Counter(name for thing in rpcs for name in (thing.what.input_type, thing.what.output_type))
    assert [name for name, count in used.items() if count > 1] == []


def test_lists_come_in_pages(compiled: Compiled) -> None:
    """Our own rule: what the manager lists has page_size and page_token, next_page_token and the revision."""
    fields = {thing.short: {field.name for field in thing.what.field} for thing in things(compiled, "message")}
    rpcs = things(compiled, "rpc")
    listing = [thing.short for thing in rpcs if thing.short.startswith("List") and "ManagerService" in thing.name]
    assert len(listing) >= 6
    for name in listing:
        assert {"page_size", "page_token"} <= fields[f"{name}Request"], name
        assert {"next_page_token", "revision"} <= fields[f"{name}Response"], name
