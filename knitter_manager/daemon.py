"""The manager as a daemon: opens the store, brings the state up, serves reads, writes when it is its turn, hands over at its
end."""

import asyncio
import gc

from knitter.v1 import manager_pb2_grpc
from knitter_common.serve import GrpcServer
from knitter_manager.config import ManagerSettings
from knitter_manager.core import Core
from knitter_manager.service.manager import ManagerService
from knitter_manager.store import Store, open_store

SERVICE = "knitter.v1.ManagerService"


def _calm_collector() -> None:
    """What was loaded stays, and operations leave next to no cycles behind: looked for after every 700 new objects, as is Python's
    default, they cost a fifth of an allocation."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


class ManagerDaemon:
    """See knitter_common.serve.Daemon. `store` is given by tests; else it is the one that the settings name."""

    def __init__(self, settings: ManagerSettings, store: Store | None = None) -> None:
        self._settings, self._store = settings, store
        self._server = GrpcServer(settings.listen, settings.server, [SERVICE])
        self._core: Core | None = None

    async def start(self) -> str:
        """Serves reads once the state is loaded. Returns when this manager writes, or when another one does."""
        core = self._core = Core(self._settings, self._store or await open_store(self._settings.store))
        await core.load()
        manager_pb2_grpc.add_ManagerServiceServicer_to_server(ManagerService(core), self._server.grpc)
        _calm_collector()
        address = await self._server.start()
        await core.lead(self._settings.name or address)
        await self._server.serving()
        return address

    async def wait(self) -> None:
        """Until something breaks that only a new start can mend."""
        assert self._core is not None
        await asyncio.shield(self._core.failed)

    async def stop(self) -> None:
        """Lets another one write at once, and answers what is under way."""
        if self._core is not None:
            await self._core.stop()
        await self._server.stop()
