"""Times, spans of time and JSON values as the well-known types of protobuf."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, NullValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

_SECOND = 1_000_000_000  # nanoseconds

Json = Any  # None, bool, int, float, str, list or dict of the same


def time_to_proto(nanoseconds: int) -> Timestamp | None:
    """Nanoseconds since 1970; 0 means not set."""
    if not nanoseconds:
        return None
    message = Timestamp()
    put_time(message, nanoseconds)
    return message


def put_time(message: Timestamp, nanoseconds: int) -> None:
    """Writes a time into a part of a message that is not set; 0 leaves it so."""
    if nanoseconds:
        message.seconds, message.nanos = divmod(nanoseconds, _SECOND)


def time_from_proto(message: Timestamp) -> int:
    """Nanoseconds since 1970; 0 means not set."""
    return message.seconds * _SECOND + message.nanos


def span_to_proto(seconds: float | None) -> Duration | None:
    """A span in seconds; None means not set."""
    if seconds is None:
        return None
    nanoseconds = round(seconds * _SECOND)
    whole = abs(nanoseconds) // _SECOND
    rest = abs(nanoseconds) % _SECOND
    return Duration(seconds=whole, nanos=rest) if nanoseconds >= 0 else Duration(seconds=-whole, nanos=-rest)


def span_from_proto(message: Duration) -> float:
    """A span in seconds."""
    return message.seconds + message.nanos / _SECOND


def struct_from_json(value: Mapping[str, Json]) -> Struct:
    """A JSON object as a Struct. Numbers become doubles: whole ones are exact up to 2⁵³."""
    return Struct(fields={str(key): _to_value(entry) for key, entry in value.items()})


def json_from_struct(message: Struct) -> dict[str, Json]:
    """A Struct as a JSON object, keys in order of the alphabet; whole numbers come back as int."""
    fields = message.fields
    return {key: _from_value(fields[key]) for key in sorted(fields)}


def _to_value(value: Json) -> Value:
    if isinstance(value, str):
        return Value(string_value=value)
    if isinstance(value, bool):
        return Value(bool_value=value)
    if value is None:
        return Value(null_value=NullValue.NULL_VALUE)
    if isinstance(value, int | float):
        return Value(number_value=value)
    if isinstance(value, Mapping):
        return Value(struct_value=struct_from_json(value))
    return Value(list_value=ListValue(values=[_to_value(entry) for entry in value]))


def _from_value(message: Value) -> Json:
    match message.WhichOneof("kind"):
        case "string_value":
            return message.string_value
        case "number_value":
            number = message.number_value
            return int(number) if number.is_integer() else number
        case "bool_value":
            return message.bool_value
        case "struct_value":
            return json_from_struct(message.struct_value)
        case "list_value":
            return [_from_value(entry) for entry in message.list_value.values]
        case _:
            return None
