"""Configuration files: what is read, and every kind of bad value refused with file, key, value and way out."""
# ruff: noqa: E501 - the tables read best as rows

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knitter_common import settings
from knitter_common.errors import Invalid
from knitter_common.settings import Seconds, setting


@dataclasses.dataclass(frozen=True)
class Inner:
    level: str = setting("how much", "info", choices=("debug", "info"))
    size: int = setting("how large, in bytes", 5, low=1, high=10)


@dataclasses.dataclass(frozen=True)
class Peer:
    address: str = setting("where")
    weight: int = setting("how much", 1, low=0)


@dataclasses.dataclass(frozen=True)
class Example:
    listen_address: str = setting("where to serve")
    grace_period: Seconds = setting("how long", Seconds(5.0), low=0.1, high=60)
    ratio: float = setting("how much of it", 0.5, low=0)
    strict: bool = setting("whether", False)
    peers: tuple[Peer, ...] = setting("others", ())
    names: tuple[str, ...] = setting("names", ("a",))
    labels: dict[str, str] = setting("labels", {})
    limit: int | None = setting("at most this many; null means no limit", None, low=1)
    inner: Inner = setting("more", Inner())

    def __post_init__(self) -> None:
        if self.strict and not self.peers:
            raise Invalid("FIELD_INVALID", "peers: strict needs at least one", field="peers")


def load(tmp_path: Path, text: str, kind: type[Any] = Example) -> Any:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    return settings.load(kind, path)


def test_everything_can_be_told(tmp_path: Path) -> None:
    text = """{"listenAddress": "h:1", "gracePeriod": "30s", "ratio": 2, "strict": true, "peers": [{"address": "p", "weight": 0}],
      "names": ["x", "y"], "labels": {"a": "b"}, "limit": 7, "inner": {"level": "debug", "size": 10}}"""
    assert load(tmp_path, text) == Example(
        "h:1", Seconds(30.0), 2, True, (Peer("p", 0),), ("x", "y"), {"a": "b"}, 7, Inner("debug", 10)
    )


def test_what_is_not_told_has_its_default(tmp_path: Path) -> None:
    assert load(tmp_path, '{"listenAddress": "h:1"}') == Example("h:1")
    assert load(tmp_path, '{"listenAddress": "h:1", "limit": null}') == Example("h:1")
    assert load(tmp_path, '{"listenAddress": "h:1", "inner": {"size": 6}}').inner == Inner(size=6)


def test_notes_are_ignored(tmp_path: Path) -> None:
    text = '{"listenAddress": "h:1", "x-note": {"anything": [1]}, "inner": {"x-why": "so"}, "peers": [{"address": "p", "x-": 1}]}'
    assert load(tmp_path, text).peers == (Peer("p"),)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("30s", 30), ("250ms", 0.25), ("1m", 60), ("0.5m", 30), (5, 5), (0.1, 0.1), ("1.5s", 1.5)],
)
def test_spans_of_time(tmp_path: Path, value: object, seconds: float) -> None:
    text = json.dumps({"listenAddress": "h", "gracePeriod": value})
    assert load(tmp_path, text).grace_period == seconds


NEEDED = '{"listenAddress": "h", '

