"""``lmd detect``: which boxes does the network predict, and how good are they?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from lmd_cli.cli import options
from lmd_cli.cli.ranks import among_ranks


def command(
    given: options.NetworkOptions,
    output: options.Output = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULES",
            help="Rules of the parts; repeatable (default: the config's explain and variants).",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another method's parts too; repeatable."),
    ] = None,
    parts: Annotated[
        bool, typer.Option("--parts/--no-parts", help="Each sensor's parts of the detections.")
    ] = True,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="COUNT", help="Only the first COUNT samples.")
    ] = None,
    resume: options.Resume = True,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Write the network's boxes, their match with the annotations, and each sensor's part in them.

    For CRN, for SimpleBEV's instances, and for networks of your own that have decode. Writes
    detections.json (nuScenes' submission format), detections.csv (a row for each box and
    annotation), detection_values.csv, and where the split has annotations detection_counts.csv and
    detection_metrics.json (nuscenes-devkit's mAP, NDS and errors; of instances recall, precision
    and panoptic quality) to results/<config name>/detect. A run that was interrupted goes on with
    the same command. Started by torchrun or srun, the processes share the work.
    """
    from lmd_cli.cli import show
    from lmd_cli.workflows.detect import WhoseParts, contribute, detect

    run = given.load()
    folder = output or Path("results") / run.name / "detect"
    whose = WhoseParts(variant or (), method or (), parts or bool(variant or method))
    lead = partial(
        detect, run, folder, whose=whose, limit=limit, resume=resume, overwrite=overwrite
    )
    summary = among_ranks(folder, lead, partial(contribute, run, folder, whose=whose), debug)
    if summary is None:
        return
    if summary.metrics is not None:
        _show_metrics(summary.metrics)
    boxes = sum(summary.boxes.values())
    show.lines([f"{boxes} boxes in {summary.samples} samples", *summary.notes])
    show.files(summary.files, "evaluate", *given.arguments())


def _show_metrics(metrics: dict[str, Any]) -> None:
    from lmd_cli.cli import show
    from lmd_cli.workflows.detection_metrics import instances_line, metrics_table

    if "panoptic_quality" in metrics:
        show.lines([instances_line(metrics)])
        return
    show.table(*metrics_table(metrics))
    figures = f"mAP {metrics['mean_ap']:.3f}, NDS {metrics['nd_score']:.3f}"
    show.lines([f"{figures} (N = {metrics['samples']})"])
