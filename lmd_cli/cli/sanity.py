"""``lmd sanity``: do the parts depend on the network's weights?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmd_cli.cli import options


def command(
    config: options.Config,
    settings: options.Settings = None,
    dataroot: options.Dataroot = None,
    checkpoint: options.Checkpoint = None,
    device: options.Device = None,
    output: options.Output = None,
    limit: Annotated[
        int, typer.Option(min=1, metavar="K", help="The first K samples; rows are their means.")
    ] = 2,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Randomise the weights layer by layer from the output: how fast do the parts decorrelate?

    Writes sanity.csv and sanity.png to results/<config name>/sanity. A run that was interrupted
    goes on with the same command.
    """
    from lmd_cli.cli import show

    run = options.load(config, settings, dataroot, checkpoint, device)
    folder = output or Path("results") / run.name / "sanity"
    from lmd_cli.report.figures.sanity import sanity_table
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.sanity import run_sanity

    progress = make_progress()
    try:
        found = run_sanity(run, folder, limit, overwrite=overwrite, progress=progress)
    finally:
        progress.close()
    show.table(*sanity_table(found.rows))
    show.lines(found.notes)
    same = options.again(config, settings, dataroot, checkpoint, device)
    show.files(found.files, "evaluate", *same)
