"""``lmd compare``: what changed between runs?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmd_cli.cli import options

if TYPE_CHECKING:
    from lmd_cli.results.comparable import Pairing


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Folders of lmd evaluate; the first is before."),
    ],
    given: options.SurveyOptions,
    output: options.Output = None,
    common: Annotated[
        bool, typer.Option("--common", help="Compare the samples that all runs have.")
    ] = False,
    unpaired: Annotated[
        bool,
        typer.Option(
            "--unpaired", help="Compare each run's own samples: two weathers, two splits."
        ),
    ] = False,
    resamples: Annotated[
        int, typer.Option(min=1, metavar="COUNT", help="Resamples of the bootstrap intervals.")
    ] = 1000,
    debug: options.Debug = False,
) -> None:
    """Compare runs with the first of them: every metric, the vehicles that changed, maps.

    For two checkpoints, before and after a fix, or two variants, on the same samples; with
    --unpaired for two weathers (runs of evaluate --rain and --dry, say). Writes
    comparison.html, comparison.csv, comparison.md and changed_vehicles.csv to
    results/compare/<names of the runs>; where lmd detect has written to RUN/detect for every run,
    also changed_false_alarms.csv. Runs of other samples, outputs or protocols are refused.
    """
    from lmd_cli.cli import show
    from lmd_cli.report.tables.comparison import (
        METRIC_FIELDS,
        headline,
        interval_note,
        metric_cells,
        metric_header,
        metric_rows,
    )
    from lmd_cli.runtime.files import file_name
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.compare import compare

    if common and unpaired:
        raise typer.BadParameter("either --common or --unpaired", param_hint="--unpaired")
    pairing: Pairing = "none" if unpaired else "common" if common else "same"
    names = "-vs-".join(file_name(run.resolve().name) for run in runs)
    folder = output or Path("results") / "compare" / names
    progress = make_progress()
    try:
        done = compare(
            runs, folder, given.load(), pairing=pairing, resamples=resamples, progress=progress
        )
    finally:
        progress.close()
    comparison = done.comparison
    values = [dict(zip(METRIC_FIELDS, row, strict=True)) for row in metric_rows(comparison)]
    cells = map(metric_cells, comparison.rows)
    show.table(metric_header(comparison.labels), cells, "metrics", values)
    show.lines(f"{headline(comparison, i)}." for i in range(len(comparison.others)))
    show.lines([interval_note(comparison), *comparison.notes])
    show.files(done.files)
