"""Standard output: lines, until whoever reads them has enough."""

import sys


class EnoughRead(Exception):
    """The reader of our output is gone (`… | head`): the command ends at once, and well."""


def emit(*lines: str, flush: bool = False) -> None:
    """Prints lines; `flush` for those that are told as they happen. Raises EnoughRead."""
    try:
        for line in lines:
            print(line)
        if flush:
            sys.stdout.flush()
    except BrokenPipeError as error:  # typer would end the process with 1
        raise EnoughRead from error
