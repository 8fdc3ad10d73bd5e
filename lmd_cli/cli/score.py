"""``lmd score``: scores attribution methods against what each sensor could see."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmd_cli.cli import options

if TYPE_CHECKING:
    from lmd_cli.workflows.score import ScoreSummary


def command(
    given: options.NetworkOptions,
    output: options.Output = None,
    method: options.Methods = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Only the first K samples.")
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Resamples of the bootstrap intervals.")
    ] = 1000,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Score methods of attribution against what each sensor could see, where that is known.

    Writes score.csv, score.png, vehicles.csv and times.csv to results/<config name>/score. A run
    that was interrupted goes on with the same command.
    """
    from lmd_cli.cli import show

    run = given.load()
    folder = output or Path("results") / run.name / "score"
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.score import score

    progress = make_progress()
    try:
        summary = score(
            run,
            folder,
            method or (),
            limit=limit,
            resamples=resamples,
            overwrite=overwrite,
            progress=progress,
        )
    finally:
        progress.close()
    picture = _picture(summary, folder)
    from lmd_cli.report.figures.scores import score_table

    header, rows = score_table(summary.scores, summary.seconds, summary.plain_seconds)
    show.table(header, rows)
    show.lines(summary.notes)
    show.files([*summary.files, picture], "sanity", *given.arguments())


def _picture(summary: ScoreSummary, folder: Path) -> Path:
    from lmd_cli.report.figures.scores import score_png
    from lmd_cli.runtime.files import write_atomically

    path = folder / "score.png"
    write_atomically(path, score_png(summary.scores))
    return path
