"""When what was made passes packets. The kernel finishes two things in work items after it has answered:

- A carrier. It opens a link's queue and a bridge's port some time after the carrier came, and drops packets until then. Asking for
  the link makes a kernel from 6.8 on do that work first (`linkwatch_sync_dev` in rtnl_getlink); an older one is asked again.
- An IPv6 address, also one without duplicate address detection: it is configured for reception by `addrconf_dad_work`. Until then
  packets to it go to the forwarding path and are dropped. It is there when the route to it is a local one.

A pod whose first ARP or neighbour solicitation is lost waits a second for the next; 1 of 25 pods did (measured on 6.18).
"""

import time
from collections.abc import Iterable

from knitter_agent.netlink import wire
from knitter_agent.netlink.conversation import Conversation

PAUSES = (0.0, 0.0001, 0.0002, 0.0005, *(0.001,) * 50)  # seconds between looks; usually the first look finds all ready


def await_ready(talk: Conversation, links: Iterable[str], addresses: Iterable[str]) -> None:
    """Returns when the links named carry, and the IPv6 ones of the addresses (CIDRs) receive; or after 50 ms, ready or not: a pod
    is not held up for longer, and CHECK tells what is wrong with it. Link-local ones are not asked for: no route without a link
    leads to them, and they come with the others."""
    asked = (cidr for cidr in addresses if ":" in cidr and not cidr.startswith("fe80:"))
    waiting = [*map(wire.get_link, links), *map(wire.get_route, asked)]
    for pause in PAUSES:
        answers = talk.ask(*waiting) if waiting else []
        waiting = [request for request, answer in zip(waiting, answers, strict=True) if not _ready(request, answer.body)]
        if not waiting:
            return
        time.sleep(pause)


def _ready(request: wire.Request, body: bytes) -> bool:
    if not body:
        return False
    return wire.parse_link(body).carries if request.kind == wire.RTM_GETLINK else wire.is_local(body)
