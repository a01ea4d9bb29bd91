"""The drivers, by network type."""

from knitter_agent.drivers.bridge import BridgeDriver
from knitter_agent.drivers.protocol import UNCHANGED, Changed, Driver, HostInterface, Mended, Wiring
from knitter_agent.drivers.routes import planned_routes, settle_defaults
from knitter_common.errors import Refused
from knitter_common.model import NetworkType

__all__ = [
    "UNCHANGED",
    "Changed",
    "Driver",
    "HostInterface",
    "Mended",
    "Wiring",
    "driver_for",
    "planned_routes",
    "settle_defaults",
]

_DRIVERS: dict[NetworkType, Driver] = {NetworkType.BRIDGE: BridgeDriver()}


def driver_for(type: NetworkType) -> Driver:
    """The driver of a network type. Raises Refused(DATA_PLANE_UNSUPPORTED) for one that this agent does not have."""
    driver = _DRIVERS.get(type)
    if driver is None:
        built = ", ".join(sorted(known.name.lower() for known in _DRIVERS))
        message = f"networks of type {type.name.lower()} are not built into this agent; it has: {built}"
        raise Refused("DATA_PLANE_UNSUPPORTED", message, type=type.name.lower())
    return driver
