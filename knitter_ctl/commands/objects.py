"""apply, get, describe, delete."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knitter_ctl import kinds, options
from knitter_ctl.options import Format
from knitter_ctl.output import emit

if TYPE_CHECKING:
    from knitter_ctl.declared import Declared
    from knitter_ctl.session import Session

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="NAME or TENANT/NAME.", show_default=False)]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every tenant; lists are so by default.")]
ByNode = Annotated[str, typer.Option("--node", help="Only port sets of this node.", show_default=False)]
ByNetwork = Annotated[str, typer.Option("--network", help="Only port sets or IP groups of this network.", show_default=False)]
ByAddress = Annotated[str, typer.Option("--address", help="Only the port set that holds this address.", show_default=False)]
GroupNetwork = Annotated[str, typer.Option("--network", help="The network of an IP group.", show_default=False)]
IgnoreNotFound = Annotated[bool, typer.Option("--ignore-not-found", help="What is not there is no error.")]


def apply(
    ctx: typer.Context,
    filename: options.Files = None,
    recursive: options.Recursive = False,
    namespace: options.Namespace = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Makes and changes objects as files declare them.

    All files are read before anything is sent; a bad one sends nothing. Tenants come first, then networks, IP groups and claims.
    """
    from knitter_ctl.session import run

    declared = _read(filename, recursive, namespace)
    run(_apply(options.session(ctx, manager, timeout), declared, dry_run))


async def _apply(session: "Session", declared: "list[Declared]", dry_run: bool) -> None:
    from knitter_common.errors import KnitterError
    from knitter_ctl import applying, failure
    from knitter_ctl.document import reference

    errors: list[KnitterError] = []
    async with session:
        for one in declared:
            about = reference(one.kind, one.entry)
            try:
                result = await applying.apply(session, one, dry_run=dry_run)
            except KnitterError as error:
                errors.append(error)
                failure.tell(error, f"{about} ({one.place})")
            else:
                emit(f"{about} {result}{' (dry run)' if dry_run else ''}", flush=True)
    if errors:
        raise failure.Several(errors)


def get(
    ctx: typer.Context,
    kind: options.KindName,
    names: Names = None,
    namespace: options.Namespace = "",
    all_namespaces: AllNamespaces = False,
    output: options.Output = Format.table,
    node: ByNode = "",
    network: ByNetwork = "",
    address: ByAddress = "",
    no_headers: options.NoHeaders = False,
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Lists objects of a kind, or shows those that are named."""
    from knitter_ctl import printing
    from knitter_ctl.session import run

    found = options.kind(kind)
    filters = _filters(found, "" if all_namespaces else namespace, node, network, address)
    entries = run(_entries(options.session(ctx, manager, timeout), found, names or [], namespace, network, filters))
    single = len(names or []) == 1
    lines = printing.lines(found, entries, output.value, single=single, headers=not no_headers, now=time.time_ns())
    emit(*lines)
    if not lines and output in (Format.table, Format.wide):
        print(f"no {found.plural} found", file=sys.stderr)


async def _entries(
    session: "Session", kind: kinds.Kind, names: list[str], namespace: str, network: str, filters: dict[str, str]
) -> list[Any]:
    from knitter_ctl import lookup

    async with session:
        if names:
            return [await lookup.find(session, kind, name, namespace, network) for name in names]
        return await session.entries(kind, **filters)


def _filters(kind: kinds.Kind, namespace: str, node: str, network: str, address: str) -> dict[str, str]:
    """The filters of the List request. Raises Invalid for one that the kind does not have."""
    from knitter_common.errors import Invalid

    known = {kinds.PORT_SET: ("tenant", "node", "network", "address"), kinds.IP_GROUP: ("tenant", "network")}
    allowed = known.get(kind, ("tenant",) if kind.tenanted else ())
    told = {"node": node, "network": options.network_of(network, namespace), "address": address, "tenant": namespace}
    for name, value in told.items():
        if value and name not in allowed:
            option = {"tenant": "namespace"}.get(name, name)
            raise Invalid("FIELD_INVALID", f"{kind.plural} are not filtered by --{option}", field=f"--{option}", value=value)
    return {name: value for name, value in told.items() if value}


def describe(
    ctx: typer.Context,
    kind: options.KindName,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="NAME or TENANT/NAME.", show_default=False)],
    namespace: options.Namespace = "",
    network: GroupNetwork = "",
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Shows objects with all that belongs to them."""
    from knitter_ctl.session import run

    run(_describe(options.session(ctx, manager, timeout), options.kind(kind), names, namespace, network))


async def _describe(session: "Session", kind: kinds.Kind, names: list[str], namespace: str, network: str) -> None:
    from knitter_ctl import lookup, surroundings
    from knitter_ctl.description import describe

    async with session:
        for position, name in enumerate(names):
            entry = await lookup.find(session, kind, name, namespace, network)
            around = await surroundings.of(session, kind, entry)
            if position:
                emit("", "---", "")
            emit(*describe(entry, around, time.time_ns()), flush=True)


def delete(
    ctx: typer.Context,
    kind: options.KindName = "",
    names: Names = None,
    filename: options.Files = None,
    recursive: options.Recursive = False,
    namespace: options.Namespace = "",
    network: GroupNetwork = "",
    ignore_not_found: IgnoreNotFound = False,
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Deletes objects by name, or those that files declare, in reverse order."""
    from knitter_common.errors import Invalid
    from knitter_ctl.session import run

    if bool(filename) == bool(kind) or (kind and not names):
        raise Invalid("FIELD_INVALID", "delete KIND NAME…, or delete -f FILE", field="arguments")
    if filename:
        wanted = [(one.kind, _name_of(one)) for one in reversed(_read(filename, recursive, namespace))]
        namespace = ""
    else:
        wanted = [(options.kind(kind), name) for name in names or []]
    run(_delete(options.session(ctx, manager, timeout), wanted, namespace, network, ignore_not_found))


async def _delete(
    session: "Session", wanted: list[tuple[kinds.Kind, str]], namespace: str, network: str, ignore_not_found: bool
) -> None:
    from knitter_common.errors import KnitterError, NotFound
    from knitter_ctl import applying, failure, lookup
    from knitter_ctl.document import reference

    errors: list[KnitterError] = []
    async with session:
        for kind, name in wanted:
            try:
                entry = await lookup.find(session, kind, name, namespace, network)
                emit(f"{reference(kind, entry)} {await applying.delete(session, kind, entry)}", flush=True)
            except KnitterError as error:
                if isinstance(error, NotFound) and ignore_not_found:
                    continue
                errors.append(error)
                failure.tell(error, f"{kind.singular}/{name}")
    if errors:
        raise failure.Several(errors)


def _name_of(one: "Declared") -> str:
    from knitter_ctl.document import reference

    return reference(one.kind, one.entry).partition("/")[2]


def _read(names: list[str] | None, recursive: bool, namespace: str) -> "list[Declared]":
    from knitter_common.errors import Invalid
    from knitter_common.model import ADMIN
    from knitter_common.objects import Loaded, read_text
    from knitter_ctl import declared, failure

    if not names:
        raise Invalid("FIELD_INVALID", "nothing to read: name a file, a folder or - with -f", field="--filename")

    def parse(text: str, place: str) -> Loaded:
        return read_text(text, place, namespace or ADMIN)

    try:
        return declared.read(names, recursive=recursive, parse=parse, stdin=declared.standard_input)
    except declared.Bad as bad:
        for error in bad.errors:
            failure.tell(error)
        raise
