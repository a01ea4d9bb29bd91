"""adopt, version, completion."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from knitter_ctl import kinds, options
from knitter_ctl.output import emit

if TYPE_CHECKING:
    from knitter_ctl.session import Session


class Shell(StrEnum):
    """Shells that can complete."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def adopt(
    ctx: typer.Context,
    kind: options.KindName,
    name: Annotated[str, typer.Argument(metavar="NAME", help="NAME or TENANT/NAME.")],
    source: Annotated[str, typer.Option("--source", help='The new source: "api", "files:<name>" or "crd".')] = "api",
    namespace: options.Namespace = "",
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Moves a declared object to another source, so that it can be changed from there."""
    from knitter_ctl.session import run

    about = run(_adopt(options.session(ctx, manager, timeout), options.kind(kind), name, source, namespace))
    emit(f"{about} adopted by {source}")


async def _adopt(session: "Session", kind: kinds.Kind, name: str, source: str, namespace: str) -> str:
    from knitter_ctl import lookup
    from knitter_ctl.document import reference

    async with session:
        entry = await lookup.find(session, kind, name, namespace)
        about = reference(kind, entry)
        told = f"{entry.network}/{entry.name}" if kind is kinds.IP_GROUP else entry.name
        await session.call("Adopt", kind=kind.name, tenant=entry.tenant if kind.tenanted else "", name=told, source=source)
        return about


def version() -> None:
    """Prints the version of knitterctl."""
    from knitter_common.version import __version__

    emit(f"knitterctl {__version__}")


def completion(shell: Annotated[Shell, typer.Argument(help="The shell to write for.")]) -> None:
    """Prints the script that makes a shell complete knitterctl: source <(knitterctl completion bash)."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined] # typer's only way to name the shell

    emit(get_completion_script(prog_name="knitterctl", complete_var="_KNITTERCTL_COMPLETE", shell=shell.value))
