"""A writer to be killed: `python store_churn.py SETTINGS TAG` becomes the writer and commits for ever.

SETTINGS is JSON of StoreSettings' fields. Each commit writes three keys `churn/<tag>/<n>/{a,b,c}`, and each acknowledged one
prints `<n> <revision>`. The first line is `writing`. Commits that fail with NotWriter or StoreDown print `! <error>` and end it.
"""

import asyncio
import json
import sys
from itertools import count

import structlog

from knitter_manager.store import Store, StoreSettings, open_store
from knitter_manager.store.protocol import AtRevision, NotWriter, StoreDown

_WIDTH = 16


async def _churn(store: Store, tag: str, numbers: "count[int]") -> None:
    while True:
        number = next(numbers)
        keys = [f"churn/{tag}/{number}/{part}" for part in "abc"]
        revision = await store.commit([AtRevision(key, 0) for key in keys], dict.fromkeys(keys, b"%d" % number))
        print(number, revision, flush=True)


async def _main(settings: StoreSettings, tag: str) -> None:
    store = await open_store(settings)
    await store.acquire_writer(f"churn:{tag}")
    print("writing", flush=True)
    numbers = count()
    try:
        await asyncio.gather(*(_churn(store, tag, numbers) for _ in range(_WIDTH)))
    except (NotWriter, StoreDown) as error:
        print("!", type(error).__name__, error, flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    fields = json.loads(sys.argv[1])
    if "endpoints" in fields:
        fields["endpoints"] = tuple(fields["endpoints"])
    asyncio.run(_main(StoreSettings(**fields), sys.argv[2]))
