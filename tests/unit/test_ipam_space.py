"""Which address goes out next: pools and exclusions respected, the rested first, no address twice."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from knitter_common.model import Pool, Subnet
from knitter_manager import numbers
from knitter_manager.ipam.mac import port_identity
from knitter_manager.ipam.space import Space, Taken, take_any

REST = 30.0


def drain(space: Space, now: float = 0.0) -> list[str]:
    """Everything that can be taken, in order."""
    found = []
    while (taken := space.take(range(len(space.pools)), now, REST)) is not None:
        found.append(numbers.to_text(space.version, taken.address))
    return found


@pytest.mark.parametrize(
    ("subnet", "expected"),
    [
        (Subnet("10.0.0.0/29"), ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]),
        (Subnet("10.0.0.0/29", gateway="10.0.0.1", exclude=("10.0.0.4/31",)), ["10.0.0.2", "10.0.0.3", "10.0.0.6"]),
        (Subnet("10.0.0.0/31"), ["10.0.0.0", "10.0.0.1"]),
        (Subnet("10.0.0.0/32"), ["10.0.0.0"]),
        (Subnet("10.0.0.0/31", gateway="10.0.0.0"), ["10.0.0.1"]),
        (Subnet("2001:db8::/126"), ["2001:db8::1", "2001:db8::2", "2001:db8::3"]),
        (Subnet("2001:db8::/127"), ["2001:db8::", "2001:db8::1"]),
        (Subnet("2001:db8::5/128"), ["2001:db8::5"]),
        (
            Subnet("10.0.0.0/24", pools=(Pool("10.0.0.20", "10.0.0.21"), Pool("10.0.0.10", "10.0.0.11")), exclude=("10.0.0.20",)),
            ["10.0.0.21", "10.0.0.10", "10.0.0.11"],
        ),
        (Subnet("10.0.0.0/24", pools=(Pool("10.0.0.0", "10.0.0.1"), Pool("10.0.0.254", "10.0.0.255"))), ["10.0.0.1", "10.0.0.254"]),
        (Subnet("10.0.0.0/29", exclude=("10.0.0.0/29",)), []),
    ],
)
def test_what_a_subnet_hands_out(subnet: Subnet, expected: list[str]) -> None:
    assert drain(Space(subnet)) == expected


@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "2001:db8::/64", "2001:db8::/32"])
def test_huge_pools_are_arithmetic(cidr: str) -> None:
    network = ipaddress.ip_network(cidr)
    space = Space(Subnet(cidr, exclude=(str(network[0] + 1), str(ipaddress.ip_network((network[0], 112 if ":" in cidr else 16))))))
    taken = space.take([0], 0.0, REST)
    assert taken is not None
    assert taken.address >= int(network[0]) + 65536


def test_longest_rested_first_and_resting_last() -> None:
    space = Space(Subnet("10.0.0.0/29"))
    drain(space)
    a, b, c = (space.first + offset for offset in (4, 2, 5))
    for at, address in enumerate((a, b, c)):
        space.rest(address, float(at * 10), mark=at + 7)
    order = [space.take([0], 35.0, REST) for _ in range(3)]
    assert [(one.address, one.mark) for one in order if one] == [(a, 7), (b, 8), (c, 9)]
    assert space.take([0], 35.0, REST) is None


def test_none_that_rests_goes_out_while_another_pool_has_one() -> None:
    space = Space(Subnet("10.0.0.0/24", pools=(Pool("10.0.0.10", "10.0.0.10"), Pool("10.0.0.20", "10.0.0.21"))))
    first = space.take([0, 1], 0.0, REST)
    assert first is not None
    space.rest(first.address, 0.0, mark=1)
    got = [space.take([0, 1], 1.0, REST) for _ in range(3)]
    assert [numbers.to_text(4, one.address) for one in got if one] == ["10.0.0.20", "10.0.0.21", "10.0.0.10"]


def test_none_that_rests_goes_out_while_another_subnet_has_one() -> None:
    full, other = Space(Subnet("10.0.0.0/31")), Space(Subnet("10.0.1.0/31"))
    both = [(full, [0]), (other, [0])]
    first, second = (take_any(both, 0.0, REST) for _ in range(2))
    assert first is not None
    assert second is not None
    full.rest(second[1].address, 0.5, 0)
    full.rest(first[1].address, 1.0, 0)
    got = [take_any(both, 2.0, REST) for _ in range(5)]
    texts = [numbers.to_text(4, taken.address) for _, taken in filter(None, got)]
    assert texts == ["10.0.1.0", "10.0.1.1", "10.0.0.1", "10.0.0.0"]
    assert got[4] is None


def test_a_change_of_writer_begins_every_rest_anew() -> None:
    space = Space(Subnet("10.0.0.0/30"))
    drain(space)
    space.rest(space.first + 1, 0.0, mark=5)
    space.settle(100.0, REST)
    assert space.usage(0).resting == 0
    space.rest_anew(100.0)
    assert space.settle(120.0, REST) == []
    assert space.usage(0).resting == 1
    assert space.settle(131.0, REST) == [(space.first + 1, 5)]


def test_undo_restores_the_order() -> None:
    space = Space(Subnet("10.0.0.0/29"))
    drain(space)
    for at, offset in enumerate((3, 1, 2)):
        space.rest(space.first + offset, float(at), mark=1)
    taken = [space.take([0], 100.0, REST) for _ in range(2)]
    for one in taken:
        assert one is not None
        space.undo(one)
    again = [space.take([0], 100.0, REST) for _ in range(3)]
    assert [one.address - space.first for one in again if one] == [3, 1, 2]


def test_a_live_change_keeps_holders_and_names_who_would_be_lost() -> None:
    space = Space(Subnet("10.0.0.0/24", pools=(Pool("10.0.0.10", "10.0.0.19"),)))
    for _ in range(5):
        space.take([0], 0.0, REST)
    space.rest(space.first + 11, 0.0, mark=3)
    wider = Subnet("10.0.0.0/24", pools=(Pool("10.0.0.12", "10.0.0.29"),), exclude=("10.0.0.20",))
    assert [address - space.first for address in space.lost_by(wider)] == [10]
    new = space.reshaped(wider)
    assert new.usage(0).held == 3
    assert new.is_held(space.first + 10)
    assert drain(new)[0] == "10.0.0.15"


class SpaceMachine(RuleBasedStateMachine):
    """A space against the plainest of models."""

    def __init__(self) -> None:
        super().__init__()
        pools = (Pool("10.0.0.8", "10.0.0.12"), Pool("10.0.0.2", "10.0.0.4"))
        self.subnet = Subnet("10.0.0.0/28", gateway="10.0.0.9", pools=pools, exclude=("10.0.0.11",))
        self.space, self.now = Space(self.subnet), 0.0
        self.usable = {self.space.first + offset for offset in (8, 10, 12, 2, 3, 4)}
        self.held: dict[int, tuple[Space, Taken]] = {}  # and the shape it was taken in
        self.told: set[int] = set()  # those of which the store has told that they are held
        self.released: dict[int, float] = {}

    def fresh(self) -> set[int]:
        """Never used, or rested."""
        rested = {address for address, since in self.released.items() if since + REST <= self.now}
        return (self.usable - set(self.held) - set(self.released)) | rested

    @rule()
    def take(self) -> None:
        """Any address."""
        fresh = self.fresh()
        taken = self.space.take([0, 1], self.now, REST)
        if taken is None:
            assert set(self.held) == self.usable
            return
        assert taken.address in self.usable - set(self.held)
        if fresh:
            assert taken.address in fresh
        else:
            assert self.released[taken.address] == min(self.released.values())
        self.released.pop(taken.address, None)
        self.held[taken.address] = self.space, taken

    @rule(offset=st.integers(0, 15))
    def take_wanted(self, offset: int) -> None:
        """One address."""
        address = self.space.first + offset
        taken = self.space.take_wanted(address)
        assert (taken is not None) == (address in self.usable - set(self.held))
        if taken is not None:
            self.released.pop(address, None)
            self.held[address] = self.space, taken

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def tell(self, data: st.DataObject) -> None:
        """The commit is done; or another writer has given the address to somebody."""
        address = data.draw(st.sampled_from(sorted(self.held)))
        self.space.hold(address)
        self.told.add(address)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def rest(self, data: st.DataObject) -> None:
        """Somebody lets go."""
        address = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[address]
        self.told.discard(address)
        self.space.rest(address, self.now, mark=9)
        self.released[address] = self.now

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        """A plan fails: nobody has the address, unless the store has told that somebody has."""
        address = data.draw(st.sampled_from(sorted(self.held)))
        space, taken = self.held[address]
        space.undo(taken)
        if address in self.told:
            return
        del self.held[address]
        if taken.since is not None:
            self.released[address] = taken.since

    @rule(seconds=st.sampled_from([1.0, 10.0, 31.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.now += seconds

    @rule()
    def settle(self) -> None:
        """The sweeper comes."""
        for address, _ in self.space.settle(self.now, REST):
            assert self.released[address] + REST <= self.now
            self.space.unmark(address)

    @rule()
    def reshape(self) -> None:
        """The same pools, made anew."""
        self.space = self.space.reshaped(self.subnet)

    @invariant()
    def counts(self) -> None:
        """Held is held."""
        assert sum(pool.held for pool in self.space.pools) == len(self.held)
        assert {address for address in self.usable if self.space.is_held(address)} == set(self.held)


TestSpaceMachine = SpaceMachine.TestCase


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**128 - 1))
def test_text_is_that_of_ipaddress(v4: int, v6: int) -> None:
    assert numbers.to_text(4, v4) == str(ipaddress.IPv4Address(v4))
    assert numbers.to_text(6, v6) == str(ipaddress.IPv6Address(v6))
    assert numbers.to_number(numbers.to_text(6, v6)) == v6


@given(st.text(min_size=1), st.text(min_size=1), st.integers(0, 9))
def test_macs_are_local_and_unicast(owner: str, interface: str, attempt: int) -> None:
    name, mac = port_identity(owner, interface, attempt)
    assert int(mac[:2], 16) & 3 == 2
    assert (name, mac) == port_identity(owner, interface, attempt)
    assert name == port_identity(owner, interface, 0)[0]
    assert len(name) == 12