BAD: list[tuple[str, str]] = [
    ("", "line 1, column 1: not JSON: Expecting value"),
    ("{", "line 1, column 2: not JSON"),
    ('{\n  "listenAddress": "h",\n}', "line 3, column 1: not JSON: Expecting property name"),
    ("// no comments\n{}", "line 1, column 1: not JSON"),
    ("[]", "must be an object, not []"),
    ("null", "must be an object, not null"),
    ('"text"', 'must be an object, not "text"'),
    ("[" * 100_000, "is nested deeper than 24 levels"),
    (" " * 2_000_000 + "{}", "is longer than 1048576 bytes"),
    ("{}", "listenAddress is missing: where to serve"),
    (NEEDED + '"listenAddress": "i"}', "listenAddress: is written twice in one object; remove one of them"),
    (NEEDED + '"inner": {"size": 2, "size": 3}}', "inner.size: is written twice"),
    (NEEDED + '"gracePeriods": 5}', "unknown key 'gracePeriods'; did you mean 'gracePeriod'?"),
    (NEEDED + '"grace_period": 5}', "unknown key 'grace_period'; did you mean 'gracePeriod'?"),
    (NEEDED + '"zzz": 5}', "unknown key 'zzz'; known keys: gracePeriod, inner"),
    (NEEDED + '"X-note": 5}', "unknown key 'X-note'"),
    (NEEDED + '"inner": {"sise": 5}}', "inner: unknown key 'sise'; did you mean 'size'?"),
    (NEEDED + '"peers": [{"address": "p"}, {"adress": "q"}]}', "peers[1]: unknown key 'adress'; did you mean 'address'?"),
    (NEEDED + '"peers": [{}]}', "peers[0]: address is missing: where"),
    (NEEDED + '"peers": {}}', "peers: must be a list, not {}"),
    (NEEDED + '"peers": ["p"]}', 'peers[0]: must be an object, not "p"'),
    (NEEDED + '"names": "a"}', 'names: must be a list, not "a"'),
    (NEEDED + '"names": ["a", 5]}', "names[1]: must be a text, not 5"),
    (NEEDED + '"labels": ["a"]}', 'labels: must be an object of texts, not ["a"]'),
    (NEEDED + '"labels": {"a": 1}}', 'labels: must be an object of texts, not {"a": 1}'),
    (NEEDED + '"strict": "yes"}', 'strict: must be true or false, not "yes"'),
    (NEEDED + '"strict": 1}', "strict: must be true or false, not 1"),
    (NEEDED + '"strict": null}', "strict: must be true or false, not null"),
    (NEEDED + '"ratio": "0.5"}', 'ratio: must be a number, not "0.5"'),
    (NEEDED + '"ratio": true}', "ratio: must be a number, not true"),
    (NEEDED + '"ratio": -0.1}', "ratio: -0.1 is out of range; it must be at least 0"),
    (NEEDED + '"ratio": NaN}', "ratio: NaN fits no number"),
    (NEEDED + '"ratio": Infinity}', "ratio: Infinity fits no number"),
    (NEEDED + '"ratio": 1e999}', "ratio: 1e999 fits no number"),
    (NEEDED + '"limit": 0}', "limit: 0 is out of range; it must be at least 1"),
    (NEEDED + '"limit": 1.5}', "limit: must be a whole number, not 1.5"),
    (NEEDED + '"limit": ' + "9" * 5000 + "}", "limit: 9999999999999999999999999999999999999999 fits no number"),
    (NEEDED + '"inner": {"size": 0}}', "inner: size: 0 is out of range; it must be from 1 to 10"),
    (NEEDED + '"inner": {"size": 11}}', "inner: size: 11 is out of range; it must be from 1 to 10"),
    (NEEDED + '"inner": {"size": 5.0}}', "inner: size: must be a whole number, not 5.0"),
    (NEEDED + '"inner": {"size": true}}', "inner: size: must be a whole number, not true"),
    (NEEDED + '"inner": {"level": "Info"}}', 'inner: level: "Info" is none of debug, info'),
    (NEEDED + '"inner": null}', "inner: must be an object, not null"),
    (NEEDED + '"gracePeriod": "soon"}', 'gracePeriod: "soon" is not a span of time; write 30, "30s", "250ms", "5m" or "1h"'),
    (NEEDED + '"gracePeriod": "30"}', "gracePeriod: \"30\" is not a span of time"),
    (NEEDED + '"gracePeriod": "-3s"}', 'gracePeriod: "-3s" is not a span of time'),
    (NEEDED + '"gracePeriod": -3}', "gracePeriod: -3 is not a span of time"),
    (NEEDED + '"gracePeriod": true}', "gracePeriod: true is not a span of time"),
    (NEEDED + '"gracePeriod": null}', "gracePeriod: null is not a span of time"),
    (NEEDED + '"gracePeriod": "2m"}', "gracePeriod: 120.0 is out of range; it must be from 0.1 to 60"),
    (NEEDED + '"gracePeriod": 0}', "gracePeriod: 0.0 is out of range"),
    (NEEDED + '"strict": true}', "peers: strict needs at least one"),
    ('{"listenAddress": 5}', "listenAddress: must be a text, not 5"),
    ('{"listenAddress": ["h"]}', 'listenAddress: must be a text, not ["h"]'),
    ('{"listenAddress": "\\ud800"}', "listenAddress: holds \\ud800, half of a pair of surrogates"),
    ('{"listenAddress": ' + json.dumps("x" * 100) + ', "limit": "' + "y" * 100 + '"}', '...'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "fragment"), BAD, ids=[fragment for _, fragment in BAD])
def test_a_bad_file_is_refused_with_file_key_value_and_way_out(tmp_path: Path, text: str, fragment: str) -> None:
    with pytest.raises(Invalid) as raised:
        load(tmp_path, text)
    assert raised.value.reason == "FIELD_INVALID"
    assert raised.value.message.startswith(f"{tmp_path / 'x.json'}: ")
    assert fragment in raised.value.message
    assert len(raised.value.message) < 400 + len(str(tmp_path))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"none\.json: cannot be read: .*No such file"):
        settings.load(Example, tmp_path / "none.json")
    with pytest.raises(Invalid, match=r"cannot be read: .*Is a directory"):
        settings.load(Example, tmp_path)
    path = tmp_path / "latin1.json"
    path.write_bytes(b'{"listenAddress": "\xe4"}')
    with pytest.raises(Invalid, match=r"cannot be read: .*utf-8"):
        settings.load(Example, path)


