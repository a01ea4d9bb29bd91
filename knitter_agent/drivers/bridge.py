"""Networks of type bridge: one Linux bridge per network and node, one veth pair per port, the pod's end born inside its namespace.

What is the network's on the node (the bridge and the gateways' addresses on it) is made with its first port and goes with its
last. The node forwards for a bridge only where it carries gateways: IPv4 by the bridge's own `forwarding`; IPv6 knows only a switch
for the whole node (net.ipv6.conf.all.forwarding, which also ends router discovery on uplinks), so that one is left to the operator,
as is bridge-nf-call-iptables. Router advertisements are not accepted, neither on the bridge nor in the pod: what a
pod is told comes from its plan, not from a neighbour.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence, Set

from knitter_agent.drivers.bridge_check import differences
from knitter_agent.drivers.bridge_intent import SOMEBODY, BridgeIntent
from knitter_agent.drivers.protocol import UNCHANGED, Changed, HostInterface, Mended, Wiring
from knitter_agent.drivers.readiness import await_ready
from knitter_agent.drivers.ruleset import Ruleset
from knitter_agent.netlink import Kernel, Namespace, sysctl, wire
from knitter_agent.netlink.shaping import Limit, get_root, limit_link, parse_rate
from knitter_common import failpoints
from knitter_common.errors import Exists, KnitterError, Refused
from knitter_common.model import Network, Port

DOOMED = 0x6B6E6974  # the link group in which links of ours are gathered to be deleted in one step


class BridgeDriver:
    """See `Driver`. `_bridges` is held while a bridge may come or go: from finding it until it has a port, and from finding it idle
    until it is deleted. So an ADD waits for a deletion only where that takes a network's last port."""

    def __init__(self) -> None:
        self._bridges = threading.Lock()
        self._rules = Ruleset()

    def plan(self, port: Port, attachment: str) -> Wiring:
        """Pure; see `BridgeIntent`."""
        return BridgeIntent.plan(port, attachment).wiring()

    def follow(self, wiring: Wiring, network: Network) -> Wiring:
        """Pure; see `BridgeIntent`."""
        return BridgeIntent.of(wiring).follow(network).wiring()

    def settle(self, kernel: Kernel, changes: Sequence[tuple[Wiring, Wiring]]) -> None:
        """The bridges' MTU and gateways, and the rules for what leaves them."""
        before: dict[str, list[BridgeIntent]] = {}
        after: dict[str, BridgeIntent] = {}
        for old, new in changes:
            intent = BridgeIntent.of(new)
            after[intent.bridge] = intent
            before.setdefault(intent.bridge, []).append(BridgeIntent.of(old))
        with self._bridges:
            for bridge, intent in after.items():
                self._settle(kernel, before[bridge], intent)

    def _settle(self, kernel: Kernel, before: Sequence[BridgeIntent], after: BridgeIntent) -> None:
        link = _look(kernel, after.bridge)
        if link is None or not after.owns_bridge(link):
            return  # repair makes it, or tells
        stale = {gateway for intent in before for gateway in intent.gateways} - set(after.gateways)
        _set_up_bridge(kernel, after, link.index)
        kernel.talk.ask(
            *_gateways(after, link.index),
            *(wire.drop_address(link.index, gateway, f"taking gateway {gateway} from bridge {after.bridge}") for gateway in stale),
        )
        self._rule(after)

    def _rule(self, intent: BridgeIntent) -> None:
        if intent.external:
            return  # what somebody else's bridge leads to is theirs to say
        known = self._rules.realm_of(intent.bridge)
        vague = SOMEBODY in intent.exported_to and known is not None and bool(known.exported_to)
        self._rules.enter(intent.bridge, known if known is not None and vague else intent.realm, intent.masquerade)

    def attach(self, kernel: Kernel, sandbox: Namespace, wiring: Wiring) -> tuple[HostInterface, ...]:
        """A few exchanges with the kernel: the bridge, the pair, its end on the node, its end in the pod, whether packets pass."""
        intent = BridgeIntent.of(wiring)
        with self._bridges:
            self._rule(intent)
            bridge = _find_bridge(kernel, intent) or _make_bridge(kernel, intent)
            failpoints.at("wire.bridge")
            host, peer = self._make_pair(kernel, sandbox, intent, bridge)
        failpoints.at("wire.pair")
        naming = wire.set_link(host, f"naming link {intent.host}", alias=intent.host_alias)
        limiting = _limited(host, intent.ingress, f"limiting what goes to {intent.interface}")
        kernel.talk.ask(naming, wire.no_link_local(host), *limiting)
        sandbox.run(lambda: _prepare_sandbox_end(intent))
        failpoints.at("wire.named")
        sandbox.talk.ask(*_sandbox_end(intent, peer))
        failpoints.at("wire.addressed")
        await_ready(kernel.talk, (intent.host, intent.bridge), intent.gateways)
        await_ready(sandbox.talk, (), intent.addresses)
        return (HostInterface(intent.host, intent.host_mac),)

    def detach(self, kernel: Kernel, wirings: Sequence[Wiring]) -> None:
        """All links, and the bridges left without a port, in one deletion."""
        intents = [BridgeIntent.of(wiring) for wiring in wirings]
        doomed = _own_links(kernel, intents)
        if any(True for _ in _unused(kernel, intents, doomed)):
            with self._bridges:
                doomed |= self._idle_bridges(kernel, intents, doomed)
                failpoints.at("unwire.chosen")
                _delete(kernel, doomed)
        else:
            _delete(kernel, doomed)

    def check(self, kernel: Kernel, sandbox: Namespace, wiring: Wiring, changed: Changed = UNCHANGED) -> Sequence[str]:
        """See `bridge_check`."""
        return differences(kernel, sandbox, BridgeIntent.of(wiring), changed)

    def repair(self, kernel: Kernel, wirings: Sequence[Wiring]) -> Mended:
        """Bridges, their gateways, and the ports on them."""
        done: list[str] = []
        lost: list[str] = []
        intents = [BridgeIntent.of(wiring) for wiring in wirings]
        with self._bridges:
            done += [f"the rules for what leaves bridge {bridge} are there again" for bridge in self._rules.spoiled()]
        for intent in intents:
            try:
                with self._bridges:
                    self._rule(intent)
                    _repair(kernel, intent, done, lost)
            except KnitterError as error:
                lost.append(f"interface {intent.interface}: {error.message}")
        return Mended(tuple(done), tuple(lost))

    def _make_pair(
        self, kernel: Kernel, sandbox: Namespace, intent: BridgeIntent, bridge: int, again: bool = True
    ) -> tuple[int, int]:
        """The indices of the pair's ends, on the node and in the sandbox."""
        made, *_ = kernel.talk.ask(
            wire.new_veth(intent.host, intent.host_mac, intent.mtu, bridge, intent.interface, intent.mac, sandbox.fd),
            *_gateways(intent, bridge),
        )
        if not made.errno:
            # looking for a link that has no carrier yet makes the kernel stop its queue first, which takes a grace period
            link = wire.parse_link(made.body or kernel.talk.ask(wire.get_link(intent.host))[0].body)
            return link.index, link.peer
        (found,) = sandbox.talk.ask(wire.get_link(intent.interface))
        if found.body:
            _delete(kernel, self._idle_bridges(kernel, [intent], set()))
            said = f"interface {intent.interface} exists already in {sandbox.path}; nothing was changed"
            raise Exists("CNI_INTERFACE_EXISTS", said, interface=intent.interface, netns=sandbox.path)
        leftover = _own_links(kernel, [intent])
        if not leftover or not again:
            raise Refused(
                "LINK_FOREIGN",
                f"link {intent.host} exists on the node and is not Knitter's; remove or rename it",
                interface=intent.interface,
                step="making the pair",
            )
        _delete(kernel, leftover)  # of the same attachment, in a sandbox that was replaced
        return self._make_pair(kernel, sandbox, intent, bridge, again=False)

    def _idle_bridges(self, kernel: Kernel, intents: Iterable[BridgeIntent], doomed: Set[int]) -> set[int]:
        """The indices of bridges of ours that have no port but the doomed ones. No rule is about them from now on."""
        unused = list(_unused(kernel, intents, doomed))
        self._rules.leave(one.bridge for one, _ in unused)
        return {link.index for _, link in unused if link is not None}


