"""What a link may send: a token bucket (tbf) as its root queueing discipline. Messages as bytes; layouts of linux/pkt_sched.h.

A link shapes what leaves it: the pod's end of a pair what comes from the pod, the end on the node what goes towards it. Both go
with the pair, so there is nothing to undo.
"""

import errno
import struct
from dataclasses import dataclass

from knitter_agent.netlink.wire import NLM_F_CREATE, Request, attribute, attributes, number, text

RTM_NEWQDISC, RTM_GETQDISC = 36, 38
NLM_F_ECHO, NLM_F_REPLACE = 0x8, 0x100
TC_H_ROOT = 0xFFFFFFFF
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
TC_LINKLAYER_ETHERNET = 1  # the kernel computes with the rate itself, and asks for no table of ours

LATENCY = 0.05  # seconds that a packet may wait in the queue before the newest are dropped
_MOST = 2**32 - 1  # what fields of 32 bits hold

_HEADER = struct.Struct("=BxxxiIII")
_RATE = struct.Struct("=BBHhHI")
_REST = struct.Struct("=12xIII")


@dataclass(frozen=True, slots=True)
class Limit:
    """`rate` in bytes per second, `burst` in bytes, both above 0."""

    rate: int
    burst: int


def limit_link(index: int, limit: Limit, step: str) -> Request:
    """Has the link of that index send no more than the limit; may be repeated."""
    burst, queue = min(limit.burst, _MOST), min(int(limit.rate * LATENCY) + limit.burst, _MOST)
    parameters = _RATE.pack(0, TC_LINKLAYER_ETHERNET, 0, 0, 0, min(limit.rate, _MOST)) + _REST.pack(queue, 0, 0)
    options = attribute(TCA_TBF_PARMS, parameters) + number(TCA_TBF_BURST, burst)
    if limit.rate > _MOST:
        options += attribute(TCA_TBF_RATE64, struct.pack("=Q", limit.rate))
    payload = _HEADER.pack(0, index, 0, TC_H_ROOT, 0) + text(TCA_KIND, "tbf") + attribute(TCA_OPTIONS, options)
    return Request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, payload, step)


def get_root(index: int) -> Request:
    """The root queueing discipline of the link of that index; that there is none of note is tolerated."""
    payload = _HEADER.pack(0, index, 0, TC_H_ROOT, 0)
    # without "echo" the kernel tells its listeners alone
    return Request(RTM_GETQDISC, NLM_F_ECHO, payload, "looking for a link's limit", frozenset((errno.ENOENT, errno.ENODEV)))


def parse_rate(body: bytes) -> int:
    """The rate in bytes per second that an RTM_NEWQDISC limits to, 0 where it limits nothing or there is none."""
    if not body:
        return 0
    found = dict(attributes(body, _HEADER.size))
    if found.get(TCA_KIND, b"").rstrip(b"\0") != b"tbf":
        return 0
    options = dict(attributes(found.get(TCA_OPTIONS, b""), 0))
    if TCA_TBF_RATE64 in options:
        return int.from_bytes(options[TCA_TBF_RATE64], "little")
    return int(_RATE.unpack_from(options[TCA_TBF_PARMS])[-1])
