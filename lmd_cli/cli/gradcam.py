"""``lmd gradcam``: class activation maps of a layer, in all and of each sensor's part."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
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
        typer.Option(
            metavar="NAME", help="A module after the sensors meet; NAME#2: its second run."
        ),
    ],
    sample_token: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="Which sample; the first if none.")
    ] = None,
    modality: Annotated[
        str | None, typer.Option(metavar="NAME", help="Draw only this sensor's map.")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="Metres to the right, and forward; pixels of a map elsewhere.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--object", metavar="TOKEN", help="An annotated vehicle.")
    ] = None,
    method: Annotated[CamMethod, typer.Option(help="How channels are weighted.")] = (
        CamMethod.GRADCAM
    ),
    output: options.Output = None,
    form: Annotated[
        list[options.Form] | None,
        typer.Option("--format", help="Of the figure, PNG if none; repeatable."),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Draw a layer's class activation map for a region, in all and for each sensor's part.

    With a region or an object it is Seg-Grad-CAM or a variant; with a sensor's part, Radar-GradCAM.
    """
    from lmd_cli.cli import show

    run = given.load()
    from lmd_cli.attribution.cam import Method
    from lmd_cli.report.figures.cam import CamRequest
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.decompose import Pictures
    from lmd_cli.workflows.gradcam import write_gradcam

    request = CamRequest(layer, region, target, cast(Method, method.value), modality)
    folder = output or Path("results") / run.name / "gradcam"
    forms = Pictures.named([], [one.value for one in form or [options.Form.PNG]]).forms
    files, maps = write_gradcam(run, sample_token, request, folder, make_progress(), forms)
    strengths = {"the layer": maps.whole, **maps.parts}
    largest = (f"{name} {float(values.max()):.3g}" for name, values in strengths.items())
    show.lines([f"score {maps.score:.4g}; largest value of {', '.join(largest)}"])
    show.files(files, "decompose", *given.arguments())