def _find_bridge(kernel: Kernel, intent: BridgeIntent) -> int:
    """The index of the network's bridge, up and with the network's MTU; 0 where there is none. One that is somebody else's is
    taken as it is."""
    link = _look(kernel, intent.bridge)
    if intent.external:
        if link is not None and link.kind == "bridge":
            return link.index
        what = "is not on this node; make it" if link is None else f"of this node is a {link.kind or 'device'}; remove it"
        raise Refused(
            "DATA_PLANE_UNSUPPORTED",
            f"the external network's bridge {intent.bridge} {what}, or correct physicalNetwork",
            interface=intent.interface,
            step="finding the bridge",
        )
    if link is None:
        return 0
    if not intent.owns_bridge(link):
        raise Refused(
            "LINK_FOREIGN",
            f"link {intent.bridge} exists and is not Knitter's: it is a {link.kind or 'device'} with "
            f"alias {link.alias!r}; remove or rename it",
            interface=intent.interface,
            step="finding the bridge",
        )
    if (link.up, link.alias, link.mtu) != (True, intent.bridge_alias, intent.bridge_mtu):
        _set_up_bridge(kernel, intent, link.index)
    return link.index


def _make_bridge(kernel: Kernel, intent: BridgeIntent) -> int:
    _, seen = kernel.talk.ask(wire.new_bridge(intent.bridge, intent.bridge_mac), wire.get_link(intent.bridge))
    index = wire.parse_link(seen.body).index
    failpoints.at("wire.new-bridge")
    _set_up_bridge(kernel, intent, index)
    return index


