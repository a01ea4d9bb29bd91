"""Ports with the addresses of a claim: the claim holds them before and after, the port only uses them."""

from dataclasses import replace

from knitter_common.convert import ip_claim_to_proto
from knitter_common.errors import Invalid, NotFound, Refused
from knitter_common.model import IPClaim, Network, Owner, PortSet
from knitter_common.names import shown
from knitter_manager import keys
from knitter_manager.allocation.plan import Plan
from knitter_manager.state import Cluster


def find_claim(cluster: Cluster, tenant: str, name: str, network: Network, place: str) -> IPClaim:
    """The tenant's claim of that name. Raises NotFound(OBJECT_NOT_FOUND), Invalid(WISH_INVALID) for one of another network."""
    claim = cluster.claims.get(keys.claim(tenant, name))
    if claim is None:
        said = f"{place}: tenant {tenant} has no claim {shown(name)}; make it first, or correct the name"
        raise NotFound("OBJECT_NOT_FOUND", said, ip_claim=name, tenant=tenant)
    if claim.network != network.path:
        said = f"{place}: claim {tenant}/{name} is for network {claim.network}, not {network.path}"
        raise Invalid("WISH_INVALID", said, ip_claim=name, network=claim.network)
    return claim


def use_claim(plan: Plan, claim: IPClaim, owner: Owner, before: Owner | None, place: str) -> None:
    """The claim is used by the owner from now on; `before` is an owner whose place it takes. Raises Refused(OBJECT_IN_USE)."""
    what = f"claim {claim.tenant}/{claim.name}"
    if claim.used_by is not None and claim.used_by not in (owner, before):
        said = f"{place}: {what} is used by {keys.said(claim.used_by.key)}"
        raise Refused("OBJECT_IN_USE", said, ip_claim=claim.name, owner=claim.used_by.key)
    key = keys.claim(claim.tenant, claim.name)
    if key in plan.puts:
        raise Invalid("WISH_INVALID", f"{place}: {what} is named for another interface of the same owner", ip_claim=claim.name)
    plan.conditions[key] = claim.revision
    plan.puts[key] = stored_claim(replace(claim, used_by=owner))


def claims_of_running(plan: Plan, cluster: Cluster, told: PortSet) -> PortSet:
    """A set that runs already uses its claims, in the plan. Where a claim is gone or holds other addresses now, the port's are the
    set's own. Raises Refused(OBJECT_IN_USE) where another one uses the claim."""
    wishes = list(told.wishes)
    for at, (wish, port) in enumerate(zip(told.wishes, told.ports, strict=False)):
        if not wish.ip_claim:
            continue
        claim = cluster.claims.get(keys.claim(told.tenant, wish.ip_claim))
        if claim is None or {one.cidr for one in claim.addresses} != {one.cidr for one in port.addresses}:
            wishes[at] = replace(wish, ip_claim="")
        else:
            use_claim(plan, claim, told.owner, None, wish.place or f"wishes[{at}]")
    return replace(told, wishes=tuple(wishes)) if tuple(wishes) != told.wishes else told


def end_claims(plan: Plan, cluster: Cluster, before: PortSet) -> None:
    """What the set used is used by nobody, unless the plan has it used again."""
    for wish in before.wishes:
        key = keys.claim(before.tenant, wish.ip_claim) if wish.ip_claim else ""
        claim = cluster.claims.get(key) if key else None
        if claim is not None and claim.used_by == before.owner and key not in plan.puts:
            plan.conditions[key] = claim.revision
            plan.puts[key] = stored_claim(replace(claim, used_by=None))


def stored_claim(claim: IPClaim) -> bytes:
    """The value for the store."""
    return ip_claim_to_proto(replace(claim, revision=0)).SerializeToString()
