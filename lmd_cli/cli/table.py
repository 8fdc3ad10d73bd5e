"""``lmd table``: the paper's tables for a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmd_cli.cli import options

if TYPE_CHECKING:
    from lmd_cli.report.tables.render import Table


def command(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="The paper's number, or all.")],
    given: options.NetworkOptions,
    output: options.Output = None,
    limit: options.Limit = None,
    resume: options.Resume = True,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Make a table of the paper for your model and data, or all that apply to it.

    Writes CSV, Markdown and LaTeX, the paper's own figures alone and beside yours in one table, to
    results/<config name>/table<NUMBER>, or .../tables.
    """
    from lmd_cli.cli import show

    run = given.load()
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.table import reproduce, table_numbers

    numbers = table_numbers(number)
    folder = output or Path("results") / run.name / (
        "tables" if number == "all" else f"table{number}"
    )
    progress = make_progress()
    try:
        made = reproduce(
            run,
            numbers,
            folder,
            strict=number != "all",
            limit=limit,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
        )
    finally:
        progress.close()
    for table in made.tables.values():
        _show(table)
    show.lines(f"not made: {why}" for why in made.left_out.values())
    report = ["report", folder / "run", *given.report_arguments(run)]
    next_command = report if made.run is not None else ["evaluate", *given.arguments()]
    show.files(made.files, *next_command)


def _show(table: Table) -> None:
    from lmd_cli.cli import show

    names = [name for name, width in table.groups for _ in range(width)]
    short = {"Pearson Correlation": "PCC ", "Mean Squared Error": "MSE "}
    header = [short.get(n, "") + h for n, h in zip(names, table.header, strict=True)]
    show.lines([table.caption])
    rows = [[e.text + ("*" if e.best else "") for e in row] for row in table.rows]
    show.table(header, rows, table.caption)
    show.lines(table.notes)
    show.gap()