def _set_up_bridge(kernel: Kernel, intent: BridgeIntent, index: int) -> None:
    """May be repeated. A bridge that is up has had all of it, so one whose making was cut short is found by being down."""
    name = intent.bridge
    kernel.talk.ask(
        wire.set_link(index, f"naming and sizing bridge {name}", alias=intent.bridge_alias, mtu=intent.bridge_mtu),
        wire.no_link_local(index),
    )
    sysctl.ensure(f"ipv6/conf/{name}/accept_ra", "0", optional=True)
    if intent.gateways:
        sysctl.ensure(f"ipv4/conf/{name}/forwarding", "1")
    if any(":" in gateway for gateway in intent.gateways):
        sysctl.ensure(f"ipv6/conf/{name}/disable_ipv6", "0")
        sysctl.ensure(f"ipv6/conf/{name}/forwarding", "1")
    kernel.talk.ask(wire.set_link(index, f"setting up bridge {name}", up=True))


def _gateways(intent: BridgeIntent, bridge: int) -> list[wire.Request]:
    return [wire.new_address(bridge, gateway, f"giving gateway {gateway} to bridge {intent.bridge}") for gateway in intent.gateways]


def _prepare_sandbox_end(intent: BridgeIntent) -> None:
    """Settings that only the pod's side of /proc has; runs inside the sandbox."""
    sysctl.ensure(f"ipv6/conf/{intent.interface}/accept_ra", "0", optional=True)
    if intent.with_ipv6:
        sysctl.ensure(f"ipv6/conf/{intent.interface}/disable_ipv6", "0")


