"""Numbers of the contract ↔ enums of the model. Both have the same numbers; 0 becomes the model's default."""

import enum
from typing import Any, NoReturn

from knitter_common.errors import Invalid
from knitter_common.model import NetworkType, NicType, ObjectState, PortSetState

NETWORK_TYPES: dict[int, NetworkType] = {0: NetworkType.BRIDGE} | {int(entry): entry for entry in NetworkType}
NIC_TYPES: dict[int, NicType] = {0: NicType.NORMAL} | {int(entry): entry for entry in NicType}
OBJECT_STATES: dict[int, ObjectState] = {0: ObjectState.ACTIVE} | {int(entry): entry for entry in ObjectState}
PORT_SET_STATES: dict[int, PortSetState] = {0: PortSetState.RESERVED} | {int(entry): entry for entry in PortSetState}


def number(entry: enum.IntEnum) -> Any:
    """The entry for a generated message, whose types only the stubs know."""
    return entry


def network_type(value: int, field: str) -> NetworkType:
    """Raises Invalid(FIELD_INVALID) for a number that this release does not know."""
    return NETWORK_TYPES.get(value) or _refuse(value, field, NetworkType)


def nic_type(value: int, field: str) -> NicType:
    """As `network_type`."""
    return NIC_TYPES.get(value) or _refuse(value, field, NicType)


def object_state(value: int, field: str) -> ObjectState:
    """As `network_type`."""
    return OBJECT_STATES.get(value) or _refuse(value, field, ObjectState)


def port_set_state(value: int, field: str) -> PortSetState:
    """As `network_type`."""
    return PORT_SET_STATES.get(value) or _refuse(value, field, PortSetState)


def _refuse(value: int, field: str, kind: type[enum.IntEnum]) -> NoReturn:
    known = ", ".join(f"{int(entry)} ({entry.name})" for entry in kind)
    raise Invalid("FIELD_INVALID", f"{field}: {value} is none of {known}", field=field, value=value)
