"""The plugin's HTTP/2 without a socket: whatever a peer sends, it ends as an answer or as "no answer", and nothing else."""

import contextlib
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from knitter.v1 import agent_pb2
from knitter_cni import plugin
from knitter_cni.plugin import Conversation, NoAnswerError, frame

ANSWER = agent_pb2.AttachResponse(answer=agent_pb2.Answer(stdout=b"fine", exit_code=3)).SerializeToString()
MESSAGE = b"\0" + len(ANSWER).to_bytes(4, "big") + ANSWER
GOOD = (
    frame(plugin.SETTINGS, 0, 0, b"")
    + frame(plugin.HEADERS, plugin.END_HEADERS, 1, b"\x88")
    + frame(plugin.DATA, 0, 1, MESSAGE)
    + frame(plugin.HEADERS, plugin.END_HEADERS | plugin.END_STREAM, 1, b"\0\x0bgrpc-status\x010")
)

frames = st.builds(
    frame,
    st.integers(0, 12) | st.integers(0, 255),
    st.integers(0, 255),
    st.sampled_from([0, 1, 1, 1, 2, 2**31 - 1, 2**32 - 1]),
    st.binary(max_size=64) | st.just(MESSAGE) | st.just(b"\x88"),
)


def converse(data: bytes, cuts: list[int]) -> Conversation:
    """Feeds a conversation in pieces; raises what it raises."""
    conversation = Conversation(b"Attach", 60.0, b"request" * 100)
    conversation.begin()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(places):
        conversation.receive(data[begin:end])
        if conversation.done:
            break
    return conversation


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
@example(b"", [])
def test_any_octets_end_cleanly(data: bytes, cuts: list[int]) -> None:
    with contextlib.suppress(NoAnswerError):
        converse(data, cuts).closed()


@given(st.lists(frames, max_size=12), st.lists(st.integers(0, 2000), max_size=6))
def test_any_frames_end_cleanly(parts: list[bytes], cuts: list[int]) -> None:
    with contextlib.suppress(NoAnswerError):
        conversation = converse(frame(plugin.SETTINGS, 0, 0, b"") + b"".join(parts), cuts)
        str(conversation.closed())
        if conversation.done:
            plugin.read_answer(conversation.message)


