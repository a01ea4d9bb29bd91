"""Who holds addresses, as the store says it: memory only knows that somebody does."""

from collections.abc import Mapping, Sequence

from knitter_manager import keys
from knitter_manager.allocation.jobs import store_unavailable
from knitter_manager.store.protocol import Record, Store, StoreDown


class Holders:
    """Asks the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def said(self, key: str) -> str:
        """The holder of one key (an address, a MAC) for people. Raises Unavailable."""
        found = await self.owners([key])
        return keys.said(found[key]) if key in found else "an operation under way"

    async def owners(self, asked: Sequence[str]) -> dict[str, str]:
        """The owner's key at each of these keys that somebody holds. Raises Unavailable."""
        if not asked:
            return {}
        try:
            found: Mapping[str, Record] = await self._store.get(asked)
        except StoreDown as error:
            raise store_unavailable(error) from error
        return {key: record.value.decode() for key, record in found.items() if record.value}
