"""The plugin as a process against a peer scripted in HTTP/2 frames: what the protocol allows works, the rest is "no answer"."""

import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from harness.plugin import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    OK_HEADERS,
    OK_TRAILERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    Peer,
    Plugin,
    frame,
    header,
    message,
    reply,
    setting,
    short_directory,
)

SHORT = {"KNITTER_TIMEOUT": "0.4"}


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    with short_directory() as directory:
        yield Plugin(directory)


def answers(plugin: Plugin, script: Callable[[Connection], None], stdin: bytes = b"{}") -> bytes:
    """Runs ADD against the script; the answer must be a success. Returns standard output."""
    with Peer(plugin.socket, script):
        outcome = plugin.run("ADD", stdin)
    assert outcome.code == 0, outcome
    assert outcome.stderr == b""
    return outcome.stdout


def details(plugin: Plugin, script: Callable[[Connection], None], env: dict[str, str | bytes | None] | None = None) -> str:
    """Runs ADD against the script; it must end as "no answer". Returns why."""
    with Peer(plugin.socket, script):
        error = plugin.run("ADD", b"{}", env).error
    assert error["code"] == 11
    return str(error["details"])


def test_the_opening_is_what_the_protocol_demands(plugin: Plugin) -> None:
    def script(peer: Connection) -> None:
        peer.request()
        first = peer.frames[0]
        assert (first.kind, first.flags, first.stream) == (SETTINGS, 0, 0)
        assert cut_in(first.payload, 6) == [setting(1, 0), setting(2, 0), setting(4, 2**31 - 1)]
        headers = next(came for came in peer.frames if came.kind == HEADERS)
        assert (headers.stream, headers.flags) == (1, END_HEADERS)
        for part in (b"/knitter.v1.AgentService/Attach", b"application/grpc", b"trailers", b"60000m", b"localhost"):
            assert part in headers.payload
        peer.send(frame(SETTINGS, 0, 0))
        assert peer.until(SETTINGS, ACK).payload == b""
        peer.send(reply(b"fine"))
        peer.drain()

    assert answers(plugin, script) == b"fine"


def cut_in(data: bytes, size: int) -> list[bytes]:
    return [data[place : place + size] for place in range(0, len(data), size)]


@pytest.mark.parametrize(
    ("settings", "opens"),
    [
        (b"", 0),
        (setting(4, 1), 0),
        (setting(4, 0), 0),
        (setting(4, 1000) + setting(5, 16384), 0),
        (setting(5, 2**24 - 1) + setting(4, 2**31 - 1), 0),
        (setting(5, 20_000) + setting(4, 100_000), 30_000),
        (setting(1, 0) + setting(3, 1) + setting(6, 1000) + setting(0xFE03, 1) + setting(4, 5000), 0),
    ],
)
def test_a_large_request_keeps_to_the_peers_windows_and_frame_size(plugin: Plugin, settings: bytes, opens: int) -> None:
    stdin = os.urandom(1_048_576)
    values = {settings[place + 1]: int.from_bytes(settings[place + 2 : place + 6], "big") for place in range(0, len(settings), 6)}
    limit = values.get(5, 16384)

    def script(peer: Connection) -> None:
        connection, stream = 65535, 65535
        peer.preface()
        peer.send(frame(SETTINGS, 0, 0, settings))
        stream += values.get(4, 65535) - 65535
        acknowledged = False
        while True:
            came = peer.frame()
            if came.kind == SETTINGS and came.flags & ACK:
                acknowledged = True
            if came.kind != DATA:
                continue
            assert len(came.payload) <= (limit if acknowledged else 16384)
            connection -= len(came.payload)
            stream -= len(came.payload)
            assert connection >= 0
            assert stream >= (0 if acknowledged else -65535)
            if came.flags & END_STREAM:
                break
            while stream <= 0 or connection <= 0:
                more = opens or 40_000
                peer.send(frame(WINDOW_UPDATE, 0, 1, more.to_bytes(4, "big")) + frame(WINDOW_UPDATE, 0, 0, more.to_bytes(4, "big")))
                connection += more
                stream += more
        assert peer.invocation().stdin == stdin
        peer.send(reply(b"all of it"))
        peer.drain()

    assert answers(plugin, script, stdin) == b"all of it"