@given(st.data())
def test_a_good_answer_with_one_octet_changed_ends_cleanly(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(GOOD) - 1))
    changed = bytearray(GOOD)
    changed[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(NoAnswerError):
        conversation = converse(bytes(changed), [])
        str(conversation.closed())
        if conversation.done:
            plugin.read_answer(conversation.message)


@given(st.lists(st.integers(0, 2000), max_size=20))
def test_where_the_answer_is_cut_into_pieces_does_not_matter(cuts: list[int]) -> None:
    conversation = converse(GOOD, cuts)
    assert conversation.done
    assert plugin.read_answer(conversation.message) == (b"fine", 3)


@given(st.binary(max_size=80))
def test_any_message_is_an_answer_or_none(message: bytes) -> None:
    with contextlib.suppress(NoAnswerError):
        stdout, code = plugin.read_answer(message)
        assert isinstance(stdout, bytes)
        assert 0 <= code <= 255


@given(st.dictionaries(st.text(), st.binary()), st.binary(), st.text(min_size=1))
def test_unknown_fields_of_a_newer_agent_are_skipped(environment: dict[str, bytes], extra: bytes, name: str) -> None:
    newer = agent_pb2.Invocation(environment=environment, stdin=extra, request_id=name).SerializeToString()
    shifted = b"\x0a" + plugin.varint(len(ANSWER) - 2) + ANSWER[2:] + b"\x7a" + plugin.varint(len(newer)) + newer
    assert plugin.read_answer(shifted) == (b"fine", 3)


@given(st.dictionaries(st.binary().map(lambda tail: b"CNI_" + tail), st.binary()), st.binary())
def test_an_invocation_is_what_protobuf_reads(environ: dict[bytes, bytes], stdin: bytes) -> None:
    read = agent_pb2.Invocation.FromString(plugin.invocation({**environ, b"OTHER": b"x"}, stdin, b"0123456789abcdef"))
    assert dict(read.environment) == {name.decode(): value for name, value in environ.items() if name.isascii()}
    assert (read.stdin, read.request_id) == (stdin, "0123456789abcdef")


@given(st.binary(max_size=60))
def test_any_header_block_is_read_without_harm(block: bytes) -> None:
    told: dict[bytes, bytes] = {}
    plugin.read_headers(block, told)
    assert sum(len(name) + len(value) for name, value in told.items()) <= 3 * len(block) + 10


@given(st.text())
def test_grpc_message_is_read_as_it_was_written(text: str) -> None:
    written = b"".join(bytes((octet,)) if 32 <= octet <= 126 and octet != 37 else b"%%%02X" % octet for octet in text.encode())
    assert plugin.percent_decoded(written) == text


@given(st.binary(max_size=40))
def test_any_grpc_message_is_shown(value: bytes) -> None:
    assert isinstance(plugin.percent_decoded(value), str)


@given(
    st.integers(0, 200_000),
    st.integers(0, 2**31 - 1),
    st.sampled_from([16384, 16385, 100_000]),
    st.lists(st.integers(1, 100_000), min_size=1, max_size=30),
)
def test_the_request_keeps_to_the_windows_and_is_all_sent(size: int, initial: int, limit: int, updates: list[int]) -> None:
    request = bytes(range(256)) * (size // 256 + 1)
    conversation = Conversation(b"Attach", 60.0, request)
    credit = {0: 65535, 1: 65535}
    sent = bytearray()
    ended = False

    def account(output: bytes, most: int) -> None:
        nonlocal ended
        place = output.find(b"SM\r\n\r\n") + 6 if output.startswith(b"PRI") else 0
        while place < len(output):
            length, kind, flags = int.from_bytes(output[place : place + 3], "big"), output[place + 3], output[place + 4]
            if kind == plugin.DATA:
                assert length <= most
                assert not ended
                sent.extend(output[place + 9 : place + 9 + length])
                credit[0] -= length
                credit[1] -= length
                ended = bool(flags & plugin.END_STREAM)
                assert length == 0 or min(credit.values()) >= 0
            place += 9 + length

    account(conversation.begin(), 16384)
    credit[1] += initial - 65535
    settings = b"\0\4" + initial.to_bytes(4, "big") + b"\0\5" + limit.to_bytes(4, "big")
    account(conversation.receive(frame(plugin.SETTINGS, 0, 0, settings)), limit)
    for more in [*updates, *[2**20] * 3]:
        for stream in (0, 1):
            if credit[stream] + more <= plugin.MAX_WINDOW:
                credit[stream] += more
                account(conversation.receive(frame(plugin.WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))), limit)
    assert ended
    assert bytes(sent[5:]) == request


def test_a_flood_of_data_or_headers_is_bounded() -> None:
    data = Conversation(b"Attach", 60.0, b"")
    data.receive(frame(plugin.SETTINGS, 0, 0, b"") + frame(plugin.HEADERS, plugin.END_HEADERS, 1, b"\x88"))
    with pytest.raises(NoAnswerError, match="larger than"):
        flood(data, plugin.DATA, plugin.MAX_ANSWER)
    headers = Conversation(b"Attach", 60.0, b"")
    headers.receive(frame(plugin.SETTINGS, 0, 0, b"") + frame(plugin.HEADERS, 0, 1, b""))
    with pytest.raises(NoAnswerError, match="too large"):
        flood(headers, plugin.CONTINUATION, plugin.MAX_HEADERS)


def flood(conversation: Conversation, kind: int, limit: int) -> None:
    """One frame more than `limit` octets."""
    for _ in range(limit // 16384 + 1):
        conversation.receive(frame(kind, 0, 1, b"\0" * 16384))
