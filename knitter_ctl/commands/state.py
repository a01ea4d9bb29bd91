"""status, recover, snapshot and store: the state as a whole."""

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from knitter_ctl import options
from knitter_ctl.output import emit

if TYPE_CHECKING:
    from knitter_common.snapshot import Header, Trailer
    from knitter_ctl.session import Session

snapshot_app = typer.Typer(help="The whole state as a file.", no_args_is_help=True)
store_app = typer.Typer(help="Moving the state to another store.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(metavar="FILE", help="The snapshot file.", show_default=False)]


def status(ctx: typer.Context, manager: options.Managers = None, timeout: options.Timeout = None) -> None:
    """Shows what each manager is: who writes, the epoch, who is waited for."""
    from knitter_ctl.session import run

    run(_status(options.session(ctx, manager, timeout)))


async def _status(session: "Session") -> None:
    from knitter.v1 import manager_pb2
    from knitter_common.errors import KnitterError

    failed: KnitterError | None = None
    async with session:
        for address in session.managers.addresses:
            try:
                told = await session.ask(address, "GetStatus", manager_pb2.GetStatusRequest())
            except KnitterError as error:
                failed = error
                emit(f"manager {address}: {error.reason}: {error.message}")
                continue
            follows = f"follows {told.writer}" if told.writer else "knows of no writer"
            emit(f"manager {address}: {'writes' if told.writing else follows}")
            emit(f"  epoch {told.epoch}, revision {told.revision}, {told.port_sets} port sets")
            if told.frozen:
                emit("  frozen: no writes (knitterctl store unfreeze)")
            if told.restoring:
                emit("  a snapshot is being restored")
            if told.recovering:
                emit(f"  recovering: waits for the journals of {', '.join(told.waiting_for)}")
    if failed is not None:
        raise failed


def recover(
    ctx: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without it, only tells who is waited for.")] = False,
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Ends RECOVERING by hand: nodes that have not told what runs on them are not waited for any more."""
    from knitter_ctl.session import run

    run(_recover(options.session(ctx, manager, timeout), yes))


async def _recover(session: "Session", yes: bool) -> None:
    async with session:
        if not yes:
            waiting = (await session.call("GetStatus")).waiting_for
            emit(f"waits for {', '.join(waiting)}; --yes ends the wait" if waiting else "the manager has recovered")
            return
        not_told = (await session.call("EndRecovery")).not_told
        emit(f"recovered without {', '.join(not_told)}" if not_told else "the manager had recovered")


@snapshot_app.command("save")
def save(ctx: typer.Context, file: File, manager: options.Managers = None, timeout: options.Timeout = None) -> None:
    """Writes the whole state to a file, while the managers run."""
    from knitter_ctl import snapshots
    from knitter_ctl.session import run

    async def work(session: "Session") -> "tuple[Header, Trailer]":
        async with session:
            return await snapshots.save(session, file)

    header, trailer = run(work(options.session(ctx, manager, timeout)))
    emit(f"{file}: {trailer.records} records at revision {header.revision} of epoch {header.epoch}")


@snapshot_app.command("restore")
def restore(
    ctx: typer.Context,
    file: File,
    only_if_empty: Annotated[bool, typer.Option("--only-if-empty", help="Refuse where the store holds anything.")] = False,
    manager: options.Managers = None,
    timeout: options.Timeout = None,
) -> None:
    """Replaces the whole state by a file's. What runs on the nodes is adopted; nothing is allocated until they have told it."""
    from knitter_ctl import snapshots
    from knitter_ctl.session import run

    async def work(session: "Session") -> None:
        async with session:
            done = await snapshots.restore(session, file, only_if_empty)
            emit(f"restored {done.records} records; the epoch is {done.epoch}")
            if done.waiting_for:
                emit(f"recovering: waits for the journals of {', '.join(done.waiting_for)} (knitterctl recover)")

    run(work(options.session(ctx, manager, timeout)))


@snapshot_app.command("inspect")
def inspect(file: File) -> None:
    """Reads a file to its end, checks it, and shows what it holds. Asks no manager."""
    from knitter_ctl import snapshots

    header, trailer, kinds = snapshots.inspect(file)
    taken = datetime.datetime.fromtimestamp(header.time / 1e9, datetime.UTC)
    emit(f"taken: {taken:%Y-%m-%dT%H:%M:%SZ}", f"store: {header.store_id}", f"epoch: {header.epoch}")
    emit(f"revision: {header.revision}", f"records: {trailer.records}")
    emit(*(f"  {kind}: {count}" for kind, count in sorted(kinds.items())))
    emit(f"content: {trailer.content}", f"sha256: {trailer.sha256}")


@store_app.command("migrate")
def migrate(
    source: Annotated[str, typer.Option("--from-manager", metavar="ADDRESS", help="A manager of the old store.")],
    target: Annotated[str, typer.Option("--to-manager", metavar="ADDRESS", help="A manager of the new, empty store.")],
    timeout: options.Timeout = None,
) -> None:
    """Moves the whole state to another store, and checks that it has arrived. The old store takes no writes from then on."""
    from knitter_ctl import snapshots
    from knitter_ctl.session import Session, run

    async def work() -> None:
        limit = timeout or options.DEFAULT_TIMEOUT
        async with Session(_several(source), limit) as old, Session(_several(target), limit) as new:
            sent, done = await snapshots.migrate(old, new)
            emit(f"{sent.records} records moved and compared, content {sent.content}", f"the epoch is {done.epoch}")
            emit("the old store is frozen; point agents and monitors to the new managers")

    run(work())


def _several(addresses: str) -> list[str]:
    return [options.checked_address(address.strip(), "ADDRESS") for address in addresses.split(",") if address.strip()]


@store_app.command("freeze")
def freeze(ctx: typer.Context, manager: options.Managers = None, timeout: options.Timeout = None) -> None:
    """Forbids all writes, also after a restart. Running pods keep their networks; new ones wait."""
    _set_frozen(options.session(ctx, manager, timeout), True)


@store_app.command("unfreeze")
def unfreeze(ctx: typer.Context, manager: options.Managers = None, timeout: options.Timeout = None) -> None:
    """Allows writes again."""
    _set_frozen(options.session(ctx, manager, timeout), False)


def _set_frozen(session: "Session", frozen: bool) -> None:
    from knitter_ctl.session import run

    async def work() -> None:
        async with session:
            done = await session.call("SetFrozen", frozen=frozen)
            emit(f"{'frozen' if frozen else 'writes are allowed again'} at revision {done.revision}")

    run(work())