# The daemons' own files.

MONITOR, AGENT, MANAGER = (
    ("knitter_monitor.config", "MonitorSettings"), ("knitter_agent.config", "AgentSettings"), ("knitter_manager.config", "ManagerSettings"),
)  # fmt: skip

BAD_DAEMONS: list[tuple[tuple[str, str], str, str]] = [
    (MONITOR, '{"folder": []}', "unknown key 'folder'; did you mean 'folders'?"),
    (MONITOR, '{"managers": []}', "managers: at least one address is needed"),
    (MONITOR, '{"folders": [{"name": "a"}]}', "folders[0]: path is missing"),
    (MONITOR, '{"folders": [{"name": "a/b", "path": "/x"}]}', "folders: name 'a/b'"),
    (MONITOR, '{"push": {"heartbeat": "0s"}}', "push: heartbeat: 0.0 is out of range"),
    (MONITOR, '{"log": {"level": "verbose"}}', 'log: level: "verbose" is none of debug, info, warning, error'),
    (AGENT, '{"manager": []}', "unknown key 'manager'; did you mean 'managers'?"),
    (AGENT, '{"listen": 5}', "listen: must be a text, not 5"),
    (AGENT, '{"labels": {"a": 1}}', "labels: must be an object of texts"),
    (AGENT, '{"maxConcurrentAdds": 0}', "maxConcurrentAdds: 0 is out of range; it must be at least 1"),
    (AGENT, '{"strictStatus": "true"}', 'strictStatus: must be true or false, not "true"'),
    (MANAGER, '{"listn": "x"}', "unknown key 'listn'; did you mean 'listen'?"),
    (AGENT, '{"listen": "127.0.0.1:7472"}', 'listen: "127.0.0.1:7472" is no address; write unix:/path'),
    (AGENT, '{"listen": "unix:agent.sock"}', 'listen: "unix:agent.sock" is no address; write unix:/path'),
    (AGENT, '{"managers": []}', "managers: at least one address is needed"),
    (AGENT, '{"managers": ["m1:7470", "m2"]}', 'managers[1]: "m2" is no address; write host:port or unix:/path'),
    (AGENT, '{"managers": ["m1:0"]}', 'managers[0]: "m1:0" is no address'),
    (MONITOR, '{"listen": ":7471"}', 'listen: ":7471" is no address'),
    (MONITOR, '{"listen": "0.0.0.0:65536"}', 'listen: "0.0.0.0:65536" is no address'),
    (MANAGER, '{"listen": "nonsense"}', 'listen: "nonsense" is no address; write host:port or unix:/path'),
    (MANAGER, '{"server": {"grace": "x"}}', 'server: grace: "x" is not a span of time'),
]  # fmt: skip


def settings_class(of: tuple[str, str]) -> type[Any]:
    kind: type[Any] = getattr(importlib.import_module(of[0]), of[1])
    return kind


@pytest.mark.parametrize(("daemon", "text", "fragment"), BAD_DAEMONS, ids=[fragment for _, _, fragment in BAD_DAEMONS])
def test_a_daemons_bad_file_is_refused(tmp_path: Path, daemon: tuple[str, str], text: str, fragment: str) -> None:
    with pytest.raises(Invalid) as raised:
        load(tmp_path, text, settings_class(daemon))
    assert fragment in raised.value.message
    assert raised.value.message.startswith(str(tmp_path))


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::]:7470", "manager-0.knitter.svc:7470", "unix:/run/knitter/manager.sock"])
def test_an_address_may_be(tmp_path: Path, listen: str) -> None:
    assert load(tmp_path, json.dumps({"listen": listen}), settings_class(MANAGER)).listen == listen


@pytest.mark.parametrize("daemon", [MONITOR, AGENT, MANAGER])
def test_every_key_says_what_it_is(daemon: tuple[str, str]) -> None:
    todo = [settings_class(daemon)]
    while todo:
        kind = todo.pop()
        for field in dataclasses.fields(kind):
            assert len(field.metadata["doc"]) > 3, f"{kind.__name__}.{field.name}"
            if dataclasses.is_dataclass(field.default):
                todo.append(type(field.default))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(["level", "size", "address"]), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = [settings.key_of(field.name) for field in dataclasses.fields(Example)]


@given(st.dictionaries(st.sampled_from(KEYS), json_values) | json_values)
def test_any_configuration_is_read_or_refused(data: object) -> None:
    try:
        made = settings.parse(Example, data, "x.json")
    except Invalid as error:
        assert error.message.startswith("x.json: ")  # noqa: PT017 - either way is right
    else:
        assert isinstance(made, Example)
