"""``lmd convert``: a clean copy of a checkpoint that the safe loader refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmd_cli.cli import options


def command(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A PyTorch file.")],
    output: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="A new file.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    ema: Annotated[
        bool, typer.Option("--ema", help="The running means of the weights (EMA) beside them.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Copy a checkpoint's tensors, and nothing else, into a safetensors file."""
    from lmd_cli.cli import show
    from lmd_cli.networks.checkpoints.conversion import convert

    done = convert(checkpoint, output, overwrite=overwrite, ema=ema)
    show.lines(
        [
            f"{done.tensors} tensors written to {output}",
            f"left out (not built): {', '.join(done.left_out) or 'nothing'}",
            f"entries that are not weights: {', '.join(done.skipped) or 'none'}",
            f"sha256 of {checkpoint}: {done.source_sha256}",
            f"sha256 of {output}: {done.sha256}",
        ]
    )
