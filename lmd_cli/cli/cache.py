"""``lmd cache``: what the program keeps between runs."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from lmd_cli.cli import options


class Action(str, Enum):
    """What to do."""

    LIST = "list"
    CLEAR = "clear"


def command(
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.LIST,
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="WHAT", help="To clear: names, synthetic, index, unfinished."),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """List the cache folder with sizes, or clear it: all that is lmd's, or WHAT.

    What is cleared is made again when it is needed. What is not lmd's is never deleted. The
    environment variable LMD_CACHE names another folder.
    """
    from lmd_cli.cli import show
    from lmd_cli.runtime.cache import cache_folder
    from lmd_cli.runtime.progress import duration
    from lmd_cli.workflows.cache import clear, entries

    if action is Action.LIST and what:
        raise typer.BadParameter("only clear takes names", param_hint="WHAT")
    listed, kept = (entries(), []) if action is Action.LIST else clear(what or ())
    size = _size(sum(entry.size for entry in listed))
    rows = [(e.name, e.kind, _size(e.size), f"{duration(e.changed)} ago", e.origin) for e in listed]
    header = ("name", "kind", "size", "changed", "made of")
    show.table(header, rows, "entries", [vars(entry) for entry in listed])
    show.lines(kept)
    done = "in" if action is Action.LIST else "deleted from"
    count = f"{len(listed)} {'entry' if len(listed) == 1 else 'entries'}"
    show.lines([f"{count}, {size}, {done} {cache_folder()}"])


def _size(count: int) -> str:
    """A number of bytes for a reader."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
