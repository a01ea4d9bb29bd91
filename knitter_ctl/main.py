"""The process knitterctl: runs a command, turns its end into an exit code (docs/knitterctl.md has the table)."""

import os
import sys
from collections.abc import Sequence

from knitter_ctl.output import EnoughRead

_INTERRUPTED = 130
_COMPLETION = "_KNITTERCTL_COMPLETE"  # set by the scripts of `knitterctl completion`


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or what `failure` has for the error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        from knitter_common.version import __version__

        print(f"knitterctl {__version__}")
        return 0
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (EnoughRead, BrokenPipeError):
        # the interpreter must not complain when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _run(arguments: list[str]) -> int:
    from knitter_ctl.app import app

    if _COMPLETION in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined] # only add_completion=True calls it

        completion_init()
    try:
        app(args=arguments, prog_name="knitterctl")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except EnoughRead:
        raise
    except Exception as error:
        from knitter_common.errors import KnitterError
        from knitter_ctl import failure

        if isinstance(error, failure.Several):
            return failure.exit_code(error)
        if isinstance(error, KnitterError):
            failure.tell(error)
            return failure.exit_code(error)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
