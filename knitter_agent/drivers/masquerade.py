"""Source addresses of what leaves a network through its node's gateway: one nftables table per bridge, named as the bridge.

The rules match interfaces by name and no subnet, so they need no change when the network's subnets do. nft is run where a network's
bridge is made and removed, never per pod; each ruleset is one transaction of the kernel and may be repeated.
"""

import json
import subprocess
from collections.abc import Iterable, Sequence

from knitter_agent.netlink import sysctl
from knitter_common.errors import Internal, Refused

DEADLINE = 10.0  # seconds; nft takes 5-10 ms

_RULES = """\
add table inet {bridge}
delete table inet {bridge}
table inet {bridge} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    iifname "{bridge}" oifname != "{bridge}" masquerade
  }}
}}
"""
_NO_RULES = """\
add table inet {bridge}
delete table inet {bridge}
"""


def translate(bridge: str) -> None:
    """Lets the node's addresses stand for the network's outside, and the node forward IPv4 (see `bridge` about IPv6)."""
    sysctl.ensure("ipv4/ip_forward", "1")
    _apply(_RULES.format(bridge=bridge), bridge)


def present() -> set[str]:
    """The bridges that are translated now; also tables of others, by name."""
    told = run_nft(["-j", "list", "tables"], "", "listing nftables")
    return {entry["table"]["name"] for entry in json.loads(told)["nftables"] if "table" in entry}


def stop(bridges: Iterable[str]) -> None:
    """Removes what `translate` made; missing is success. The node goes on forwarding: others may count on it by now."""
    rules = "".join(_NO_RULES.format(bridge=bridge) for bridge in bridges)
    if rules:
        _apply(rules, "networks that are gone")


def _apply(rules: str, subject: str) -> None:
    run_nft(["-f", "-"], rules, f"translating addresses of {subject}")


def run_nft(arguments: Sequence[str], rules: str, step: str) -> str:
    """What nft prints. Raises Refused(DATA_PLANE_UNSUPPORTED) where there is none, Internal(WIRING_FAILED)."""
    try:
        done = subprocess.run(["nft", *arguments], input=rules, capture_output=True, text=True, timeout=DEADLINE, check=False)
    except FileNotFoundError as error:
        raise Refused("DATA_PLANE_UNSUPPORTED", f"{step}: nft is not installed on this node; it is needed for masquerade",
                      step=step) from error
    except subprocess.TimeoutExpired as error:
        raise Internal("WIRING_FAILED", f"{step}: nft did not end within {DEADLINE:g} s", step=step) from error
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["nothing"])[0]
        raise Internal("WIRING_FAILED", f"{step}: nft says: {said}", step=step)
    return done.stdout
