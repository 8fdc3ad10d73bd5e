"""``lmd decompose``: one sample's prediction in parts, as arrays, tables and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmd_cli.cli import options


def command(
    config: options.Config,
    sample_token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="Which sample (see lmd samples); the first if none."),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(metavar="BN-NORM[-ACT]", help="Rules; the config's first if none."),
    ] = None,
    settings: options.Settings = None,
    dataroot: options.Dataroot = None,
    checkpoint: options.Checkpoint = None,
    device: options.Device = None,
    output: options.Output = None,
    debug: options.Debug = False,
) -> None:
    """Split one sample's prediction into its sensors' parts and the bias.

    Writes parts.npz, layers.csv and decomposition.png to results/<config name>/decompose/<token>.
    """
    from lmd_cli.cli import show

    chosen = [f"variants=[{variant}]"] if variant is not None else []
    run = options.load(config, [*(settings or []), *chosen], dataroot, checkpoint, device)
    from lmd_cli.progress import make_progress
    from lmd_cli.report.sample import summary, write_sample
    from lmd_cli.single import decompose_sample

    split = decompose_sample(run, sample_token, progress=make_progress())
    folder = output or Path("results") / run.name / "decompose" / split.sample.token
    files = write_sample(split, folder)
    show.lines(summary(split))
    show.files(files)
