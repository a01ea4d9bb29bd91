"""The options that several commands share. Nothing heavy is imported here: help and completion read this."""

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from knitter_ctl import kinds

if TYPE_CHECKING:
    from knitter_ctl.session import Session

DEFAULT_MANAGER = "127.0.0.1:7470"
DEFAULT_TIMEOUT = 10.0  # seconds
_PODS = ("pod", "pods", "po")

Managers = Annotated[
    list[str] | None,
    typer.Option(
        "--manager",
        metavar="ADDRESS",
        help=f"A manager, host:port or unix:/path; repeatable, or with commas. Default: $KNITTER_MANAGER, else {DEFAULT_MANAGER}.",
        show_default=False,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=0.001,
        show_default=False,
        help=f"How long one call may take, tries included. Default: {DEFAULT_TIMEOUT:g}.",
    ),
]
Namespace = Annotated[
    str,
    typer.Option("--namespace", "-n", metavar="TENANT", help="The tenant: a Kubernetes namespace, or admin.", show_default=False),
]
KindName = Annotated[
    str,
    typer.Argument(
        metavar="KIND",
        help="networks, portsets, nodes, tenants, ipgroups or ipclaims.",
        autocompletion=kinds.complete,
        show_default=False,
    ),
]
Files = Annotated[
    list[str] | None,
    typer.Option(
        "--filename", "-f", metavar="FILE|DIR|-", help="A file, a folder, or - for standard input. Repeatable.", show_default=False
    ),
]
Recursive = Annotated[bool, typer.Option("--recursive", "-R", help="Folders with all folders below them.")]
NoHeaders = Annotated[bool, typer.Option("--no-headers", help="Tables without their first line.")]
Owner = Annotated[str, typer.Option("--owner", metavar="TENANT/NAME", help="The owner: anything with a name.", show_default=False)]
Pod = Annotated[str, typer.Option("--pod", metavar="NAMESPACE/NAME/UID", help="The owner: a pod.", show_default=False)]
Sandbox = Annotated[
    str,
    typer.Option("--sandbox", metavar="NODE/CONTAINER/NET/IF", help="The owner: one call of the plugin.", show_default=False),
]


class Format(StrEnum):
    """How objects are printed."""

    table = "table"
    wide = "wide"
    json = "json"
    yaml = "yaml"
    name = "name"


Output = Annotated[Format, typer.Option("--output", "-o", help="How to print.", show_default=True)]


def session(ctx: typer.Context, managers: list[str] | None, timeout: float | None) -> "Session":
    """The session that the command's options, or those before its name, or the environment ask for."""
    from knitter_common.errors import Invalid
    from knitter_ctl.session import Session

    before = ctx.find_root().params
    told = managers or before.get("manager") or [os.environ.get("KNITTER_MANAGER") or DEFAULT_MANAGER]
    addresses = [address.strip() for entry in told for address in entry.split(",") if address.strip()]
    if not addresses:
        raise Invalid("FIELD_INVALID", "--manager: no address is told; write host:port", field="--manager")
    addresses = [checked_address(address, "--manager") for address in addresses]
    return Session(addresses, timeout or before.get("timeout") or DEFAULT_TIMEOUT)


def checked_address(address: str, option: str) -> str:
    """The address in gRPC's form; the path of a socket, as `./build.sh up` prints it, will do. Raises Invalid unless it is
    host:port, unix:/path or /path."""
    from knitter_common.errors import Invalid

    _, colon, port = address.rpartition(":")
    if address.startswith("/"):
        return f"unix:{address}"
    if address.startswith("unix:/") or (colon and port.isdigit() and 0 < int(port) < 65536):
        return address
    raise Invalid("FIELD_INVALID", f"{option} {address!r}: write host:port or unix:/path", field=option, value=address)


def network_of(name: str, namespace: str) -> str:
    """A network as "tenant/name": a bare name is the namespace's, or admin's; "" stays."""
    from knitter_common.model import ADMIN

    return name if not name or "/" in name else f"{namespace or ADMIN}/{name}"


def kind(word: str) -> kinds.Kind:
    """The kind that a word means. Raises Invalid naming the known ones."""
    from knitter_common.errors import Invalid

    found = kinds.find(word)
    if found is None:
        known = ", ".join(each.plural for each in kinds.KINDS)
        pods = "; what pods have is shown by `knitterctl ipam show --pods`" if word.lower() in _PODS else ""
        raise Invalid("FIELD_INVALID", f"{word!r} is no kind of object; there are {known}{pods}", field="kind", value=word)
    return found