def test_a_window_that_shrinks_below_zero_is_obeyed(plugin: Plugin) -> None:
    stdin = os.urandom(200_000)

    def script(peer: Connection) -> None:
        peer.preface()
        taken = 0
        while taken < 65535:
            came = peer.frame()
            taken += len(came.payload) if came.kind == DATA else 0
        peer.send(frame(SETTINGS, 0, 0, setting(4, 10)), frame(WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big")))
        peer.until(SETTINGS, ACK)
        peer.send(frame(WINDOW_UPDATE, 0, 1, (65525).to_bytes(4, "big")), frame(PING, 0, 0, b"12345678"))
        assert peer.frame().kind == PING  # 65535 were taken of a window of 10 + 65525: nothing may come
        peer.send(frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4, "big")))
        assert len(peer.until(DATA).payload) == 1
        peer.send(frame(SETTINGS, 0, 0, setting(4, 2**30)))
        peer.until(DATA, END_STREAM)
        assert peer.invocation().stdin == stdin
        peer.send(reply(b"fine"))
        peer.drain()

    assert answers(plugin, script, stdin) == b"fine"


def test_a_ping_is_answered_with_its_octets(plugin: Plugin) -> None:
    def script(peer: Connection) -> None:
        peer.request()
        peer.send(frame(SETTINGS, 0, 0), frame(PING, 0, 0, b"abcdefgh"), frame(PING, ACK, 0, b"ignored!"))
        came = peer.until(PING)
        assert (came.flags, came.stream, came.payload) == (ACK, 0, b"abcdefgh")
        peer.send(reply(b"fine"))
        peer.drain()

    assert answers(plugin, script) == b"fine"


ANSWER = b"x" * 50_000
SPLIT = b"".join(frame(DATA, 0, 1, part) for part in cut_in(message(ANSWER), 7_000))
HEAD, TAIL = frame(HEADERS, END_HEADERS, 1, OK_HEADERS), frame(HEADERS, END_HEADERS | END_STREAM, 1, OK_TRAILERS)
LONG_HEADERS = OK_HEADERS + header(b"x-long", b"v" * 100) * 200


@pytest.mark.parametrize(
    "frames",
    [
        HEAD + SPLIT + TAIL,
        HEAD + b"".join(frame(DATA, 0, 1, message(ANSWER)[n : n + 1]) for n in range(30)) + frame(DATA, 0, 1, b"")
        + b"".join(frame(DATA, 0, 1, part) for part in cut_in(message(ANSWER)[30:], 16384)) + TAIL,
        HEAD + b"".join(frame(DATA, PADDED, 1, b"\x09" + part + b"\0" * 9) for part in cut_in(message(ANSWER), 9_000)) + TAIL,
        HEAD + b"".join(frame(DATA, 0, 1, part) for part in cut_in(message(ANSWER), 10_000)[:-1])
        + frame(DATA, END_STREAM, 1, cut_in(message(ANSWER), 10_000)[-1]),
        frame(HEADERS, PADDED | PRIORITY | END_HEADERS, 1, b"\2\0\0\0\0\1" + OK_HEADERS + b"\0\0") + SPLIT + TAIL,
        frame(HEADERS, 0, 1, LONG_HEADERS[:9000]) + frame(CONTINUATION, 0, 1, LONG_HEADERS[9000:9001])
        + frame(CONTINUATION, END_HEADERS, 1, LONG_HEADERS[9001:]) + SPLIT + frame(HEADERS, END_STREAM, 1, OK_TRAILERS[:3])
        + frame(CONTINUATION, END_HEADERS, 1, OK_TRAILERS[3:]),
        frame(HEADERS, END_HEADERS, 1, b"\x08\x03103") + HEAD + SPLIT + TAIL,  # an interim answer first
        HEAD + frame(77, 255, 1, b"unknown") + frame(2, 0, 3, b"12345") + frame(200, 0, 0) + SPLIT
        + frame(WINDOW_UPDATE, 0, 7, b"\0\0\0\1") + TAIL,
        HEAD + SPLIT + frame(GOAWAY, 0, 0, b"\0\0\0\1" + b"\0\0\0\0") + TAIL,
        HEAD + frame(GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + b"\0\0\0\0") + SPLIT + TAIL,
        HEAD + SPLIT + TAIL + frame(RST_STREAM, 0, 1, b"\0\0\0\0") + b"and garbage",
        frame(SETTINGS, 0, 0, setting(4, 70_000)) + frame(SETTINGS, ACK, 0) + HEAD + SPLIT + TAIL,
    ],
    ids=["several-frames", "octet-by-octet", "padded", "no-trailers", "padded-headers", "continuation", "interim", "unknown",
         "goaway-after", "goaway-graceful", "noise-after", "settings-twice"],
)  # fmt: skip
@pytest.mark.parametrize("pieces", [100_000, 997])
def test_an_answer_may_come_in_every_shape_the_protocol_allows(plugin: Plugin, frames: bytes, pieces: int) -> None:
    def script(peer: Connection) -> None:
        peer.request()
        try:
            for piece in cut_in(frame(SETTINGS, 0, 0) + frames, pieces):
                peer.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            return  # it had enough
        peer.drain()

    assert answers(plugin, script) == ANSWER


