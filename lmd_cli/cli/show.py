"""Prints tables, notes, written files and the next command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from lmd_cli.cli import output
from lmd_cli.runtime.printable import printable

#: Columns of characters for a file or pipe, more than any table has.
WIDE = 2000
#: A word of more characters may be torn.
FOLDED = 16
COLOURS = {"ok": "green", "note": "yellow", "FAIL": "bold red"}


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    name: str = "table",
    values: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """A table on standard output, folded to a terminal's width and nowhere else.

    Args:
        name: of the table in a JSON document.
        values: its rows there, with numbers in full; the text of the cells if none.
    """
    if (document := output.document()) is not None:
        rows = [] if values is not None else rows
        document.tables[name] = [*(values or (dict(zip(header, r, strict=True)) for r in rows))]
        return
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    rows = [[printable(cell) for cell in row] for row in rows]
    least = [_longest_word(column) for column in zip(header, *rows, strict=True)]
    if sum(least) + 2 * len(least) > console.width:
        _below_each_other(console, header, rows)
        return
    columns = [
        Column(name, overflow="fold", no_wrap=i == 0, min_width=least[i])
        for i, name in enumerate(header)
    ]
    shown = Table(*columns, header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    shown.collapse_padding = True
    for row in rows:
        shown.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    console.print(shown)


def _longest_word(cells: Sequence[str]) -> int:
    """Columns that a number or word takes at most; longer ones are folded."""
    return max(min(len(word), FOLDED) for cell in cells for word in cell.split() or [""])


def _below_each_other(
    console: Console, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """A terminal that is too narrow for whole numbers beside each other."""
    for row in rows:
        for name, cell in zip(header, row, strict=True):
            console.print(Text(f"{name}: {cell}" if name == header[0] else f"  {name}: {cell}"))


def lines(notes: Iterable[str]) -> None:
    """One line each."""
    if (document := output.document()) is not None:
        document.notes += notes
        return
    for note in notes:
        typer.echo(printable(note))


def value(name: str, result: Any) -> None:
    """A result that stands in a JSON document alone."""
    if (document := output.document()) is not None:
        document.values[name] = result


def plain(name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table without a frame, one line each."""
    if (document := output.document()) is not None:
        document.tables[name] = [dict(zip(columns, row, strict=True)) for row in rows]
        return
    lines(" ".join(map(str, row)).rstrip() for row in rows)


def text(name: str, whole: str) -> None:
    """A file's text as it is, for another program to read."""
    if (document := output.document()) is not None:
        document.values[name] = whole
    else:
        typer.echo(whole)


def gap() -> None:
    """An empty line."""
    if output.document() is None:
        typer.echo("")


def written(paths: Sequence[Path], text: str) -> None:
    """What was made, in a sentence of its own."""
    if (document := output.document()) is not None:
        document.files += map(str, paths)
    else:
        lines([text])


def files(paths: Sequence[Path], *next_command: object) -> None:
    """Which files there are; with a command to run next, where they are and what it is, last."""
    folder = paths[0].parent
    if (document := output.document()) is not None:
        document.files += map(str, paths)
    elif not output.quiet():
        lines([f"files in {folder}: {', '.join(path.name for path in paths)}"])
    if next_command:
        ending(folder, *next_command)


def ending(place: Path, *next_command: object) -> None:
    """The last line of a long command: where the results are, and the command to run next."""
    words = ["lmd", *map(str, next_command)]
    if (document := output.document()) is not None:
        document.next = words
    elif not output.quiet():
        lines([f"results: {place}; next: {shlex.join(words)}"])
