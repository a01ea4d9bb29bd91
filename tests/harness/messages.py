"""Any message of the contract, made from its descriptor: for tests that send what nobody would think of.

    @given(any_message(manager_pb2.AllocateRequest, WORDS))

A third of them is wild; the others are tame: they keep to `WORDS`, values of a text field by its name, so that they come further
than the first check.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as some

Words = Mapping[str, Sequence[str]]

_DEPTH = 4  # of messages in messages; google.protobuf.Struct goes on for ever
_FD = FieldDescriptor
_SIGNED32, _SIGNED64, _UNSIGNED32, _UNSIGNED64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1), (0, 2**32 - 1), (0, 2**64 - 1)
_INTEGERS = {
    _FD.TYPE_INT32: _SIGNED32, _FD.TYPE_SINT32: _SIGNED32, _FD.TYPE_SFIXED32: _SIGNED32,
    _FD.TYPE_INT64: _SIGNED64, _FD.TYPE_SINT64: _SIGNED64, _FD.TYPE_SFIXED64: _SIGNED64,
    _FD.TYPE_UINT32: _UNSIGNED32, _FD.TYPE_FIXED32: _UNSIGNED32, _FD.TYPE_UINT64: _UNSIGNED64, _FD.TYPE_FIXED64: _UNSIGNED64,
}  # fmt: skip
_WILD: dict[int, some.SearchStrategy[Any]] = {
    _FD.TYPE_BOOL: some.booleans(),
    _FD.TYPE_STRING: some.text(max_size=12) | some.sampled_from(["", "/", "a/b", "a/b/c", "\0", "ä", "x" * 300, "%s{}"]),
    _FD.TYPE_BYTES: some.binary(max_size=24),
    _FD.TYPE_DOUBLE: some.floats(width=64),
    _FD.TYPE_FLOAT: some.floats(width=32),
    _FD.TYPE_ENUM: some.integers(0, 9) | some.sampled_from([-1, 99, 2**31 - 1]),
    **{kind: some.integers(0, 3) | some.sampled_from(ends) | some.integers(*ends) for kind, ends in _INTEGERS.items()},
}
_TAME = {**_WILD, _FD.TYPE_ENUM: some.integers(0, 2), **{kind: some.integers(0, 2) for kind in _INTEGERS}}


class _Words(dict[str, Sequence[str]]):
    """Short in hypothesis' words."""

    def __repr__(self) -> str:
        return "WORDS"


def any_message(kind: type[Any], words: Words | None = None) -> some.SearchStrategy[Any]:
    """Messages of that class; each field is there or not. What the descriptor gains later is covered by itself."""
    return _messages(kind.DESCRIPTOR.full_name, _Words(words or {}))


@some.composite
def _messages(draw: Any, name: str, words: Words) -> Any:
    maker = _Maker(draw, words, tame=bool(draw(some.integers(0, 2))))
    return maker.message(descriptor_pool.Default().FindMessageTypeByName(name), 0)


class _Maker:
    """Draws one message."""

    def __init__(self, draw: Any, words: Words, tame: bool) -> None:
        self._draw, self._words, self._tame = draw, words, tame

    def message(self, descriptor: Descriptor, depth: int) -> Any:
        kind = message_factory.GetMessageClass(descriptor)
        made = kind()
        for field in self._chosen(descriptor):
            if field.message_type is None or depth < _DEPTH:
                made.MergeFrom(kind(**{field.name: self._field(field, depth)}))
        return made

    def _chosen(self, descriptor: Descriptor) -> Iterator[FieldDescriptor]:
        """The fields that are set: of a oneof at most one."""
        for oneof in descriptor.oneofs:
            if self._draw(some.integers(0, 7)):
                yield self._draw(some.sampled_from(list(oneof.fields)))
        for field in descriptor.fields:
            if field.containing_oneof is None and self._draw(some.integers(0, 7)) < self._weight(field):
                yield field

    def _weight(self, field: FieldDescriptor) -> int:
        """Of eight times, how often a field is set."""
        if not self._tame:
            return 4
        if field.name in self._words:
            return 7
        return 6 if field.message_type is not None and not field.is_repeated else 2

    def _field(self, field: FieldDescriptor, depth: int) -> Any:
        message = field.message_type
        if not field.is_repeated:
            return self._one(field, depth)
        count = self._draw(some.integers(0, 2))
        if message is not None and message.GetOptions().map_entry:
            key, value = message.fields_by_name["key"], message.fields_by_name["value"]
            return {self._one(key, depth): self._one(value, depth) for _ in range(count)}
        return [self._one(field, depth) for _ in range(count)]

    def _one(self, field: FieldDescriptor, depth: int) -> Any:
        if field.message_type is not None:
            return self.message(field.message_type, depth + 1)
        likely = self._words.get(field.name, ()) if field.type == _FD.TYPE_STRING else ()
        if likely and (self._tame or self._draw(some.booleans())):
            return self._draw(some.sampled_from(likely))
        if field.type == _FD.TYPE_STRING and self._tame:
            return ""
        return self._draw((_TAME if self._tame else _WILD)[field.type])
