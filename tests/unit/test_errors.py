"""The table of reasons is complete, each error travels whole, and the pages made from code are what the code says."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import grpc
import pytest
from google.rpc import status_pb2

from knitter_cni import plugin
from knitter_common import errors
from knitter_common.errors import REASONS, KnitterError, from_status, to_status
from knitter_common.meanings import MEANINGS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("knitter_common", "knitter_manager", "knitter_monitor", "knitter_agent", "knitter_ctl")
CLASSES = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, KnitterError)}

# CNI specification 1.1.0, "Error codes"
SPECIFIED = {1, 2, 3, 4, 5, 6, 7, 11, 50, 51}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def raised() -> Iterator[tuple[str, str, str]]:
    """Place, class and reason of every error made in the source whose reason is written out there."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            first = node.args[0]
            if name in CLASSES and isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", name, first.value


def test_every_reason_in_the_source_is_in_the_table() -> None:
    found = list(raised())
    assert len(found) > 30
    assert [entry for entry in found if entry[2] not in REASONS] == []


def test_every_reason_is_told_by_its_class() -> None:
    wrong = [entry for entry in raised() if entry[2] in REASONS and entry[1] != REASONS[entry[2]].kind.__name__]
    assert wrong == []


def test_every_reason_is_used() -> None:
    own = ROOT / "knitter_common" / "errors.py"
    words = {
        node.value
        for path, tree in trees()
        if path != own
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(REASONS) - words == set()


def test_cni_codes() -> None:
    """Below 100 they are the specification's; ours each mean one thing."""
    codes = [row.cni_code for row in REASONS.values()]
    assert {code for code in codes if code < 100} <= SPECIFIED
    ours = [code for code in codes if code >= 100]
    assert len(set(ours)) == len(ours)
    passing = {reason for reason, row in REASONS.items() if row.kind is errors.Unavailable}
    assert {REASONS[reason].cni_code for reason in passing} <= {11, 50}


def test_every_reason_says_something_and_has_a_way_out() -> None:
    assert set(MEANINGS) == set(REASONS)
    assert len(set(MEANINGS.values())) == len(MEANINGS)
    for reason, row in REASONS.items():
        for text in (row.way_out, MEANINGS[reason]):
            assert text, reason
            assert text[0].islower() or text.startswith(("ADD", "DEL")), reason
            assert not text.endswith("."), reason


def test_what_the_plugin_says_by_itself_is_of_the_table() -> None:
    """It imports nothing of ours, so its codes stand there once more."""
    codes = {
        plugin.BAD_ENVIRONMENT: "CNI_ENVIRONMENT_INVALID",
        plugin.IO_FAILURE: "CNI_IO_FAILURE",
        plugin.BAD_CONFIGURATION: "CNI_CONFIG_INVALID",
        plugin.TRY_AGAIN: "AGENT_UNAVAILABLE",
        plugin.NOT_AVAILABLE: "CNI_NOT_READY",
        plugin.INTERNAL: "INTERNAL",
    }
    assert {REASONS[reason].cni_code: reason for reason in codes.values()} == codes
    tree = ast.parse(Path(plugin.__file__).read_text(encoding="utf-8"))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "CniError")
    named = [call.args[0] for call in calls]
    assert len(named) > 5
    assert {vars(plugin)[one.id] for one in named if isinstance(one, ast.Name)} <= set(codes)
    assert all(isinstance(one, ast.Name) for one in named)


def test_classes_have_codes_of_their_own() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, KnitterError)]
    codes = [kind.grpc_code for kind in kinds if kind is not KnitterError]
    assert len(set(codes)) == len(codes)
    assert grpc.StatusCode.OK not in codes


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_an_error_travels_whole(reason: str) -> None:
    sent = REASONS[reason].kind(reason, "ä message", field="x", count=3)
    status = status_pb2.Status.FromString(to_status(sent).SerializeToString())
    got = from_status(status)
    assert (type(got), got.reason, got.message, got.metadata) == (type(sent), reason, "ä message", {"field": "x", "count": "3"})
    assert status.code == sent.grpc_code.value[0]
    assert (got.cni_code, got.way_out) == (REASONS[reason].cni_code, REASONS[reason].way_out)


@pytest.mark.parametrize("sign", ["x", "ä", "😀", "\0", "%"])
def test_what_is_too_long_for_the_wire_keeps_its_beginning_and_its_end(sign: str) -> None:
    sent = KnitterError("FIELD_INVALID", f"name: {sign * 100_000!r} is no name; use a-z", field="name", value=sign * 100_000)
    status = to_status(sent)
    got = from_status(status)
    assert got.message.startswith("name: ")
    assert got.message.endswith("is no name; use a-z")
    assert got.metadata["field"] == "name"
    assert len(quote(status.message)) + len(status.SerializeToString()) * 4 / 3 < 8000


def test_metadata_may_have_any_key() -> None:
    sent = KnitterError("INTERNAL", "text", **{"reason": "a", "message": "b", "self": "c", "x-y": "d"})
    assert from_status(to_status(sent)).metadata == {"reason": "a", "message": "b", "self": "c", "x-y": "d"}


@pytest.mark.parametrize(
    ("code", "reason"),
    [(14, "MANAGER_UNAVAILABLE"), (4, "MANAGER_UNAVAILABLE"), (1, "MANAGER_UNAVAILABLE"), (13, "INTERNAL"), (999, "INTERNAL")],
)
def test_a_foreign_status_is_told_by_its_code(code: int, reason: str) -> None:
    assert from_status(status_pb2.Status(code=code, message="x")).reason == reason


def test_a_reason_of_a_newer_release_is_no_crash() -> None:
    status = to_status(KnitterError("INTERNAL", "text"))
    status.details[0].value = status.details[0].value.replace(b"INTERNAL", b"TOMORROW")
    assert from_status(status).reason == "INTERNAL"


def made_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "deploy" / "make_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("page", "make"), [("errors.md", "errors_page"), ("configuration.md", "configuration_page")])
def test_pages_made_from_code_are_what_the_code_says(page: str, make: str) -> None:
    expected = getattr(made_pages(), make)()
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == expected, "run `python deploy/make_docs.py`"
