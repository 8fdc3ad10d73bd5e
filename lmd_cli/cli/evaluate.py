"""``lmd evaluate``: the perturbation protocol on a split."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lmd_cli.cli import options


class OperatingPoint(StrEnum):
    """Where LMD linearises the network when it looks at a perturbed input."""

    CLEAN = "clean"
    PERTURBED = "perturbed"


class OnError(StrEnum):
    """What to do with a sample whose files cannot be read."""

    STOP = "stop"
    SKIP = "skip"


def command(
    config: options.Config,
    settings: options.Settings = None,
    dataroot: options.Dataroot = None,
    checkpoint: options.Checkpoint = None,
    device: options.Device = None,
    output: options.Output = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="A method of attribution; repeatable (default: lmd, the config's variants).",
        ),
    ] = None,
    operating_point: Annotated[
        OperatingPoint,
        typer.Option(
            help="Where LMD linearises for a perturbed input: at the clean sample as the paper, or "
            "anew at the perturbed input (how stable are the parts?)."
        ),
    ] = OperatingPoint.CLEAN,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Only the first K samples of the cycle.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on from rows that are there.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again over results that are there.")
    ] = False,
    on_error: Annotated[
        OnError, typer.Option(help="At a sample that cannot be read.")
    ] = OnError.STOP,
    workers: options.Workers = None,
    debug: options.Debug = False,
) -> None:
    """Replace each sensor by another sample's: which parts change, and which keep still?

    Writes metrics.csv, table.csv, pairs.csv and run.json to results/<config name>.
    """
    from lmd_cli.cli import show

    run = options.load(config, settings, dataroot, checkpoint, device, workers)
    folder = output or Path("results") / run.name
    from lmd_cli.evaluation import evaluate
    from lmd_cli.progress import make_progress

    progress = make_progress()
    try:
        summary = evaluate(
            run,
            folder,
            methods=method or (),
            relinearise=operating_point is OperatingPoint.PERTURBED,
            limit=limit,
            resume=resume,
            overwrite=overwrite,
            on_error=on_error.value,
            progress=progress,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: finished rows are kept in {folder}; the same command goes on from there"
        ) from None
    finally:
        progress.close()
    header = [str(name) for name in summary.table.columns]
    show.table(header, [[str(cell) for cell in row] for row in summary.table.to_numpy()])
    show.lines(summary.notes)
    show.files(summary.files, "report", folder)
