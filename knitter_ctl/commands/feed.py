"""watch: the manager's feed of changes, until interrupted."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from knitter_ctl import kinds, options
from knitter_ctl.options import Format
from knitter_ctl.output import emit

if TYPE_CHECKING:
    from knitter_ctl.following import Event, Follower
    from knitter_ctl.session import Session


def watch(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="KIND", help="Only these kinds.", autocompletion=kinds.complete, show_default=False),
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="table or json (one object a line).")] = Format.table,
    only_changes: Annotated[bool, typer.Option("--only-changes", help="Leave out what is there already.")] = False,
    once: Annotated[bool, typer.Option("--once", help="End when everything that is there has been told.")] = False,
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Follows what changes, one line a change, until interrupted (Ctrl-C ends it with exit code 0)."""
    from knitter_common.errors import Invalid
    from knitter_ctl.following import Follower
    from knitter_ctl.session import run

    if output not in (Format.table, Format.json):
        raise Invalid("FIELD_INVALID", f"watch prints -o table or -o json, not {output.value}", field="--output")
    follower = Follower(kinds=[options.kind(word) for word in words or []])
    try:
        run(_follow(options.session(ctx, manager, timeout), follower, output is Format.json, only_changes, once))
    except KeyboardInterrupt:
        return


async def _follow(session: "Session", follower: "Follower", as_json: bool, only_changes: bool, once: bool) -> None:
    """A cut feed is taken up where it was cut. A manager away for longer than the timeout ends it with its error."""
    async with session:
        async for response in session.feed(follower):
            for event in follower.take(response):
                if event.what != "there" or not only_changes:
                    emit(_line(event, as_json), flush=True)
            if once and follower.synced:
                return


def _line(event: "Event", as_json: bool) -> str:
    from knitter_ctl import following, table

    if as_json:
        return json.dumps(following.as_json(event), ensure_ascii=False)
    return following.line(event, time.time_ns(), table.coloured())
