"""``lmd gate``: does a run meet requirements?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmd_cli.cli import options


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that lmd evaluate wrote.")],
    given: options.SurveyOptions,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="EXPR", help="Such as 'iou>=0.5'; repeatable."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The run that `baseline` in EXPR stands for.")
    ] = None,
    confident: Annotated[
        bool,
        typer.Option("--confident", help="The whole interval must meet EXPR, not the value alone."),
    ] = False,
    resamples: Annotated[
        int, typer.Option(min=1, metavar="COUNT", help="Resamples of the bootstrap intervals.")
    ] = 1000,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Where files go (default: RUN/gate)."),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Check that a run meets requirements, for CI: exit code 0, or 1 if one is not met.

    EXPR is METRIC>=NUMBER, also with conditions on vehicles, objects.detected[distance>40]>=0.2,
    or with --baseline: iou>=baseline-0.01, iou>=baseline*0.95. A metric that is not there is
    answered with those that are. Writes gate.html, gate.json and gate.xml (JUnit).
    """
    from lmd_cli.cli import show
    from lmd_cli.report.tables.gate import HEADER, outcome_cells
    from lmd_cli.results.verdict import outcome_values
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.gate import gate

    progress = make_progress()
    try:
        done = gate(
            run,
            require or (),
            baseline,
            output,
            given.load(),
            confident=confident,
            resamples=resamples,
            progress=progress,
        )
    finally:
        progress.close()
    values = [outcome_values(outcome) for outcome in done.outcomes]
    show.table(HEADER, map(outcome_cells, done.outcomes), "requirements", values)
    failed = [outcome for outcome in done.outcomes if not outcome.passed]
    show.lines(f"FAIL {o.requirement.text}: {o.reason}" for o in failed)
    show.lines(done.notes)
    show.files(done.files)
    raise typer.Exit(0 if done.passed else 1)
