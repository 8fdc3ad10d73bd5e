"""Turns errors into messages and exit codes: 2 bad input, 1 failure, 130 Ctrl-C."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import Any, NoReturn

import typer

FULL = (errno.ENOSPC, errno.EDQUOT)
INTERRUPTED = 130
#: Characters of a path in a message.
_LONGEST = 300


def handled(command: Callable[..., None]) -> Callable[..., None]:
    """The command with its errors shown as one message, unless it is called with ``debug``."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as error:
            _leave(str(error) or "interrupted", INTERRUPTED)
        except Exception as error:
            explained = None if kwargs.get("debug") else explain(error)
            if explained is None:
                raise
            _leave(f"error: {explained[0]}", explained[1])

    return run


def explain(error: Exception) -> tuple[str, int] | None:
    """Message and exit code of an error that a user can do something about, else ``None``."""
    from lmd_cli.errors import LmdError, out_of_memory

    if isinstance(error, LmdError):
        return str(error), error.exit_code
    if out_of_memory(error):
        return f"out of memory: {error}", 1
    if isinstance(error, OSError) and error.errno != errno.EPIPE:
        return _system(error), 2 if error.errno == errno.ENAMETOOLONG else 1
    if any(kind.__name__ == "DecompositionError" for kind in type(error).__mro__):  # no torch here
        return str(error), 1
    return None


def _system(error: OSError) -> str:
    name = str(error.filename or "")
    where = f"{name if len(name) <= _LONGEST else name[:_LONGEST] + '...'}: " if name else ""
    if error.errno in FULL:
        return f"{where}the disk is full; free some space and run the same command again"
    return f"{where}{error.strerror or error}"


def _leave(message: str, code: int) -> NoReturn:
    from lmd_cli.cli import output
    from lmd_cli.runtime.printable import printable

    if (document := output.document()) is not None:
        document.error = message
    typer.echo(printable(message), err=True)
    raise typer.Exit(code)
