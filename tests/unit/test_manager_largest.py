"""The largest that is allowed, on every store: a port set that is exchanged for another one in one commit, and many that carry as
much as they may."""

import asyncio

from harness.manager import addresses, allocate, core_on, held, named, network, release
from harness.stores import Site

from knitter_common.model import MAX_ADDRESSES, MAX_PORTS, Wish


async def test_the_largest_set_is_exchanged_in_one_commit(site: Site) -> None:
    async with core_on(await site.open()) as core:
        wishes = []
        for kind in range(2):
            for number in range(MAX_PORTS):
                cidrs = [f"10.{kind}.{number}.0/24", f"fd00:{kind}:{number}::/64"][: 1 + (number < MAX_ADDRESSES - MAX_PORTS)]
                await core.networks.create(network(f"n{kind}-{number}", *cidrs))
            wishes.append([Wish(network=f"n{kind}-{number}", interface=f"e{number}") for number in range(MAX_PORTS)])
        first = await allocate(core, named("all"), *wishes[0])
        second = await allocate(core, named("all"), *wishes[1], replace=True)
        assert len(addresses(first)) == len(addresses(second)) == MAX_ADDRESSES
        assert not set(addresses(first)) & set(addresses(second))
        assert len(held(core)) == MAX_ADDRESSES
        await release(core, named("all"))
        assert not held(core)


async def test_many_sets_with_as_much_metadata_as_is_allowed_come_at_once(site: Site) -> None:
    async with core_on(await site.open()) as core:
        await core.networks.create(network("n", "10.1.0.0/24"))
        wish = Wish(network="n", metadata={"text": "x" * 60_000})
        made = await asyncio.gather(*(allocate(core, named(f"vm{number}"), wish) for number in range(60)))
        assert len({one for port_set in made for one in addresses(port_set)}) == 60
        assert all(port_set.ports[0].metadata == wish.metadata for port_set in made)
        assert len({port_set.revision for port_set in made}) < 30  # still many to a commit
