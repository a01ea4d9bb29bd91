"""node forget; attachments, connections and sources: what an agent and a monitor tell of themselves."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from knitter_ctl import options
from knitter_ctl.options import Format
from knitter_ctl.output import emit

if TYPE_CHECKING:
    from knitter_ctl.printing import Columns
    from knitter_ctl.session import Session

node_app = typer.Typer(help="Nodes that are gone.", no_args_is_help=True)
Monitor = Annotated[str, typer.Option("--monitor", envvar="KNITTER_MONITOR", metavar="ADDRESS", help="The monitor's address.")]
DEFAULT_AGENT = "unix:/run/knitter/agent.sock"
DEFAULT_MONITOR = "127.0.0.1:7471"


@node_app.command("forget")
def forget(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The node.")],
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Declares a node gone for good: what was lent to it comes free. If it returns, its agent detaches what it no longer owns."""
    from knitter_ctl.session import run

    run(_forget(options.session(ctx, manager, timeout), name))
    emit(f"node/{name} forgotten")


async def _forget(session: "Session", name: str) -> None:
    from knitter_ctl.kinds import NODE

    async with session:
        node = await session.get(NODE, name=name)
        await session.call("DeleteNode", name=node.name)


def attachments(
    agent: Annotated[
        str, typer.Option("--agent", envvar="KNITTER_AGENT", metavar="ADDRESS", help="The agent's address.")
    ] = DEFAULT_AGENT,
    output: options.Output = Format.table,
    no_headers: options.NoHeaders = False,
    timeout: options.Timeout = None,
) -> None:
    """Shows the attachments in a node's journal, as its agent tells them."""
    from knitter_ctl import peers
    from knitter_ctl.session import run

    found = run(peers.attachments(options.checked_address(agent, "--agent"), timeout or options.DEFAULT_TIMEOUT))
    _show(found, peers.ATTACHMENT_COLUMNS, output, not no_headers)


def connections(
    monitor: Monitor = DEFAULT_MONITOR,
    output: options.Output = Format.table,
    no_headers: options.NoHeaders = False,
    timeout: options.Timeout = None,
) -> None:
    """Shows the nodes that follow a monitor, and how far each has applied what was pushed."""
    from knitter_ctl import peers
    from knitter_ctl.session import run

    found = run(peers.connections(options.checked_address(monitor, "--monitor"), timeout or options.DEFAULT_TIMEOUT))
    _show(found, peers.CONNECTION_COLUMNS, output, not no_headers)


def sources(
    monitor: Monitor = DEFAULT_MONITOR,
    output: options.Output = Format.table,
    no_headers: options.NoHeaders = False,
    timeout: options.Timeout = None,
) -> None:
    """Shows where a monitor reads declarations from, how many are applied, and what is wrong with the others."""
    from knitter_ctl import peers
    from knitter_ctl.session import run

    found = run(peers.sources(options.checked_address(monitor, "--monitor"), timeout or options.DEFAULT_TIMEOUT))
    _show(found, peers.SOURCE_COLUMNS, output, not no_headers)
    problems = [problem for source in found for problem in source["problems"]]
    if problems and output in (Format.table, Format.wide):
        emit("")
        _show(problems, peers.PROBLEM_COLUMNS, output, not no_headers)


def _show(found: list[dict[str, Any]], columns: "Columns", output: Format, headers: bool) -> None:
    from knitter_ctl import printing

    emit(*printing.rows(found, columns, output.value, headers=headers))
