"""Structured logs on standard error: JSON lines unless it is a terminal. The level can be changed while running."""

import logging
import sys
from dataclasses import dataclass

import structlog

from knitter_common.settings import setting

LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class LogSettings:
    """What is logged."""

    level: str = setting(
        "debug, info, warning or error; read again on SIGHUP; SIGUSR1 switches to debug and back", "info", choices=LEVELS
    )


class _Threshold:
    """The level in force; a processor drops what is below."""

    def __init__(self) -> None:
        self.number = logging.INFO

    def __call__(self, _logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if getattr(logging, method.upper(), logging.INFO) < self.number:
            raise structlog.DropEvent
        return event


_threshold = _Threshold()


def set_level(level: str) -> None:
    """Changes the level of the running process. `level` is one of LEVELS."""
    _threshold.number = getattr(logging, level.upper())


def tells(level: str) -> bool:
    """Whether lines of this level are written now; for lines that cost something to make."""
    return bool(_threshold.number <= getattr(logging, level.upper()))


def configure(component: str, settings: LogSettings) -> None:
    """Sets the process's logging up, once, at its start."""
    set_level(settings.level)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer(sort_keys=False)
    )
    structlog.configure(
        processors=[
            _threshold,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(component=component)
