"""Inputs found by coverage (atheris): `python fuzzing.py TARGET FOLDER -max_total_time=10 …`, options as libFuzzer's. FOLDER gets
good examples to begin with, and what is found.

A target takes bytes and must end: with a result that holds its promises, or with the one error that it may raise. Whatever else
comes out ends the process with an error, and the input is written to `-artifact_prefix`.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent.parent)]

with atheris.instrument_imports(include=["knitter_common", "knitter_agent.cni", "knitter_cni", "yaml"]):
    from knitter_agent.cni import failure, parse_call
    from knitter_agent.config import AgentSettings
    from knitter_cni import plugin
    from knitter_common import settings, strict_json
    from knitter_common.objects import dump, read_text
    from knitter_common.place import Place
    from knitter_common.snapshot import Header, Reader, Writer
    from knitter_common.wishes import KNITTER_KEY, NPWG_KEY, from_annotations

from knitter.v1.agent_pb2 import Answer, AttachResponse  # noqa: E402 - the parsers first, so that they are instrumented
from knitter_common.errors import Invalid  # noqa: E402

ENVIRONMENT = {"CNI_CONTAINERID": b"c1", "CNI_NETNS": b"/run/netns/a", "CNI_IFNAME": b"eth0"}


def annotations(data: bytes) -> None:
    """Both grammars: wishes, or an error that names the key."""
    text = data.decode(errors="replace")
    for key in (KNITTER_KEY, NPWG_KEY):
        try:
            wishes = from_annotations({key: text})
        except Invalid as error:
            assert error.message.startswith(f"{key}: ")  # noqa: PT017 - either way is right
        else:
            names = [wish.interface for wish in wishes]
            assert len(set(names)) == len(names)


def objects(data: bytes) -> None:
    """YAML: objects that read the same once written, and errors that name the file."""
    loaded = read_text(data.decode(errors="replace"), "f.yaml")
    assert all(error.message.startswith("f.yaml") for error in loaded.errors)
    written = dump(loaded.objects)
    again = read_text(written, "f.yaml")
    assert not again.errors, again.errors
    assert dump(again.objects) == written


def configuration(data: bytes) -> None:
    """A CNI call: judged, or an error with a code."""
    for verb in ("ADD", "DEL", "GC"):
        try:
            parse_call(verb, ENVIRONMENT, data, "r")
        except Invalid as error:
            assert json.loads(failure(error).stdout)["code"] > 0  # noqa: PT017 - either way is right


def daemon_file(data: bytes) -> None:
    """A daemon's configuration file: settings, or an error."""
    with contextlib.suppress(Invalid):
        place = Place("agent.json", "", "FIELD_INVALID")
        settings.parse(AgentSettings, strict_json.read(data.decode(errors="replace"), place, 1 << 20), "agent.json")


def answer(data: bytes) -> None:
    """What a peer says to the plugin: an answer, or none."""
    with contextlib.suppress(plugin.NoAnswerError):
        conversation = plugin.Conversation(b"Attach", 60.0, b"request")
        conversation.begin()
        conversation.receive(data)
        str(conversation.closed())
        if conversation.done:
            plugin.read_answer(conversation.message)


def snapshot(data: bytes) -> None:
    """A snapshot file: records, or an error."""
    with contextlib.suppress(Invalid):
        reader = Reader()
        for _ in reader.feed(data):
            pass
        reader.end()


def _a_snapshot() -> bytes:
    writer = Writer()
    header = Header("a1b2", "a1b2.3", 77, 1_700_000_000_000_000_000)
    return b"".join((writer.begin(header), writer.records([("network/a", b"1"), ("portset/named/t/a", b"2")]), writer.end()))


def _an_answer() -> bytes:
    message = AttachResponse(answer=Answer(stdout=b"fine", exit_code=3)).SerializeToString()
    return b"".join(
        (
            plugin.frame(plugin.SETTINGS, 0, 0, b""),
            plugin.frame(plugin.HEADERS, plugin.END_HEADERS, 1, b"\x88"),
            plugin.frame(plugin.DATA, 0, 1, b"\0" + len(message).to_bytes(4, "big") + message),
            plugin.frame(plugin.HEADERS, plugin.END_HEADERS | plugin.END_STREAM, 1, b"\0\x0bgrpc-status\x010"),
        )
    )


_WISH = {"attach_to_network": "t1/control", "attributes": {"nic_name": "eth1", "function": "media", "ip_addr": "10.1.1.9"}}
_ELEMENT = {"name": "control", "namespace": "t1", "interface": "net1", "ips": ["10.0.0.7/24"], "mac": "02:00:00:00:00:01"}
_CONF = {
    "cniVersion": "1.1.0", "name": "knitter", "type": "knitter-cni", "networks": "t1/control@net1", "cni.dev/valid-attachments": [],
    "delegate": {"type": "bridge"}, "runtimeConfig": {"io.kubernetes.cri.pod-annotations": {}},
    "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "10.0.0.2/24", "interface": 0}]},
}  # fmt: skip
_EXAMPLES = sorted((Path(__file__).resolve().parent.parent.parent / "deploy" / "examples").glob("*.yaml"))

TARGETS: dict[str, tuple[Callable[[bytes], None], Sequence[bytes]]] = {
    "annotations": (annotations, [json.dumps({"ports": [_WISH]}).encode(), json.dumps([_ELEMENT]).encode(), b"t1/a@net1, b@net2"]),
    "objects": (objects, [path.read_bytes() for path in _EXAMPLES]),
    "configuration": (configuration, [json.dumps(_CONF).encode()]),
    "daemon_file": (
        daemon_file,
        [b'{"listen": "unix:/a", "state": "/b", "node": "n", "managers": ["a:1"], "log": {"level": "debug"}}'],
    ),
    "answer": (answer, [_an_answer()]),
    "snapshot": (snapshot, [_a_snapshot()]),
}


if __name__ == "__main__":
    target, seeds = TARGETS[sys.argv.pop(1)]
    for number, seed in enumerate(seeds):
        Path(sys.argv[1], f"seed{number}").write_bytes(seed)
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
