"""allocate and release: port sets by hand."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from knitter_ctl import options
from knitter_ctl.options import Format
from knitter_ctl.output import emit

if TYPE_CHECKING:
    from knitter_common.model import Allocation, PortSet, Return
    from knitter_ctl.session import Session


def allocate(
    ctx: typer.Context,
    network: Annotated[
        list[str] | None,
        typer.Option(
            "--network",
            metavar="NET[:IF][=WHAT,…]",
            show_default=False,
            help="One interface: its network, its name, what it wants: addresses, group:NAME, claim:NAME, mac:MAC, "
            "plane:PLANE. Repeatable; none means one on the default network.",
        ),
    ] = None,
    owner: options.Owner = "",
    pod: options.Pod = "",
    sandbox: options.Sandbox = "",
    node: Annotated[str, typer.Option("--node", help="The node it is for.", show_default=False)] = "",
    namespace: options.Namespace = "",
    replace: Annotated[bool, typer.Option("--replace", help="Bring a set that the owner has to these wishes.")] = False,
    sticky: Annotated[bool, typer.Option("--sticky", help="The addresses outlive the owner.")] = False,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="A label of the pod, for selectors. Repeatable.", show_default=False),
    ] = None,
    output: options.Output = Format.table,
    no_headers: options.NoHeaders = False,
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Allocates one port set: all interfaces of one owner, all or none. The same owner gets the same answer."""
    from knitter_common.model import Allocation, SandboxOwner
    from knitter_ctl import owners, printing, wants
    from knitter_ctl.kinds import PORT_SET
    from knitter_ctl.session import run

    found = owners.one(owner, pod, sandbox)
    wishes = tuple(wants.wish(text, position) for position, text in enumerate(network or []))
    node = node or (found.node if isinstance(found, SandboxOwner) else "")
    labels = wants.labels(label or [])
    wanted = Allocation(owner=found, tenant=namespace, node=node, wishes=wishes, replace=replace, sticky=sticky, labels=labels)
    stored = run(_allocate(options.session(ctx, manager, timeout), wanted))
    emit(*printing.lines(PORT_SET, [stored], output.value, single=True, headers=not no_headers, now=time.time_ns()))


async def _allocate(session: "Session", wanted: "Allocation") -> "PortSet":
    from knitter_common import convert

    async with session:
        response = await session.call("Allocate", allocation=convert.allocation_to_proto(wanted))
        return convert.port_set_from_proto(response.port_set)


def release(
    ctx: typer.Context,
    owner: options.Owner = "",
    pod: options.Pod = "",
    sandbox: options.Sandbox = "",
    revision: Annotated[int, typer.Option("--revision", min=0, help="Only if it is at this revision.", show_default=False)] = 0,
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Releases the port set of an owner. Releasing what is not there is no error."""
    from knitter_common.model import Return
    from knitter_ctl import owners
    from knitter_ctl.session import run

    found = owners.one(owner, pod, sandbox)
    run(_release(options.session(ctx, manager, timeout), Return(owner=found, revision=revision)))
    emit(f"portset/{found.key} released")


async def _release(session: "Session", given: "Return") -> None:
    from knitter_common import convert

    async with session:
        await session.call("Release", release=convert.give_back_to_proto(given))
