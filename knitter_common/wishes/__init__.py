"""Wishes: what a pod asks for, read from annotations or the CNI configuration, and what it is told afterwards. Pure."""

from knitter_common.wishes.knitter import KNITTER_KEY, NPWG_KEY
from knitter_common.wishes.npwg import read_bandwidth
from knitter_common.wishes.planner import from_annotations, from_config, names_definition, plan, with_primary
from knitter_common.wishes.status import NETWORK_PLANES_KEY, NETWORK_STATUS_KEY, network_planes, network_status

__all__ = [
    "KNITTER_KEY",
    "NETWORK_PLANES_KEY",
    "NETWORK_STATUS_KEY",
    "NPWG_KEY",
    "from_annotations",
    "from_config",
    "names_definition",
    "network_planes",
    "network_status",
    "plan",
    "read_bandwidth",
    "with_primary",
]
