"""Figure 5: class activation maps of a layer, in all and of each sensor's part."""

from __future__ import annotations

from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from torch import Tensor

from lmd_cli.attribution.cam import ActivationMaps, Method, on_grid
from lmd_cli.evaluation.ground.plane import Array
from lmd_cli.report.figures.axes import (
    Format,
    draw_activations,
    draw_map,
    draw_vehicles,
    figure_bytes,
    figure_settings,
)
from lmd_cli.report.figures.scene import Scene
from lmd_cli.report.figures.sheet import WIDTH, bar_place, draw_legend, make_sheet, title_size
from lmd_cli.report.figures.styles import Map, from_white, part_title, positive_normalised
from lmd_cli.report.palette import colour

#: Methods as the paper writes them.
NAMES = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "scorecam": "Score-CAM"}


@dataclass(frozen=True)
class CamRequest:
    """What to explain, where.

    Attributes:
        layer: qualified name.
        region: ``x0,y0,x1,y1`` in metres, or in pixels of a map that is not on the ground; or
        target: the token of an annotated vehicle; all cells if neither.
        method: where the weights come from.
        modality: the only sensor to draw; all if none.
    """

    layer: str
    region: str | None = None
    target: str | None = None
    method: Method = "gradcam"
    modality: str | None = None


def _picture(
    scene: Scene,
    maps: ActivationMaps,
    panels: list[tuple[str, str, Map]],
    corners: Array | None,
    request: CamRequest,
    form: Format,
) -> bytes:
    """Images above; prediction, the layer's map, and each sensor's map below."""
    top = max(float(values.max()) for _, _, values in panels)
    with figure_settings():
        title = f"{scene.title}, layer {request.layer}"
        text = _text(maps, corners, top)
        sheet = make_sheet(scene, 1 + len(panels), title, text)
        draw_legend(sheet.figure, [replace(scene, marks=())], text)
        draw_activations(sheet.figure, top, bar_place(sheet.figure))
        positive, largest = positive_normalised(scene.total)
        panels = [("prediction", "fused prediction", positive), *panels]
        for index, (name, label, values) in enumerate(panels):
            axes = sheet.figure.add_subplot(sheet.cells[index])
            scaled = values / (top or 1.0) if index else values
            draw_map(axes, scene, scaled, from_white(colour(name, list(scene.parts))), (0.0, 1.0))
            draw_vehicles(axes, scene, "#8a8a8a")
            _region(axes, corners)
            axes.set_xlabel("right (m)", labelpad=1)
            if index:
                axes.set_yticklabels([])
            else:
                axes.set_ylabel("forward (m)", labelpad=0)
            note = f" (max {float(values.max()) if index else largest:.3g})"
            letters = title_size(WIDTH / len(panels))
            axes.set_title(f"{label}{note}", fontsize=letters, pad=4, parse_math=False)
        return figure_bytes(sheet.figure, form)


def _name(request: CamRequest) -> str:
    """``Seg-Grad-CAM`` or a variant where the score is of some cells only."""
    somewhere = request.region is not None or request.target is not None
    return f"{'Seg-' if somewhere else ''}{NAMES[request.method]}"


def _part_name(part: str, request: CamRequest) -> str:
    """``Radar-GradCAM``, as the paper writes it."""
    shown = part_title(part)
    return f"{shown[0].upper()}{shown[1:]}-{NAMES[request.method].replace('-CAM', 'CAM')}"


def _text(maps: ActivationMaps, corners: Array | None, top: float) -> list[str]:
    where = "the framed region" if corners is not None else "the whole map"
    return [
        f"Dark: activations of this layer that raise the score, the sum of the logits over {where} "
        f"({maps.score:.4g}). The activation maps share one scale, white (0) to darkest "
        f"({top:.3g}); the prediction shows its positive logits. Forward is up."
    ]


def _region(axes: Axes, corners: Array | None) -> None:
    if corners is not None:
        axes.add_patch(Polygon(corners, closed=True, fill=False, edgecolor="#c00078", lw=1.4))


def _numpy(values: Tensor, size: tuple[int, ...]) -> Map:
    """A layer's map on the output's cells."""
    return on_grid(values, (size[0], size[1])).cpu().numpy()
