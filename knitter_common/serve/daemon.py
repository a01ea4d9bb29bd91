"""The life of a daemon: arguments, configuration, logs, signals, ready, end.

    knitter-X --config FILE [--check] [--ready-fd N] [--version]

SIGTERM and SIGINT end it gracefully (exit 0), SIGHUP reads the log level again, SIGUSR1 switches between debug and that level.
`--ready-fd N`: once it serves, the daemon writes its address and a newline to that descriptor and closes it, so that whoever
started it waits for an event and sees the end of file if it dies instead.
"""

import argparse
import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

from knitter_common import settings
from knitter_common.errors import KnitterError
from knitter_common.serve import logs
from knitter_common.version import __version__

_M_ARENA_MAX = -8  # <malloc.h>

log = structlog.get_logger()


class HasLog(Protocol):
    """What every daemon's settings have."""

    @property
    def log(self) -> logs.LogSettings:
        """What is logged."""


S = TypeVar("S", bound=HasLog)
R = TypeVar("R")


class Daemon(Protocol):
    """What a component's main gives to `run`."""

    async def start(self) -> str:
        """Until it can really serve; returns the address it serves on."""

    async def wait(self) -> None:
        """Until it ends by itself; normally never. Raising ends the process with exit code 1."""

    async def stop(self) -> None:
        """Stop accepting, finish, flush. Called once, also after a failed start."""


def run(component: str, kind: type[S], make: Callable[[S], Daemon], argv: Sequence[str] | None = None) -> int:
    """Runs a daemon until it is told to end. Returns the exit code: 0, 1 for a failure, 2 for a bad configuration."""
    arguments = _arguments(component, argv)
    try:
        loaded = settings.load(kind, arguments.config)
    except KnitterError as error:
        print(f"{component}: {error.message}", file=sys.stderr)
        return 2
    if arguments.check:
        print(f"{arguments.config}: ok")
        return 0
    logs.configure(component, loaded.log)
    _share_arenas()
    return asyncio.run(_live(lambda: make(loaded), arguments, kind))


def _arguments(component: str, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(component, description=f"{component} {__version__}")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="JSON configuration (docs/configuration.md)")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--ready-fd", type=int, metavar="N", help="write the address to this descriptor once it serves")
    parser.add_argument("--version", action="version", version=f"{component} {__version__}")
    return parser.parse_args(argv)


async def _live(make: Callable[[], Daemon], arguments: argparse.Namespace, kind: type[Any]) -> int:
    daemon = make()  # inside the loop: grpc.aio binds to it when a server is made
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    level = _LevelSwitch(arguments.config, kind)
    loop.add_signal_handler(signal.SIGHUP, level.reload)
    loop.add_signal_handler(signal.SIGUSR1, level.toggle)
    code = 0
    try:
        address = await _unless(ending, daemon.start())
        if address is not None:
            _settle_down()
            log.info("serving", address=address, version=__version__)
            _tell_ready(arguments.ready_fd, address)
            await _unless(ending, daemon.wait())
    except KnitterError as error:
        log.error("cannot go on", reason=error.reason, error=error.message)
        code = 1
    except Exception as error:
        log.error("failed", exc_info=error)
        code = 1
    finally:
        await daemon.stop()
        log.info("ended", code=code)
    return code


async def _unless(ending: asyncio.Event, work: Coroutine[Any, Any, R]) -> R | None:
    """The result of `work`, or None when the end was ordered first; then `work` is cancelled."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(ending.wait())
    await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return None


def _share_arenas() -> None:
    """The threads of a daemon share two arenas of glibc's allocator instead of having one each: less memory to come back to after a
    sleep."""
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:  # another C library has none
        mallopt(_M_ARENA_MAX, 2)


def _settle_down() -> None:
    """What is there once a daemon serves stays: the collector need not look at it again, nor look so often. And threads that wait
    for the interpreter (a commit, the kernel) get it after half a millisecond of somebody's work instead of five."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    sys.setswitchinterval(0.0005)


def _tell_ready(descriptor: int | None, address: str) -> None:
    if descriptor is None:
        return
    with os.fdopen(descriptor, "w") as ready:
        ready.write(address + "\n")


class _LevelSwitch:
    """The log level while running."""

    def __init__(self, config: Path, kind: type[Any]) -> None:
        self._config, self._kind, self._debug = config, kind, False

    def reload(self) -> None:
        """SIGHUP: the level of the file as it is now; a broken file changes nothing."""
        try:
            level = settings.load(self._kind, self._config).log.level
        except KnitterError as error:
            log.warning("the configuration was not read again", error=error.message)
            return
        self._debug = False
        logs.set_level(level)
        log.warning("log level", now=level)

    def toggle(self) -> None:
        """SIGUSR1: debug, or back to the file's level."""
        if self._debug:
            self.reload()
        else:
            self._debug = True
            logs.set_level("debug")
            log.warning("log level", now="debug")
