"""What commands print."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from lmd_cli.printable import printable

#: Columns of characters for a file or pipe, more than any table has.
WIDE = 2000
COLOURS = {"ok": "green", "note": "yellow", "FAIL": "bold red"}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output, folded to a terminal's width and nowhere else."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    columns = [Column(name, overflow="fold", no_wrap=i == 0) for i, name in enumerate(header)]
    shown = Table(*columns, header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    shown.collapse_padding = True
    for row in rows:
        shown.add_row(*(Text(printable(c), style=COLOURS.get(c, "")) for c in row))
    console.print(shown)


def lines(notes: Iterable[str]) -> None:
    """One line each."""
    for note in notes:
        typer.echo(printable(note))


def files(paths: Sequence[Path], *onwards: object) -> None:
    """Which files there are; with a command to run next, where they are and what it is, last."""
    folder = paths[0].parent
    typer.echo(printable(f"files in {folder}: {', '.join(path.name for path in paths)}"))
    if onwards:
        ending(folder, *onwards)


def ending(place: Path, *onwards: object) -> None:
    """The last line of a long command: where the results are, and the command to run next."""
    command = shlex.join(["lmd", *map(str, onwards)])
    typer.echo(printable(f"results: {place}; next: {command}"))
