"""Pictures: a prediction and its parts from above, beside the images (the paper's Figure 2)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from lmd_cli.geometry import Grid

Map = NDArray[np.floating]

#: The usual arrangement: what lies ahead above, what lies behind below.
ROWS = (
    ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"),
    ("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"),
)
NORMALISATION = "Each map shows its positive values, divided by its own maximum (in brackets)."
#: Colours from white, one for each part (Okabe and Ito's, safe for colour-blind readers).
COLOURS = {
    "prediction": "#303030",
    "camera": "#0072b2",
    "radar": "#d55e00",
    "lidar": "#00714f",
    "bias": "#7a4a77",
}
#: nuScenes' car in the front camera's axes: half a width, rear and front end, metres.
EGO = (0.87, -2.4, 1.7)
OUTLINE = "#8a8a8a"
WIDTH, DPI = 13.0, 150
STYLE: dict[str, Any] = {"font.size": 9.0, "font.family": "DejaVu Sans", "axes.linewidth": 0.6}


@dataclass(frozen=True, eq=False)
class Scene:
    """What one figure shows.

    Attributes:
        images: by camera, (H, W, 3) in [0, 1].
        ground_truth: vehicle mask (Z, X).
        total: the fused prediction (Z, X).
        parts: by name, (Z, X); they sum to ``total``.
        grid: extent of the maps.
        title: first line; ``warning``: a line in red, if any.
    """

    images: Mapping[str, Map]
    ground_truth: Map
    total: Map
    parts: Mapping[str, Map]
    grid: Grid
    title: str
    warning: str = ""


def decomposition_png(scene: Scene) -> bytes:
    """Six images, ground truth, fused prediction and one panel for each part.

    Positive values, normalised to the maximum, as in Figure 2; forward is up, axes in metres.

    Returns:
        a PNG: the same bytes for the same scene.
    """
    settings: dict[Any, Any] = dict(matplotlib.rcParamsDefault)  # not the user's own
    settings.update(STYLE)
    with matplotlib.rc_context(settings):
        figure = _draw(scene)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def positive_normalised(values: Map) -> tuple[Map, float]:
    """Negative values cut to zero, then divided by the maximum; and that maximum.

    A map without positive values stays zero.
    """
    positive = np.clip(values, 0.0, None)
    top = float(positive.max(initial=0.0))
    return (positive / top if top > 0 else positive), top


def _draw(scene: Scene) -> Figure:
    """The whole figure; sizes in inches, from the panels up."""
    panels = 2 + len(scene.parts)
    height, width = next(iter(scene.images.values())).shape[:2]
    images = WIDTH / 3 * height / width * len(ROWS)
    z, _, x = scene.grid.size
    maps = WIDTH / panels * (z * scene.grid.voxel[2]) / (x * scene.grid.voxel[0]) + 0.2
    header, footer = 0.62, 0.66
    figure = Figure(figsize=(WIDTH, header + images + maps + footer), dpi=DPI, facecolor="white")
    total = figure.get_figheight()
    _title(figure, scene, total)
    bottom = (footer + maps) / total
    _images(figure, scene, (bottom, 1 - header / total))
    _maps(figure, scene, (footer / total, bottom - 0.36 / total))
    figure.text(0.5, 0.1 / total, _legend(scene), ha="center", va="bottom", fontsize=8.5)
    return figure


def _title(figure: Figure, scene: Scene, height: float) -> None:
    figure.text(0.5, 1 - 0.1 / height, scene.title, ha="center", va="top", fontsize=11)
    if scene.warning:
        figure.text(0.5, 1 - 0.36 / height, scene.warning, ha="center", va="top", color="#c00000")


def _legend(scene: Scene) -> str:
    parts = " + ".join(scene.parts)
    return (
        f"{NORMALISATION} Prediction = {parts}, cell by cell. Axes in metres, forward is up; grey "
        "outlines: ground truth; triangle: ego vehicle."
    )


def _images(figure: Figure, scene: Scene, span: tuple[float, float]) -> None:
    rows, columns = len(ROWS), len(ROWS[0])
    cells = figure.add_gridspec(
        rows, columns, left=0.01, right=0.99, bottom=span[0], top=span[1], wspace=0.015, hspace=0.03
    )
    for i, row in enumerate(ROWS):
        for j, camera in enumerate(row):
            axes = figure.add_subplot(cells[i, j])
            axes.imshow(np.clip(scene.images[camera], 0.0, 1.0), aspect="auto")
            axes.set_axis_off()
            label = camera.removeprefix("CAM_").replace("_", " ").lower()
            axes.text(
                *(0.015, 0.96, label),
                transform=axes.transAxes,
                va="top",
                color="white",
                bbox={"facecolor": "black", "alpha": 0.55, "pad": 2, "edgecolor": "none"},
            )


def _maps(figure: Figure, scene: Scene, span: tuple[float, float]) -> None:
    panels: list[tuple[str, Map, str]] = [("prediction", scene.total, "fused prediction")]
    panels += [(name, values, name) for name, values in scene.parts.items()]
    cells = figure.add_gridspec(
        1, len(panels) + 1, left=0.04, right=0.99, bottom=span[0], top=span[1], wspace=0.06
    )
    first = figure.add_subplot(cells[0, 0])
    _panel(first, scene, scene.ground_truth, "#404040", "ground truth")
    first.set_ylabel("forward (m)", labelpad=0)
    for index, (name, values, label) in enumerate(panels, start=1):
        axes = figure.add_subplot(cells[0, index])
        shown, top = positive_normalised(values)
        scale = f"max {top:.3g}" if top > 0 else "no positive value"
        _panel(axes, scene, shown, COLOURS.get(name, "#404040"), f"{label} ({scale})")
        _outlines(axes, scene)
        axes.set_yticklabels([])


def _panel(axes: Axes, scene: Scene, values: Map, colour: str, title: str) -> None:
    """One map in [0, 1], forward up, with the ego vehicle."""
    x, z = scene.grid.lower[0], scene.grid.lower[2]
    depth, _, width = scene.grid.size
    extent = (x, x + width * scene.grid.voxel[0], z, z + depth * scene.grid.voxel[2])
    axes.imshow(values, cmap=_from_white(colour), vmin=0, vmax=1, origin="lower", extent=extent)
    axes.set_title(title, fontsize=9.5, pad=4)
    axes.tick_params(length=2, width=0.6, pad=2, labelsize=8)
    axes.set_xlabel("right (m)", labelpad=1)
    _ego(axes)


def _outlines(axes: Axes, scene: Scene) -> None:
    if scene.ground_truth.any():
        x, z = _centres(scene.grid)
        axes.contour(x, z, scene.ground_truth, levels=[0.5], colors=OUTLINE, linewidths=0.5)


def _ego(axes: Axes) -> None:
    half, rear, front = EGO
    corners = [(-half, rear), (half, rear), (half, front), (-half, front)]
    axes.add_patch(Polygon(corners, closed=True, facecolor="black", edgecolor="white", lw=0.4))
    nose = [(-2 * half, rear), (0, 2.2 * front), (2 * half, rear)]
    axes.add_patch(Polygon(nose, closed=True, facecolor="black", edgecolor="white", lw=0.4))


def _centres(grid: Grid) -> Sequence[Map]:
    """Coordinates of the cells' centres, (X,) and (Z,), metres."""
    sizes = (grid.size[2], grid.size[0])
    return [
        grid.lower[axis] + grid.voxel[axis] * (np.arange(n) + 0.5)
        for axis, n in zip((0, 2), sizes, strict=True)
    ]


def _from_white(colour: str) -> Colormap:
    """White for 0, the colour for 0.6, and darker for 1, so that peaks stand out."""
    dark = tuple(0.45 * channel for channel in to_rgb(colour))
    stops = [(0.0, to_rgb("white")), (0.6, to_rgb(colour)), (1.0, dark)]
    return LinearSegmentedColormap.from_list("part", stops)
