"""What a port may send and receive; pure. From what was asked, in bits, to what a link is given, in bytes."""

from knitter_agent.netlink.shaping import Limit
from knitter_common.model import Bandwidth

_BURST_SECONDS = 0.01  # a burst that nobody chose holds what the rate gives in this time, and some packets at least
_BURST_PACKETS = 10


def planned_limits(bandwidth: Bandwidth | None, mtu: int) -> tuple[Limit | None, Limit | None]:
    """Towards the pod, and from it; None where there is no limit."""
    if bandwidth is None:
        return None, None
    ingress = _limit(bandwidth.ingress_rate, bandwidth.ingress_burst, mtu)
    return ingress, _limit(bandwidth.egress_rate, bandwidth.egress_burst, mtu)


def _limit(rate: int, burst: int, mtu: int) -> Limit | None:
    """A burst below one packet would let nothing through."""
    if not rate:
        return None
    octets = max(rate // 8, 1)
    usual = max(int(octets * _BURST_SECONDS), _BURST_PACKETS * mtu)
    return Limit(octets, max(burst // 8, 2 * mtu) if burst else usual)
