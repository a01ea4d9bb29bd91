"""Segmentation ids: VNIs of overlays, VLAN ids of each physical network. Lowest first, none twice, none leaked.

An id that a network gave up rests: nodes may still carry its packets. One that rests goes out only when nothing else is left, and
none while a node that was declared gone has not said that it carries the network no more, and is not forgotten (design.md,
invariant 3).
"""

import time
from collections.abc import Callable

from knitter_common.errors import Exhausted, Invalid, Refused
from knitter_common.model import Network, NetworkType
from knitter_manager import keys
from knitter_manager.state import Cluster

_VLAN_TYPES = (NetworkType.VLAN, NetworkType.SRIOV)
_LIMITS = {"vxlan": (1, 16_777_215), "vlan": (1, 4094)}


class Segments:
    """`vni` and `vlans` are ranges "low-high"; `vlans` by physical network, "*" for all others. `rest` is in seconds, on `wall`
    (nanoseconds since 1970), since the store keeps when a rest began."""

    def __init__(
        self, cluster: Cluster, vni: str, vlans: dict[str, str], rest: float, wall: Callable[[], int] = time.time_ns
    ) -> None:
        self._cluster, self._rest, self._wall = cluster, rest, wall
        self._vni = parse_range("segmentation.vni", vni, "vxlan")
        self._vlans = {name: parse_range(f"segmentation.vlans.{name}", text, "vlan") for name, text in vlans.items()}

    def choose(self, network: Network) -> tuple[int, dict[str, int], dict[str, bytes]]:
        """(id, conditions, puts) for a network that has none yet; the id is 0 where its type needs none.

        Raises Refused(SEGMENT_TAKEN), Exhausted(SEGMENT_EXHAUSTED).
        """
        number = network.segmentation_id
        if not number and not self._needs(network):
            return 0, {}, {}
        space = space_of(network)
        if number:
            self._refuse_taken(space, number)
        else:
            number = self._free(network, space)
        key = keys.vid(space, number)
        current = self._cluster.vids.get(key)
        return number, {key: current.revision if current else 0}, {key: network.id.encode()}

    def _refuse_taken(self, space: str, number: int) -> None:
        taken = self._cluster.vids.get(keys.vid(space, number))
        if taken is None:
            return
        way = "choose another, or none to have one chosen"
        if not taken.value.startswith(b"rest "):
            other = self._cluster.networks.get(taken.value.decode())
            path = other.network.path if other is not None else "another network"
            said = f"segmentationId: {number} is that of network {path}; {way}"
            raise Refused("SEGMENT_TAKEN", said, field="segmentationId", value=number, network=path)
        if nodes := self._carriers(_network_of(taken.value)):
            said = f"segmentationId: node {', '.join(nodes)} may still carry {number}; {way}"
            raise Refused("SEGMENT_TAKEN", said, field="segmentationId", value=number, node=nodes[0])

    def give_up(self, network: Network) -> dict[str, bytes]:
        """The puts with which a network that is deleted gives its id up."""
        if not network.segmentation_id:
            return {}
        return {keys.vid(space_of(network), network.segmentation_id): f"rest {self._wall()} {network.id}".encode()}

    def rested(self) -> list[str]:
        """The keys of ids whose rest is over, which need no record any more."""
        resting = [record for record in self._cluster.vids.values() if record.value.startswith(b"rest ")]
        return [record.key for record in resting if self._is_rested(record.value)]

    @staticmethod
    def _needs(network: Network) -> bool:
        if network.type is NetworkType.VXLAN:
            return True
        return network.type is NetworkType.VLAN and not network.vlan_transparent and not network.external

    def _free(self, network: Network, space: str) -> int:
        low, high = self._vni if space == "vxlan" else self._vlans.get(network.physical_network) or self._vlans["*"]
        resting: list[tuple[int, int]] = []
        carried: list[tuple[int, str]] = []
        for number in range(low, high + 1):
            record = self._cluster.vids.get(keys.vid(space, number))
            if record is None or (record.value.startswith(b"rest ") and self._is_rested(record.value)):
                return number
            if record.value.startswith(b"rest "):
                if nodes := self._carriers(_network_of(record.value)):
                    carried.append((number, nodes[0]))
                else:
                    resting.append((_since(record.value), number))
        if resting:
            return min(resting)[1]
        what = "VNIs" if space == "vxlan" else f"VLAN ids of {network.physical_network}"
        said = f"segmentationId: all {what} from {low} to {high} are used; widen the range, or delete networks"
        if carried:
            said += f"; node {carried[0][1]} may still carry {carried[0][0]}: forget it if it is gone for good"
        raise Exhausted("SEGMENT_EXHAUSTED", said, low=low, high=high)

    def _is_rested(self, value: bytes) -> bool:
        return self._wall() - _since(value) >= self._rest * 1e9 and not self._carriers(_network_of(value))

    def _carriers(self, network_id: str) -> list[str]:
        """Nodes that are gone, and have not said that they carry the network no more."""
        prefix = keys.owed(network_id, "")
        return sorted(key.removeprefix(prefix) for key in self._cluster.owed if key.startswith(prefix))


def _since(value: bytes) -> int:
    """When the rest began, in nanoseconds since 1970."""
    return int(value.split(b" ")[1])


def _network_of(value: bytes) -> str:
    """The id of the network that gave it up."""
    return value.decode().split(" ")[2]


def space_of(network: Network) -> str:
    """Ids are unique in it."""
    return "vxlan" if network.type is NetworkType.VXLAN else f"vlan.{network.physical_network}"


def parse_range(field: str, text: str, kind: str) -> tuple[int, int]:
    """ "5000-14999". Raises Invalid(FIELD_INVALID)."""
    low, dash, high = text.partition("-")
    least, most = _LIMITS[kind]
    if not (dash and low.isdigit() and high.isdigit() and least <= int(low) <= int(high) <= most):
        said = f'{field}: {text!r} is no range of ids; write for example "5000-14999", within {least}-{most}'
        raise Invalid("FIELD_INVALID", said, field=field, value=text)
    return int(low), int(high)
