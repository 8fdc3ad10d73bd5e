"""``lmd score``: scores attribution methods against what each sensor could see."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmd_cli.cli import options
from lmd_cli.cli.ranks import among_ranks

if TYPE_CHECKING:
    from lmd_cli.workflows.score_inputs import Kind


class GroundTruthKind(str, Enum):
    """What methods are scored against."""

    RECORDED = "recorded"
    INTERVENTION = "intervention"
    BOTH = "both"


class FillKind(str, Enum):
    """What fills an object's region of an image."""

    INPAINT = "inpaint"
    RING = "ring"


def command(
    given: options.NetworkOptions,
    output: options.Output = None,
    method: options.Methods = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="COUNT", help="Only the first COUNT samples.")
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=1, metavar="COUNT", help="Resamples of the bootstrap intervals.")
    ] = 1000,
    truth: Annotated[
        GroundTruthKind | None,
        typer.Option(
            help="What was recorded, interventions on objects, or both (default: recorded where "
            "there is such a truth, else intervention)."
        ),
    ] = None,
    fill: Annotated[
        FillKind,
        typer.Option(help="Interventions: what fills an image; ring is the mean colour around."),
    ] = FillKind.INPAINT,
    margin: Annotated[
        float,
        typer.Option(
            min=0.0, max=10.0, metavar="METRES", help="Interventions: metres around a box."
        ),
    ] = 0.5,
    resume: options.Resume = True,
    overwrite: options.Overwrite = False,
    log: options.Log = None,
    debug: options.Debug = False,
) -> None:
    """Score methods of attribution against what each sensor could see, or what it carries.

    Where nobody recorded what each sensor could see, every detected vehicle is taken out of one
    sensor's raw data at a time, and the prediction's drop says which sensor carries it. Writes
    score.csv, score.png, vehicles.csv, times.csv and interventions.csv to
    results/<config name>/score. A run that was interrupted goes on with the same command. Started
    by torchrun or srun, the processes share the work.
    """
    from lmd_cli.cli import show

    trackers = options.require_trackers(log)
    run = given.load()
    folder = output or Path("results") / run.name / "score"
    from lmd_cli.data import RemovalSettings
    from lmd_cli.workflows.score import contribute, score

    methods = method or ()
    kind: Kind | None = None if truth is None else truth.value
    removal = RemovalSettings(margin, fill.value)
    lead = partial(
        score,
        *(run, folder, methods),
        limit=limit,
        resamples=resamples,
        resume=resume,
        overwrite=overwrite,
        truth=kind,
        removal=removal,
    )
    share = partial(contribute, run, folder, methods=methods, truth=kind, removal=removal)
    summary = among_ranks(folder, lead, share, debug)
    if summary is None:
        return
    if trackers:
        from lmd_cli.workflows.track import track_files

        tracked = ("score.csv", "times.csv", "score.png")
        files = [file for file in summary.files if file.name in tracked]
        track_files(trackers, folder, run, files)
    from lmd_cli.report.figures.scores import score_table

    header, rows = score_table(summary.scores, summary.seconds, summary.plain_seconds)
    show.table(header, rows, "methods")
    show.value("scores", {name: list(map(asdict, of)) for name, of in summary.scores.items()})
    show.value("verdict", asdict(summary.verdict))
    show.lines(summary.notes)
    show.files(summary.files, "sanity", *given.arguments())
