"""What the node does with packets that leave a bridge through it: one nftables table per bridge, named as the bridge.

    postrouting   source addresses of what leaves the network are translated, where the network says so (masquerade)
    forward       nobody opens a connection to a network that somebody on this bridge may not use; answers pass

Rules match interfaces by name and no subnet, so they need no change when subnets do. nft is run where a bridge comes, goes or
changes, and not at all where no bridge needs a rule, as on a node with the networks of one tenant; each change is one transaction
of the kernel, whichever tables it touches, and may be repeated. Packets within a bridge meet no rule, also where br_netfilter shows
them.
"""

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from knitter_agent.netlink import sysctl
from knitter_common.errors import Internal, Refused
from knitter_common.model import ADMIN

_SET = "closed"
DEADLINE = 10.0  # seconds; nft takes 5-10 ms

_NONE = """\
add table inet {bridge}
delete table inet {bridge}
"""
_TABLE = """\
table inet {bridge} {{
{chains}}}
"""
_POSTROUTING = """\
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    iifname "{bridge}" oifname != "{bridge}" masquerade
  }}
"""
_FORWARD = """\
  set closed {{ type ifname; elements = {{ {closed} }}; }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{bridge}" oifname @closed ct state established,related accept
    iifname "{bridge}" oifname @closed drop
  }}
"""


@dataclass(frozen=True, slots=True)
class Realm:
    """Who may use a network."""

    tenant: str
    public: bool = False
    exported_to: frozenset[str] = frozenset()

    def reaches(self, other: "Realm") -> bool:
        """Whether everybody who may be on this network may use the other one."""
        if other.public:
            return True
        return not self.public and self.exported_to | {self.tenant} <= other.exported_to | {other.tenant, ADMIN}


@dataclass(frozen=True, slots=True)
class Rules:
    """What one bridge's table holds. `closed` are the bridges to which nobody opens a connection from it."""

    masquerade: bool = False
    closed: frozenset[str] = frozenset()

    def table(self, bridge: str) -> str:
        """The whole table in place of what there is; "" for none leaves none."""
        chains = _POSTROUTING.format(bridge=bridge) if self.masquerade else ""
        if self.closed:
            chains += _FORWARD.format(bridge=bridge, closed=_listed(self.closed))
        return _NONE.format(bridge=bridge) + (_TABLE.format(bridge=bridge, chains=chains) if chains else "")


class Ruleset:
    """The tables of this node's bridges. Not thread-safe."""

    def __init__(self) -> None:
        self._networks: dict[str, tuple[Realm, bool]] = {}  # of each bridge: who may use its network, and whether to translate
        self._installed: dict[str, Rules] = {}  # by this process
        self._stale: set[str] = set()  # bridges whose table is of an earlier process
        self._earlier: dict[str, set[str]] | None = None  # what such a process had closed and we have not heard of; None: unread
        self._spoiled = False  # somebody has taken tables away

    def enter(self, bridge: str, realm: Realm, masquerade: bool) -> None:
        """The bridge is there, or is about to be, for a network of that realm. Raises KnitterError; then all is as before."""
        before = self._networks.get(bridge)
        if before == (realm, masquerade) and not self._spoiled:
            return
        self._hear_of([bridge])
        self._networks[bridge] = realm, masquerade
        try:
            if masquerade:
                sysctl.ensure("ipv4/ip_forward", "1")
            self._apply(self._wanted(), f"rules for what leaves bridge {bridge} of tenant {realm.tenant}")
        except BaseException:
            if before is None:
                del self._networks[bridge]
            else:
                self._networks[bridge] = before
            raise
        self._spoiled = False

    def realm_of(self, bridge: str) -> Realm | None:
        """As it was entered; None for a bridge that was not."""
        known = self._networks.get(bridge)
        return known[0] if known is not None else None

    def leave(self, bridges: Iterable[str]) -> None:
        """These bridges are gone, or about to be: no table of theirs is left. The node goes on forwarding: others may need it."""
        gone = set(bridges)
        self._hear_of(gone)
        for bridge in gone:
            self._networks.pop(bridge, None)
        self._apply({**dict.fromkeys(gone, Rules()), **self._wanted()}, "rules of networks that are gone")
        for bridge in gone:
            self._installed.pop(bridge, None)

    def spoiled(self) -> list[str]:
        """The bridges whose tables somebody has taken away; they are written again with the next `enter`."""
        held = [bridge for bridge, rules in self._installed.items() if rules != Rules()]
        lost = sorted(set(held) - _tables()) if held else []
        for bridge in lost:
            self._installed[bridge] = Rules()
        self._spoiled = self._spoiled or bool(lost)
        return lost

    def _hear_of(self, bridges: Iterable[str]) -> None:
        """From now on we say what is closed to them. What an earlier process had closed to others stays so: at a start bridges are
        entered one after the other, and nobody shall slip through meanwhile."""
        if self._earlier is None:
            self._earlier = _left_over()
            self._stale = set(self._earlier)
        for closed in self._earlier.values():
            closed.difference_update(bridges)

    def _wanted(self) -> dict[str, Rules]:
        return {bridge: Rules(masquerade, self._closed(bridge, realm)) for bridge, (realm, masquerade) in self._networks.items()}

    def _closed(self, bridge: str, realm: Realm) -> frozenset[str]:
        unheard = self._earlier.get(bridge, ()) if self._earlier else ()
        return frozenset((*(other for other, (its, _) in self._networks.items() if not realm.reaches(its)), *unheard))

    def _apply(self, wanted: Mapping[str, Rules], step: str) -> None:
        """Brings the kernel to these rules, in one transaction."""
        script = "".join(
            rules.table(bridge) if bridge in self._stale else changed(bridge, self._installed.get(bridge, Rules()), rules)
            for bridge, rules in wanted.items()
        )
        if script:
            _run_nft(["-f", "-"], script, step)
        self._stale -= set(wanted)
        self._installed.update(wanted)


