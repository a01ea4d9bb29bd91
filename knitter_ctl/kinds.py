"""The kinds of object that knitterctl knows, by every name a person may type. No import here is heavy: completion needs it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `name` is that of the contract (CreateNetwork …), `field` that of its field in messages and of its converters."""

    name: str
    field: str
    plural_field: str
    singular: str
    plural: str
    aliases: tuple[str, ...] = ()
    tenanted: bool = False  # its names are unique in a tenant only

    @property
    def words(self) -> tuple[str, ...]:
        """Every word that means it."""
        return (self.plural, self.singular, *self.aliases)


NETWORK = Kind("Network", "network", "networks", "network", "networks", ("net", "nets"), tenanted=True)
TENANT = Kind("Tenant", "tenant", "tenants", "tenant", "tenants", ("ten",))
IP_GROUP = Kind("IPGroup", "ip_group", "ip_groups", "ipgroup", "ipgroups", ("ipg", "group", "groups"), tenanted=True)
IP_CLAIM = Kind("IPClaim", "ip_claim", "ip_claims", "ipclaim", "ipclaims", ("ipc", "claim", "claims"), tenanted=True)
NODE = Kind("Node", "node", "nodes", "node", "nodes", ("no",))
PORT_SET = Kind("PortSet", "port_set", "port_sets", "portset", "portsets", ("ps", "pset"))

KINDS = (NETWORK, PORT_SET, NODE, TENANT, IP_GROUP, IP_CLAIM)
# What needs what: a tenant before its networks, a network before its groups and claims.
ORDER = (TENANT, NETWORK, IP_GROUP, IP_CLAIM)


def find(word: str) -> Kind | None:
    """The kind a word means, in any case; None when no kind is called so."""
    return next((kind for kind in KINDS if word.lower() in kind.words), None)


def named(name: str) -> Kind:
    """The kind with that name in the contract: "IPGroup"."""
    return next(kind for kind in KINDS if kind.name == name)


def complete(incomplete: str) -> list[str]:
    """For shell completion: the plural words that begin so."""
    return [kind.plural for kind in KINDS if kind.plural.startswith(incomplete)]
