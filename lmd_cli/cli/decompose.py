"""``lmd decompose``: one sample's prediction in parts, as arrays, tables and a picture."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lmd_cli.cli import options


class Style(str, Enum):
    """The paper's figures 4, 2 and 3."""

    SIGNED = "signed"
    POSITIVE = "positive"
    SIGMOID = "sigmoid"


def command(
    given: options.NetworkOptions,
    sample_token: options.SampleToken = None,
    variant: Annotated[
        str | None,
        typer.Option(metavar="RULES", help="Rules; the config's `explain` if none."),
    ] = None,
    output: options.Output = None,
    samples: Annotated[
        str | None,
        typer.Option(
            metavar="TOKENS",
            help="Several in one figure: tokens with commas between, or the first COUNT.",
        ),
    ] = None,
    detection: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="ROW", help="Draw that row of detections.csv, which lmd detect writes."
        ),
    ] = None,
    detections: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The folder of lmd detect (default: results/<config name>/detect)."
        ),
    ] = None,
    style: Annotated[
        list[Style] | None,
        typer.Option(
            help="signed: one scale, for and against (figure 4 of the paper); positive: each map "
            "by its own maximum (figure 2); sigmoid (figure 3). Repeatable."
        ),
    ] = None,
    form: Annotated[
        list[options.Form] | None,
        typer.Option("--format", help="Of the figures, PNG if none; repeatable."),
    ] = None,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Split one sample's prediction into its sensors' parts and the bias.

    Writes parts.npz, layers.csv, layers.png and decomposition.png to
    results/<config name>/decompose/<token>; with --samples, grid.png; with --detection,
    detection_K.png: the camera that shows it best, and each part around it. Results of another
    request are not replaced without --overwrite.
    """
    from lmd_cli.cli import show
    from lmd_cli.runtime.files import file_name

    asked = [] if variant is None else [variant]
    run = given.load(*(f"explain={name}" for name in asked))
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.decompose import (
        Pictures,
        decompose_sample,
        decompose_several,
        summary,
        write_grid,
        write_sample,
    )

    next_command = ("evaluate", *given.arguments())
    styles = [one.value for one in style or [Style.SIGNED]]
    pictures = Pictures.named(styles, [one.value for one in form or [options.Form.PNG]])
    results = Path("results") / run.name / "decompose"
    if detection is not None:
        from lmd_cli.workflows.decompose_detection import draw_detection

        where = detections or Path("results") / run.name / "detect"
        one = draw_detection(
            run, detection, where, output or results / "detections", pictures, make_progress()
        )
        show.lines(one.lines)
        show.files(one.files, *next_command)
        return
    if samples is not None:
        several = decompose_several(run, samples.split(","), progress=make_progress())
        folder = output or results / file_name("-".join(["grid", samples, *asked]))
        show.files(write_grid(several, folder, pictures, overwrite=overwrite), *next_command)
        return
    split = decompose_sample(run, sample_token, progress=make_progress())
    folder = output or results / file_name("-".join([split.sample.token, *asked]))
    files = write_sample(split, folder, pictures, overwrite=overwrite)
    show.lines(summary(split))
    show.files(files, *next_command)
