"""``lmd gradcam``: class activation maps of a layer, in all and of each sensor's part."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, cast

import typer

from lmd_cli.cli import options


class CamMethod(str, Enum):
    """Where the channels' weights come from."""

    GRADCAM = "gradcam"
    PLUS = "gradcam++"
    SCORECAM = "scorecam"


def command(
    given: options.NetworkOptions,
    layer: Annotated[
        str,
        typer.Option(metavar="NAME", help="A layer (see lmd layers); NAME#2: its second run."),
    ],
    sample_token: options.SampleToken = None,
    modality: Annotated[
        str | None, typer.Option(metavar="NAME", help="Draw only this sensor's map.")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="CORNERS",
            help="x0,y0,x1,y1: metres right and forward; pixels of other maps.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--object", metavar="TOKEN", help="A vehicle (see lmd objects).")
    ] = None,
    method: Annotated[CamMethod, typer.Option(help="How channels are weighted.")] = (
        CamMethod.GRADCAM
    ),
    output: options.Output = None,
    form: Annotated[
        list[options.Form] | None,
        typer.Option("--format", help="Of the figure, PNG if none; repeatable."),
    ] = None,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Draw a layer's class activation map for a region, in all and for each sensor's part.

    With a region or an object it is Seg-Grad-CAM or a variant; with a sensor's part, Radar-GradCAM.
    Writes gradcam.npz and gradcam.png to results/<config name>/gradcam/<token>/<what was asked>.
    """
    from lmd_cli.cli import show

    run = given.load()
    from lmd_cli.attribution.cam import Method
    from lmd_cli.report.figures.cam import CamRequest
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.decompose import Pictures
    from lmd_cli.workflows.gradcam import write_gradcam

    request = CamRequest(layer, region, target, cast(Method, method.value), modality)
    forms = Pictures.named([], [one.value for one in form or [options.Form.PNG]]).forms
    drawn = write_gradcam(
        run, sample_token, request, output, make_progress(), forms, overwrite=overwrite
    )
    largest = ", ".join(f"{name} {value:.3g}" for name, value in drawn.largest.items())
    show.lines(
        [f"score {drawn.score:.4g}; largest value on the output's cells, as drawn: {largest}"]
    )
    show.files(drawn.files, "decompose", *given.arguments())
