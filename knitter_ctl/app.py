"""The commands of knitterctl, put together. Each imports what it needs when it runs."""

from typing import Annotated

import typer

from knitter_ctl import options
from knitter_ctl.commands import feed, ipam, nodes, objects, sets, state, various

app = typer.Typer(
    name="knitterctl",
    help="Knitter for people: networks, port sets, nodes and tenants, through the manager's API.",
    no_args_is_help=True,
    add_completion=False,  # `completion SHELL` prints the script; nothing edits a person's files
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def common(
    manager: options.Managers = None,
    timeout: options.Timeout = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Knitter for people: networks, port sets, nodes and tenants, through the manager's API."""
    if version:
        various.version()
        raise typer.Exit


app.command()(objects.apply)
app.command()(objects.get)
app.command()(objects.describe)
app.command()(objects.delete)
app.command()(sets.allocate)
app.command()(sets.release)
app.command()(feed.watch)
app.add_typer(ipam.ipam_app, name="ipam")
app.command()(various.adopt)
app.add_typer(nodes.node_app, name="node")
app.command()(nodes.attachments)
app.command()(nodes.connections)
app.command()(nodes.sources)
app.command()(state.status)
app.command()(state.recover)
app.add_typer(state.snapshot_app, name="snapshot")
app.add_typer(state.store_app, name="store")
app.command()(various.version)
app.command()(various.completion)
