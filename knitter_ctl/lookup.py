"""Which object a person means: names with or without their tenant, owners in short forms."""

from typing import Any

from knitter_common.errors import Invalid, NotFound
from knitter_common.model import ADMIN, IPGroup, PortSet
from knitter_ctl import owners
from knitter_ctl.document import reference
from knitter_ctl.kinds import IP_GROUP, PORT_SET, Kind
from knitter_ctl.session import Session

_LISTED = 5  # candidates that an error names


async def find(session: Session, kind: Kind, text: str, namespace: str = "", network: str = "") -> Any:
    """The one object that `text` names. Raises NotFound, or Invalid when it names several."""
    if kind is PORT_SET:
        return await port_set(session, text, namespace)
    if kind is IP_GROUP:
        return await _ip_group(session, text, namespace, network)
    if not kind.tenanted:
        return await session.get(kind, name=text)
    tenant, name = tenant_and_name(text, namespace)
    try:
        return await session.get(kind, tenant=tenant, name=name)
    except NotFound as error:
        if namespace or "/" in text:
            raise
        raise await _hinted(session, kind, name, error) from error


def tenant_and_name(text: str, namespace: str) -> tuple[str, str]:
    """`t1/control`, or `control` of the namespace told, or of `admin`. Raises Invalid when two tenants are told."""
    tenant, slash, name = text.rpartition("/")
    if slash and namespace and namespace != tenant:
        raise Invalid("FIELD_INVALID", f"{text!r} names the tenant {tenant!r}, and --namespace {namespace!r}", field="--namespace")
    return tenant or namespace or ADMIN, name


async def port_set(session: Session, text: str, namespace: str = "") -> PortSet:
    """By its owner's key, or by what names one owner only."""
    text = text.removeprefix("portset/")
    if owner := owners.from_key(text):
        return await session.port_set(owner)
    found: list[PortSet] = await session.entries(PORT_SET, tenant=namespace)
    only: PortSet = _only(PORT_SET, text, [entry for entry in found if owners.matches(entry.owner, text)])
    return only


async def _ip_group(session: Session, text: str, namespace: str, network: str) -> Any:
    """NAME, TENANT/NAME, NETWORK/NAME, TENANT/NETWORK/NAME; the network itself may be TENANT/NAME."""
    *scope, name = text.split("/")
    filters = {"tenant": namespace} if namespace else {}
    groups: list[IPGroup] = [group for group in await session.entries(IP_GROUP, **filters) if group.name == name]
    if network:
        groups = [group for group in groups if _is_network(group, network)]
    if scope:
        wanted = "/".join(scope)
        groups = [
            group
            for group in groups
            if group.tenant == wanted or _is_network(group, wanted, wanted.removeprefix(f"{group.tenant}/"))
        ]
    return _only(IP_GROUP, text, groups)


def _is_network(group: IPGroup, *texts: str) -> bool:
    own = group.network.removeprefix(f"{group.tenant}/")
    return not {group.network, own, f"{group.tenant}/{own}"}.isdisjoint(texts)


async def _hinted(session: Session, kind: Kind, name: str, error: NotFound) -> NotFound:
    """The same error; it tells where an object of that name is, when it is elsewhere."""
    others = [reference(kind, entry) for entry in await session.entries(kind) if entry.name == name]
    hint = f"; there is {', '.join(others[:_LISTED])}: name its tenant with -n" if others else ""
    return NotFound(error.reason, error.message + hint, **error.metadata)


def _only(kind: Kind, text: str, found: list[Any]) -> Any:
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound("OBJECT_NOT_FOUND", f"there is no {kind.singular} {text!r}", kind=kind.name, name=text)
    candidates = ", ".join(reference(kind, entry) for entry in found[:_LISTED])
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    raise Invalid("FIELD_INVALID", f"{text!r} names {len(found)} {kind.plural}: {candidates}{more}", field="name", value=text)
