"""The largest port set that is allowed, exchanged for another one of that size: one commit, on every store."""

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
