"""``lmd synthesize``: a synthetic nuScenes root."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lmd_cli.cli import options


class Split(str, Enum):
    """Whose scene names to use."""

    MINI_VAL = "mini_val"
    MINI_TRAIN = "mini_train"
    ALL = "all"


def command(
    output: Annotated[Path, typer.Option(metavar="DIR", help="A new or empty folder.")],
    scenes: Annotated[
        int | None, typer.Option(min=1, metavar="COUNT", help="Scenes; all of the split's if none.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, metavar="COUNT", help="Samples per scene.")] = 20,
    split: Annotated[Split, typer.Option(help="Whose scene names to use.")] = Split.ALL,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the world.")] = 0,
    height: Annotated[int, typer.Option(help="Of the images, pixels.")] = 450,
    width: Annotated[int, typer.Option(help="Of the images, pixels.")] = 800,
    planted: Annotated[
        bool,
        typer.Option(
            "--planted",
            help="With planted false alarms: pictures that only the camera sees, radar echoes.",
        ),
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Write a synthetic nuScenes root (v1.0-mini) of any size."""
    from lmd_cli.cli import show
    from lmd_cli.data.synthetic import synthesize
    from lmd_cli.runtime.progress import counter, make_progress

    progress = make_progress()
    try:
        root = synthesize(
            output,
            split=split.value,
            scenes=scenes,
            samples=samples,
            seed=seed,
            image_size=(height, width),
            planted=planted,
            progress=counter(progress, f"writing {output}"),
        )
    finally:
        progress.close()
    show.written([root], f"synthetic nuScenes root: {root}")
    train = ["--set", "data.split=mini_train"] if split is Split.MINI_TRAIN else []
    show.ending(root, "check", "--config", "demo.yaml", "--dataroot", root, *train)