def test_an_answer_of_a_mebibyte_needs_no_window_from_us_again(plugin: Plugin) -> None:
    stdout = os.urandom(1_048_576)

    def script(peer: Connection) -> None:
        peer.preface()
        opened = 65535 + int.from_bytes(peer.until(WINDOW_UPDATE).payload, "big")
        assert opened == 2**31 - 1
        peer.until(DATA, END_STREAM)
        frames = [frame(DATA, 0, 1, part) for part in cut_in(message(stdout), 16384)]
        peer.send(frame(SETTINGS, 0, 0), HEAD, *frames, TAIL)
        peer.drain()

    assert answers(plugin, script) == stdout


def test_an_answer_before_the_whole_request_was_read_counts(plugin: Plugin) -> None:
    def script(peer: Connection) -> None:
        peer.preface()
        peer.send(frame(SETTINGS, 0, 0, setting(4, 0)), reply(b"early"))
        peer.drain()

    assert answers(plugin, script, os.urandom(1_000_000)) == b"early"


BAD = {
    "no-hello": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak HTTP/2"),
    "zeroes": (b"\0" * 64, "does not speak HTTP/2"),
    "frame-too-large": (frame(SETTINGS, 0, 0) + HEAD + frame(DATA, 0, 1, b"x" * 16385), "16385"),
    "settings-cut": (frame(SETTINGS, 0, 0, b"12345"), "SETTINGS of a wrong size"),
    "settings-on-stream": (frame(SETTINGS, 0, 1), "stream 1"),
    "window-too-large": (frame(SETTINGS, 0, 0, setting(4, 2**31)), "initial window"),
    "frame-size-too-small": (frame(SETTINGS, 0, 0, setting(5, 100)), "largest frame size"),
    "window-of-nothing": (frame(SETTINGS, 0, 0) + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0"), "WINDOW_UPDATE"),
    "window-overflow": (frame(SETTINGS, 0, 0) + frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), "too far"),
    "ping-size": (frame(SETTINGS, 0, 0) + frame(PING, 0, 0, b"1234"), "PING"),
    "other-stream": (frame(SETTINGS, 0, 0) + frame(DATA, 0, 3, b"x"), "stream 3"),
    "push": (frame(SETTINGS, 0, 0) + frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2"), "pushed"),
    "data-first": (frame(SETTINGS, 0, 0) + frame(DATA, END_STREAM, 1, message(b"x")), "before headers"),
    "continuation-first": (frame(SETTINGS, 0, 0) + frame(CONTINUATION, 4, 1, OK_HEADERS), "order"),
    "interrupted-headers": (frame(SETTINGS, 0, 0) + frame(HEADERS, 0, 1, OK_HEADERS) + frame(PING, 0, 0, b"12345678"), "order"),
    "padding": (frame(SETTINGS, 0, 0) + HEAD + frame(DATA, PADDED, 1, b"\x05abc"), "padding"),
    "empty-padding": (frame(SETTINGS, 0, 0) + HEAD + frame(DATA, PADDED, 1, b""), "padding"),
    "reset": (frame(SETTINGS, 0, 0) + HEAD + frame(RST_STREAM, 0, 1, b"\0\0\0\x08"), "reset the call (HTTP/2 error 8)"),
    "going-away": (frame(SETTINGS, 0, 0) + frame(GOAWAY, 0, 0, b"\0\0\0\0" + b"\0\0\0\0bye"), "going away bye"),
    "trailers-only": (
        frame(SETTINGS, 0, 0)
        + frame(HEADERS, 5, 1, OK_HEADERS + header(b"grpc-status", b"14") + header(b"grpc-message", b"not%20now")),
        "grpc-status 14, grpc-message not now",
    ),
    "trailers-without-data": (
        frame(SETTINGS, 0, 0) + HEAD + frame(HEADERS, 5, 1, header(b"grpc-status", b"13") + header(b"grpc-message", b"%zz%")),
        "grpc-status 13, grpc-message %zz%",
    ),
    "ok-without-data": (frame(SETTINGS, 0, 0) + HEAD + TAIL, "without an answer"),
    "http-error": (frame(SETTINGS, 0, 0) + frame(HEADERS, 5, 1, b"\x8d"), ":status 404"),
    "http-error-literal": (frame(SETTINGS, 0, 0) + frame(HEADERS, 5, 1, b"\x48\x03503"), ":status 503"),
    "broken-headers": (frame(SETTINGS, 0, 0) + frame(HEADERS, 5, 1, b"\0\x7f\xff\xff\xff\xff\xff\xff"), "without an answer"),
    "huffman": (frame(SETTINGS, 0, 0) + frame(HEADERS, 5, 1, b"\x20\0\x8babcdefghijk\x01x"), "without an answer"),
    "message-cut": (frame(SETTINGS, 0, 0) + HEAD + frame(DATA, 1, 1, message(b"abc")[:-1]), "without an answer"),
    "message-long": (frame(SETTINGS, 0, 0) + HEAD + frame(DATA, 1, 1, message(b"abc") + b"x"), "without an answer"),
    "compressed": (frame(SETTINGS, 0, 0) + HEAD + frame(DATA, 1, 1, b"\1" + message(b"abc")[1:]), "without an answer"),
    "not-protobuf": (frame(SETTINGS, 0, 0) + HEAD + frame(DATA, 1, 1, b"\0\0\0\0\3\x0a\x7fx"), "cannot be read"),
    "no-answer-field": (frame(SETTINGS, 0, 0) + HEAD + frame(DATA, 1, 1, b"\0\0\0\0\0"), "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_answer_is_told_as_such(plugin: Plugin, name: str) -> None:
    frames, why = BAD[name]

    def script(peer: Connection) -> None:
        peer.request()
        peer.send(frames)
        peer.drain()

    assert why in details(plugin, script)


def test_a_closed_connection_is_told_with_what_was_said_before(plugin: Plugin) -> None:
    def script(peer: Connection) -> None:
        peer.request()
        peer.send(frame(SETTINGS, 0, 0), frame(HEADERS, 4, 1, b"\x88" + header(b"grpc-message", b"sorry")), SPLIT[:5000])

    assert "closed the connection before it answered (:status 200, grpc-message sorry)" in details(plugin, script)


@pytest.mark.parametrize("where", [0, 5, 9, 12, 30, 60])
def test_a_connection_cut_anywhere_is_no_answer(plugin: Plugin, where: int) -> None:
    def script(peer: Connection) -> None:
        peer.request()
        peer.send((frame(SETTINGS, 0, 0) + reply(b"almost"))[:where])

    assert "closed the connection" in details(plugin, script)


def test_a_peer_that_closes_without_reading_is_no_answer(plugin: Plugin) -> None:
    assert "agent" in details(plugin, lambda peer: None)


def test_a_peer_that_accepts_and_says_nothing_meets_the_deadline(plugin: Plugin) -> None:
    assert "in time" in details(plugin, Connection.drain, {**SHORT})


def test_a_peer_that_talks_for_ever_meets_the_deadline(plugin: Plugin) -> None:
    def script(peer: Connection) -> None:
        peer.request()
        peer.send(frame(SETTINGS, 0, 0))
        try:
            while True:
                peer.send(frame(PING, 0, 0, b"12345678"))
                peer.frame()
        except (OSError, EOFError):
            return

    assert "in time" in details(plugin, script, {**SHORT})


def test_a_peer_that_reads_nothing_of_a_large_request_meets_the_deadline(plugin: Plugin) -> None:
    done = threading.Event()

    def script(peer: Connection) -> None:
        peer.preface()
        peer.send(frame(SETTINGS, 0, 0, setting(4, 2**31 - 1)), frame(WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big")))
        assert done.wait(20)

    with Peer(plugin.socket, script):
        outcome = plugin.run("ADD", b" " * 3_000_000, {**SHORT})
        done.set()
    assert outcome.error["code"] == 11
    assert "too long" in outcome.error["details"]


def test_a_full_backlog_is_waited_for_until_the_deadline(plugin: Plugin) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(plugin.socket))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(plugin.socket))
            outcome = plugin.run("ADD", env=SHORT)
    assert outcome.error["code"] == 11
    assert outcome.seconds >= 0.4


def test_add_is_sent_once_and_never_again(plugin: Plugin) -> None:
    with Peer(plugin.socket, lambda peer: None) as peer:
        assert plugin.run("ADD").error["code"] == 11
    assert len(peer.connections) == 1


def test_version_does_not_call_the_agent(plugin: Plugin) -> None:
    with Peer(plugin.socket, lambda peer: None) as peer:
        assert plugin.run("VERSION").code == 0
    assert peer.connections == []
