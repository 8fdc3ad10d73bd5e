"""``lmd report``: makes one HTML page of a run."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lmd_cli.cli import options


class RemovedBy(str, Enum):
    """What takes the place of a removed sensor's features."""

    ZEROED = "zeroed"
    REPLACED = "replaced"


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that lmd evaluate wrote.")],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="The page (default: in RUN)."),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(metavar="RULES", help="Rules of the maps; the config's `explain` if none."),
    ] = None,
    viewer: Annotated[
        int,
        typer.Option(
            min=1, metavar="COUNT", help="Samples to look at, beside the ten that disagree."
        ),
    ] = 6,
    removal: Annotated[
        RemovedBy,
        typer.Option(
            help="What takes the place of a removed sensor's features: zeros, or those of the "
            "sample's first partner in the run's schedule."
        ),
    ] = RemovedBy.ZEROED,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="COUNT", help="Survey only the run's first COUNT samples."),
    ] = None,
    survey: options.Survey = True,
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Take the survey that is there, or survey anew."),
    ] = True,
    *,
    where: options.WhereaboutsOptions,
    log: options.Log = None,
    debug: options.Debug = False,
) -> None:
    """Make one HTML page of a run: tables, maps to switch and slide, charts, caveats.

    The first time, the run's samples are decomposed once more for maps, layers and vehicles, which
    are kept in RUN/survey. A folder is data: code that it names (a network or data set that
    is not lmd's) is only run if --config names the same, or with --trust.
    """
    from lmd_cli.cli import show
    from lmd_cli.report.tables.removal import detected_note, header_of, subset_cells
    from lmd_cli.results.removal_subsets import subsets
    from lmd_cli.results.survey_metrics import SurveyMetrics
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.report import ReportOptions, open_surveyed, write_page

    trackers = options.require_trackers(log)
    chosen = ReportOptions(
        **vars(where.resolved()),
        variant=variant,
        viewer=viewer,
        removal=removal.value,
        limit=limit,
        compute=survey,
        resume=resume,
    )
    progress = make_progress()
    try:
        made = open_surveyed(run, chosen, progress)
        page = write_page(made, output)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: what is surveyed is kept in {run}; the same command goes on from there"
        ) from None
    finally:
        progress.close()
    metrics = made.survey and SurveyMetrics(made.survey)
    table = subsets(metrics) if metrics else []
    if metrics and table:
        values = [one.values() for one in table]
        show.table(header_of(table), subset_cells(table), "removal", values)
        show.lines([detected_note(metrics)])
    if trackers:
        from lmd_cli.workflows.track import track_report

        track_report(trackers, run)
    size = page.stat().st_size / 1e6
    show.written([page], f"page: {page} ({size:.1f} MB); open it in a browser")