def _left_over() -> dict[str, set[str]]:
    """Tables that an earlier process may have made, and what was closed there. Where there is no nft it has made none."""
    try:
        told = json.loads(_run_nft(["-j", "list", "ruleset", "inet"], "", "listing nftables"))["nftables"]
    except Refused:
        return {}
    sets = [item["set"] for item in told if "set" in item]
    closed = {one["table"]: set(one.get("elem", ())) for one in sets if one["name"] == _SET}
    return {item["table"]["name"]: closed.get(item["table"]["name"], set()) for item in told if "table" in item}


def _tables() -> set[str]:
    told = _run_nft(["-j", "list", "tables", "inet"], "", "listing nftables")
    return {entry["table"]["name"] for entry in json.loads(told)["nftables"] if "table" in entry}


def changed(bridge: str, before: Rules, after: Rules) -> str:
    """What brings a table from one to the other; only a set's elements where that is enough."""
    if before == after:
        return ""
    if before.masquerade != after.masquerade or not before.closed or not after.closed:
        return after.table(bridge)
    return "".join(_elements(bridge, before.closed, after.closed))


def _elements(bridge: str, before: frozenset[str], after: frozenset[str]) -> Iterator[str]:
    if added := after - before:
        yield f"add element inet {bridge} closed {{ {_listed(added)} }}\n"
    if gone := before - after:
        yield f"delete element inet {bridge} closed {{ {_listed(gone)} }}\n"


def _listed(bridges: Iterable[str]) -> str:
    return ", ".join(f'"{bridge}"' for bridge in sorted(bridges))


def _run_nft(arguments: Sequence[str], script: str, step: str) -> str:
    """What nft prints. Raises Refused(DATA_PLANE_UNSUPPORTED) where there is none, Internal(WIRING_FAILED)."""
    try:
        done = subprocess.run(["nft", *arguments], input=script, capture_output=True, text=True, timeout=DEADLINE, check=False)
    except FileNotFoundError as error:
        said = f"{step}: nft is not installed on this node; it is needed for masquerade and to keep tenants' networks apart"
        raise Refused("DATA_PLANE_UNSUPPORTED", said, step=step) from error
    except subprocess.TimeoutExpired as error:
        raise Internal("WIRING_FAILED", f"{step}: nft did not end within {DEADLINE:g} s", step=step) from error
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["nothing"])[0]
        raise Internal("WIRING_FAILED", f"{step}: nft says: {said}", step=step)
    return done.stdout
