"""Which network a name means, for a tenant: its own first, then public ones, then those exported to it (knitter-behaviour:
"Tenants")."""

from collections.abc import Iterable

from knitter_common.errors import Invalid, NotFound
from knitter_common.model import ADMIN, Network
from knitter_common.names import nearest, shown
from knitter_manager.state.entries import NetworkEntry


def visible_to(network: Network, tenant: str) -> bool:
    """Whether a tenant may use a network at all. The operator may use every one."""
    return network.public or network.tenant == tenant or tenant in network.exported_to or tenant == ADMIN


class Names:
    """Networks by path. Answers are remembered until a network changes."""

    def __init__(self, default_network: str) -> None:
        self.default_network = default_network
        self._paths: dict[str, NetworkEntry] = {}
        self._found: dict[tuple[str, str], NetworkEntry] = {}

    def put(self, entry: NetworkEntry) -> None:
        """Adds a network, or tells that one has changed."""
        self._paths[entry.network.path] = entry
        self._found.clear()

    def drop(self, path: str) -> None:
        """Removes a network."""
        self._paths.pop(path, None)
        self._found.clear()

    def at(self, path: str) -> NetworkEntry | None:
        """The network at "tenant/name"."""
        return self._paths.get(path)

    def all(self) -> Iterable[NetworkEntry]:
        """All networks, in no order."""
        return self._paths.values()

    def find(self, tenant: str, name: str, place: str) -> NetworkEntry:
        """The network that `name` ("name", "tenant/name" or "" for the default) means to a tenant.

        Raises NotFound(NETWORK_NOT_FOUND), the same for one that is not there and one that the tenant may not see.
        """
        entry = self._found.get((tenant, name))
        if entry is None:
            entry = self._look(tenant, name, place)
            if len(self._found) > 100_000:
                self._found.clear()
            self._found[tenant, name] = entry
        return entry

    def _look(self, tenant: str, name: str, place: str) -> NetworkEntry:
        if not name:  # the operator has chosen it for everybody
            entry = self._paths.get(self.default_network)
            if entry is None:
                said = f"{place}: names no network, and the default network {self.default_network} is not there"
                raise NotFound("NETWORK_NOT_FOUND", said, network=self.default_network)
            return entry
        if name.count("/") > 1:
            raise Invalid("WISH_INVALID", f"{place}: {shown(name)} names no network; write 'name' or 'tenant/name'", network=name)
        if "/" in name:
            entry = self._paths.get(name)
            if entry is not None and visible_to(entry.network, tenant):
                return entry
        else:
            entry = self._bare(tenant, name)
            if entry is not None:
                return entry
        raise NotFound("NETWORK_NOT_FOUND", self._missing(tenant, name, place), network=name, tenant=tenant)

    def _bare(self, tenant: str, name: str) -> NetworkEntry | None:
        own = self._paths.get(f"{tenant}/{name}")
        if own is not None:
            return own
        same = sorted((entry for entry in self._paths.values() if entry.network.name == name), key=lambda one: one.network.path)
        public = next((entry for entry in same if entry.network.public), None)
        return public or next((entry for entry in same if tenant in entry.network.exported_to), None)

    def _missing(self, tenant: str, name: str, place: str) -> str:
        seen = [entry.network for entry in self._paths.values() if visible_to(entry.network, tenant)]
        names = {network.name if network.tenant == tenant or "/" not in name else network.path for network in seen}
        way = nearest(name, names) if names else "none is there yet"
        return f"{place}: tenant {tenant} has no network {shown(name)}, and none of that name is public or exported to it; {way}"
