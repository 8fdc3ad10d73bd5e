"""``lmd detect``: which boxes does the network predict, and how good are they?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmd_cli.cli import options


def command(
    given: options.NetworkOptions,
    output: options.Output = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Only the first K samples.")
    ] = None,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Write the network's boxes in nuScenes' submission format, and nuScenes' figures for them.

    For CRN, and for networks of your own that have decode. Writes detections.json and, where the
    split has annotations and nuscenes-devkit is installed, detection_metrics.json (mAP, NDS, the
    five errors, each class) to results/<config name>/detect. A run that was interrupted goes on
    with the same command.
    """
    from lmd_cli.cli import show
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.detect import detect
    from lmd_cli.workflows.detection_metrics import metrics_table

    run = given.load()
    folder = output or Path("results") / run.name / "detect"
    progress = make_progress()
    try:
        summary = detect(run, folder, limit=limit, overwrite=overwrite, progress=progress)
    finally:
        progress.close()
    if summary.metrics is not None:
        show.table(*metrics_table(summary.metrics), "classes")
        show.value("metrics", summary.metrics)
        figures = f"mAP {summary.metrics['mean_ap']:.3f}, NDS {summary.metrics['nd_score']:.3f}"
        show.lines([f"{figures} (N = {summary.samples})"])
    boxes = sum(summary.boxes.values())
    show.lines([f"{boxes} boxes in {summary.samples} samples", *summary.notes])
    show.files(summary.files, "evaluate", *given.arguments())
