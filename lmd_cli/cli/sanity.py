"""``lmd sanity``: do the parts depend on the network's weights?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lmd_cli.cli import options


def command(
    given: options.NetworkOptions,
    output: options.Output = None,
    limit: Annotated[
        int,
        typer.Option(min=1, metavar="COUNT", help="The first COUNT samples; rows are their means."),
    ] = 2,
    resume: options.Resume = True,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Randomise the weights layer by layer from the output: how fast do the parts decorrelate?

    Writes sanity.csv and sanity.png to results/<config name>/sanity. A run that was interrupted
    goes on with the same command.
    """
    from lmd_cli.cli import show

    run = given.load()
    folder = output or Path("results") / run.name / "sanity"
    from lmd_cli.report.figures.sanity import sanity_table
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.sanity import run_sanity

    progress = make_progress()
    try:
        summary = run_sanity(
            run, folder, limit, resume=resume, overwrite=overwrite, progress=progress
        )
    finally:
        progress.close()
    show.table(*sanity_table(summary.rows), "layers")
    show.value("rows", list(map(asdict, summary.rows)))
    show.lines(summary.notes)
    show.files(summary.files, "evaluate", *given.arguments())