def _sandbox_end(intent: BridgeIntent, index: int) -> Iterator[wire.Request]:
    name = intent.interface
    yield wire.no_link_local(index)
    yield wire.set_link(index, f"setting up {name}", up=True)
    if intent.link_local:
        yield wire.new_address(index, intent.link_local, f"giving {intent.link_local} to {name}")
    for address in intent.addresses:
        yield wire.new_address(index, address, f"giving {address} to {name}")
    yield from _limited(index, intent.egress, f"limiting what comes from {name}")
    for route in intent.routes:
        yield wire.new_route(
            index,
            route.destination,
            route.gateway,
            route.metric,
            route.mtu,
            route.onlink,
            f"routing {route.destination} through {name}",
        )


def _limited(index: int, limit: Limit | None, step: str) -> Iterator[wire.Request]:
    if limit is not None:
        yield limit_link(index, limit, step)


def _look(kernel: Kernel, name: str) -> wire.Link | None:
    (answer,) = kernel.talk.ask(wire.get_link(name))
    return wire.parse_link(answer.body) if answer.body else None


def _own_links(kernel: Kernel, intents: Iterable[BridgeIntent]) -> set[int]:
    """The indices of the pairs' ends on the node that exist and are ours."""
    by_name = {intent.host: intent for intent in intents}
    answers = kernel.talk.ask(*map(wire.get_link, by_name))
    links = [wire.parse_link(answer.body) for answer in answers if answer.body]
    return {link.index for link in links if by_name[link.name].owns_host(link)}


def _unused(kernel: Kernel, intents: Iterable[BridgeIntent], doomed: Set[int]) -> Iterator[tuple[BridgeIntent, wire.Link | None]]:
    """An intent for each bridge that is gone, or is ours and has no port but the doomed ones; and the bridge."""
    for intent in {intent.bridge: intent for intent in intents if not intent.external}.values():
        link = _look(kernel, intent.bridge)
        if link is None or (intent.owns_bridge(link) and _ports(kernel, link.index) <= doomed):
            yield intent, link


def _ports(kernel: Kernel, bridge: int) -> set[int]:
    return {wire.link_index(body) for body in kernel.talk.dump(wire.dump_ports(bridge))}


def _delete(kernel: Kernel, doomed: Set[int]) -> None:
    """Deletes links in one step of the kernel, which waits for its grace period once (about 16 ms) whatever their number."""
    if doomed:
        marks = [wire.mark_link(index, DOOMED) for index in doomed]
        kernel.talk.ask(*marks, wire.delete_group(DOOMED))


def _repair(kernel: Kernel, intent: BridgeIntent, done: list[str], lost: list[str]) -> None:
    host = _look(kernel, intent.host)
    if host is None or not intent.owns_host(host):
        lost.append(f"interface {intent.interface}: its other end {intent.host} is gone from the node; the pod must be made anew")
        return
    before = _look(kernel, intent.bridge)
    bridge = _find_bridge(kernel, intent) or _make_bridge(kernel, intent)
    if before is None:
        done.append(f"bridge {intent.bridge} was gone and is made again")
    elif not before.up and not intent.external:
        done.append(f"bridge {intent.bridge} is up again")
    for gateway, answer in zip(intent.gateways, kernel.talk.ask(*_gateways(intent, bridge)), strict=True):
        if not answer.errno:
            done.append(f"bridge {intent.bridge} has its gateway {gateway} again")
    if intent.ingress is not None and parse_rate(kernel.talk.ask(get_root(host.index))[0].body) != intent.ingress.rate:
        kernel.talk.ask(*_limited(host.index, intent.ingress, f"limiting what goes to {intent.interface}"))
        done.append(f"link {intent.host} of interface {intent.interface} has its limit again")
    if (host.master, host.up, host.mtu) != (bridge, True, intent.mtu):
        step = f"putting {intent.host} back on bridge {intent.bridge}"
        kernel.talk.ask(wire.set_link(host.index, step, up=True, mtu=intent.mtu, master=bridge))
        done.append(f"link {intent.host} of interface {intent.interface} is up on bridge {intent.bridge} with MTU {intent.mtu}")
