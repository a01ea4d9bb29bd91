"""A start: a manager that loads what another one wrote knows what that one knew."""

import pytest
from harness.manager import addresses, allocate, core_on, named, network, pooled, release
from harness.stores import open_site

from knitter_common.errors import KnitterError
from knitter_common.model import IPClaim, IPGroup, Wish
from knitter_manager import keys
from knitter_manager.allocation.claiming import stored_claim
from knitter_manager.core import Core
from knitter_manager.ipam.bitmap import Bitmap
from knitter_manager.state import Cluster
from knitter_manager.store.protocol import Commit, Record


def known(core: Core) -> object:
    """All that decides what is handed out, and what is shown."""
    cluster = core.cluster
    spaces = {
        (entry.network.path, space.subnet.cidr): (
            [space.usage(index) for index in range(len(space.pools))],
            [*space.held_in(space.first, space.last)],
            sorted(space.marks()),
        )
        for entry in cluster.networks.values()
        for space in entry.spaces
    }
    groups = {group.key: group.held for entry in cluster.networks.values() for group in entry.groups.values()}
    owners = {entry.network.path: (entry.owners, entry.sets) for entry in cluster.networks.values()}
    tenants = {name: (entry.used, entry.owners) for name, entry in cluster.tenants.items()}
    nodes = {name: (entry.owners, entry.ports, entry.addresses) for name, entry in cluster.nodes.items()}
    return spaces, groups, owners, tenants, nodes, cluster.sets, [*cluster.order.after("")]


async def test_a_start_knows_what_is_held_and_what_rests(tmp_path):
    async with open_site("sqlite", tmp_path) as site:
        async with core_on(await site.open()) as core:
            shape = pooled("10.1.0.0/16", ("10.1.0.10", "10.1.0.200"), ("10.1.8.0", "10.1.15.255"), gateway="10.1.0.1")
            await core.networks.create(network("both", shape, "2001:db8::/64", "10.9.0.0/24"))
            await core.networks.create(network("low", "::a01:0/112"))  # the same numbers as 10.1.0.0/16
            await core.groups.create(IPGroup("admin", "g", "admin/both", ips=("10.1.0.50", "10.1.0.51", "10.1.0.52")))
            for number in range(40):
                await allocate(core, named(f"a{number:02}"), Wish(network="both"), Wish(network="low"), node=f"n{number % 3}")
            await allocate(core, named("g"), Wish(network="both", ip_group="g"))
            await allocate(core, named("h"), Wish(network="both", ip_group="g"))
            for number in range(0, 40, 7):
                await release(core, named(f"a{number:02}"))
            await release(core, named("h"))
            before = known(core)
        async with core_on(await site.open()) as core:
            assert known(core) == before
            found = addresses(await allocate(core, named("g2"), Wish(network="both", ip_group="g")))
            assert "10.1.0.51" in found
            with pytest.raises(KnitterError, match="set aside"):
                await allocate(core, named("x"), Wish(network="both", addresses=("10.1.0.50",)))


@pytest.mark.parametrize("numbers", [[], [0], [5, 6, 1023, 1024, 5000], list(range(3000)), list(range(1024, 4096))])
def test_many_numbers_at_once_are_the_same_as_one_by_one(numbers):
    bound = 1 << 24
    one_by_one, at_once = Bitmap(bound), Bitmap(bound)
    for bitmap in (one_by_one, at_once):
        bitmap.add(7)
    for number in numbers:
        one_by_one.add(number)
    at_once.add_all(numbers)
    assert [*at_once.members(0, bound - 1)] == [*one_by_one.members(0, bound - 1)]
    for low in (0, 1, 1024, 2000, 4095):
        assert at_once.first_absent(low, bound - 1) == one_by_one.first_absent(low, bound - 1)


def test_what_a_conflict_tells_is_old_where_the_state_has_come_further():
    cluster, key = Cluster("admin/default"), keys.claim("admin", "vm")
    first, second = (stored_claim(IPClaim("admin", "vm", "admin/x", interface=name)) for name in ("eth0", "eth1"))
    cluster.told(Commit(5, {key: first}), 0.0)
    cluster.refresh(key, None, 4, 0.0)  # judged before it was made
    cluster.refresh(key, None, 5, 0.0)
    assert cluster.claims[key].interface == "eth0"
    cluster.refresh(key, Record(key, second, 7), 7, 0.0)  # the feed has not come so far
    assert (cluster.claims[key].interface, cluster.claims[key].revision) == ("eth1", 7)
    cluster.did(9, {key: first}, (), 0.0)  # this process's own, before the feed tells it
    cluster.refresh(key, None, 8, 0.0)
    assert cluster.claims[key].revision == 9
    cluster.refresh(key, None, 10, 0.0)
    assert key not in cluster.claims
