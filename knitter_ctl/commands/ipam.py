"""ipam show, check, release: addresses as a whole."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from knitter_ctl import options
from knitter_ctl.options import Format
from knitter_ctl.output import emit

if TYPE_CHECKING:
    from knitter_common.model import Owner
    from knitter_ctl.checking import Checked
    from knitter_ctl.session import Session

ipam_app = typer.Typer(help="Addresses: how much is used, whether all of it fits together, giving some back.", no_args_is_help=True)
Force = Annotated[bool, typer.Option("--force", help="Also what is in use: its node goes on using it.")]


@ipam_app.command("show")
def show(
    ctx: typer.Context,
    networks: Annotated[
        list[str] | None, typer.Argument(metavar="NETWORK", help="NAME or TENANT/NAME; all by default.", show_default=False)
    ] = None,
    tenants: Annotated[bool, typer.Option("--tenants", help="What each tenant holds of its quota.")] = False,
    nodes: Annotated[bool, typer.Option("--nodes", help="What is on each node.")] = False,
    pods: Annotated[
        bool, typer.Option("--pods", help="Which pods (and other owners) have which interface, plane and address.")
    ] = False,
    address: Annotated[
        str, typer.Option("--address", metavar="ADDRESS", help="What one address is, and who holds it.", show_default=False)
    ] = "",
    namespace: options.Namespace = "",
    output: options.Output = Format.table,
    no_headers: options.NoHeaders = False,
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Shows how much of each pool is used; or of tenants, of nodes, of pods; or one address."""
    from knitter_common.errors import Invalid
    from knitter_ctl import printing, views
    from knitter_ctl.session import run

    asked = views.Asked(tuple(networks or ()), namespace, address)
    chosen = [name for name, told in (("tenants", tenants), ("nodes", nodes), ("pods", pods), ("address", bool(address))) if told]
    if len(chosen) > 1:
        said = f"--{chosen[0]} and --{chosen[1]} show different things; give one of them"
        raise Invalid("FIELD_INVALID", said, field=f"--{chosen[1]}")
    view = views.VIEWS[chosen[0] if chosen else "networks"]
    found = run(view.fetch(options.session(ctx, manager, timeout), asked))
    columns = view.wide if output is Format.wide else view.columns
    lines = printing.rows(list(view.rows(found)), columns, output.value, headers=not no_headers, documents=found)
    emit(*lines)
    if not lines and output in (Format.table, Format.wide):
        print(f"no {view.what} found", file=sys.stderr)


@ipam_app.command("check")
def check(
    ctx: typer.Context,
    store_only: Annotated[
        bool, typer.Option("--store-only", help="Ask no nodes; every manager can do that, not only the one that writes.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be, each finding only as it was seen.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Repair although nodes that may use it cannot be asked.")] = False,
    output: options.Output = Format.table,
    no_headers: options.NoHeaders = False,
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Compares records of addresses and MACs, port sets, claims, the manager's memory and the nodes' journals.

    Ends with 0 when all of it fits together, with 1 when something differs, with 5 when nothing does but not all nodes were asked.
    """
    from knitter_common.errors import Invalid
    from knitter_ctl import checking, document
    from knitter_ctl.session import run

    if output is Format.name:
        raise Invalid("FIELD_INVALID", "check prints -o table, json or yaml, not name", field="--output")
    if force and not repair:
        raise Invalid("FIELD_INVALID", "--force goes with --repair; give both", field="--force")
    checked = run(_check(options.session(ctx, manager, timeout), not store_only, repair, force))
    if output is Format.json:
        emit(document.as_json([checking.document(checked)], single=True))
    elif output is Format.yaml:
        emit(document.as_yaml([checking.document(checked)]))
    else:
        _tell(checked, not store_only, not no_headers)
    raise typer.Exit(checked.exit_code)


async def _check(session: "Session", nodes: bool, repair: bool, force: bool) -> "Checked":
    from knitter_ctl import checking

    async with session:
        checked = await checking.check(session, nodes)
        if repair:
            await checking.repair(session, checked, force)
        return checked


def _tell(checked: "Checked", nodes: bool, headers: bool) -> None:
    from knitter_ctl import checking, failure, printing

    emit(*printing.rows(checked.findings, checking.COLUMNS, "table", headers=headers))
    emit(*checking.sentences(checked, nodes))
    emit(*(f"repaired: {one.done}" for one in checked.repaired if one.HasField("done")))
    for key, error in checked.failed:
        failure.tell(error, key)


@ipam_app.command("release")
def release(
    ctx: typer.Context,
    addresses: Annotated[
        list[str] | None, typer.Argument(metavar="ADDRESS", help="Addresses to give back.", show_default=False)
    ] = None,
    network: Annotated[
        str, typer.Option("--network", help="The addresses' network, NAME or TENANT/NAME.", show_default=False)
    ] = "",
    owner: options.Owner = "",
    pod: options.Pod = "",
    sandbox: options.Sandbox = "",
    force: Force = False,
    namespace: options.Namespace = "",
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Gives back by hand what nobody uses: the set that holds an address, an owner's set, or an address held for nobody.

    Ends kept (sticky) sets for good. What is in use is refused, and who uses it is named.
    """
    from knitter_common.errors import Invalid
    from knitter_ctl import owners
    from knitter_ctl.session import run

    if bool(addresses) == bool(owner or pod or sandbox):
        raise Invalid("FIELD_INVALID", "name addresses, or one owner by --owner, --pod or --sandbox", field="arguments")
    found = None if addresses else owners.one(owner, pod, sandbox)
    session = options.session(ctx, manager, timeout)
    run(_release(session, addresses or [], options.network_of(network, namespace), found, force))


async def _release(session: "Session", addresses: list[str], network: str, owner: "Owner | None", force: bool) -> None:
    from knitter_common.errors import KnitterError
    from knitter_ctl import failure, giving_back

    errors: list[KnitterError] = []
    async with session:
        if owner is not None:
            emit(await giving_back.owner(session, owner, force))
        for address in addresses:
            try:
                emit(await giving_back.address(session, address, network, force), flush=True)
            except KnitterError as error:
                errors.append(error)
                failure.tell(error, address)
    if errors:
        raise failure.Several(errors)
