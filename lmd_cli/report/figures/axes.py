"""Drawing primitives of figures: images with boxes and points, maps with vehicles, a colour bar."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Polygon
from matplotlib.ticker import FixedLocator, MaxNLocator, StrMethodFormatter

from lmd_cli.evaluation.ground.decisive import Decisive
from lmd_cli.report.figures.projection import Overlay
from lmd_cli.report.figures.scene import Scene
from lmd_cli.report.figures.styles import Map, MapStyle, from_white

Format = Literal["png", "svg", "pdf"]
DPI = 150
BOX = "#ffd92f"
#: Points in the images: bright at 0 m, dark at :data:`FAR` metres; the few of a radar larger.
DEPTH = LinearSegmentedColormap.from_list("depth", ["#d8ffff", "#35b6ff", "#1430b8"])
FAR = 60
SIZES = {"radar": 7, "lidar": 2}
#: TrueType fonts inside PDF, letters as outlines inside SVG: the same everywhere.
SETTINGS: dict[str, Any] = {
    "font.size": 9.0,
    "font.family": "DejaVu Sans",
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "lmd",
}


@contextmanager
def figure_settings() -> Iterator[None]:
    """matplotlib's defaults with the figures' settings, whatever the user's are."""
    settings: dict[Any, Any] = dict(matplotlib.rcParamsDefault)
    settings.update(SETTINGS)
    with matplotlib.rc_context(settings):
        yield


def figure_bytes(figure: Figure, form: Format) -> bytes:
    """A file without a date or a version: the same bytes for the same figure."""
    buffer = io.BytesIO()
    if form == "png":
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    elif form == "svg":
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    else:
        nothing = dict.fromkeys(("CreationDate", "Creator", "Producer"))
        FigureCanvasPdf(figure).print_pdf(buffer, metadata=nothing)
    return buffer.getvalue()


def draw_images(
    figure: Figure, cell: SubplotSpec, scene: Scene, rows: Sequence[Sequence[str]]
) -> None:
    """The cameras in rows, each image with its boxes and points."""
    cells = cell.subgridspec(len(rows), max(map(len, rows)), wspace=0.015, hspace=0.03)
    for i, row in enumerate(rows):
        for j, camera in enumerate(row):
            axes = figure.add_subplot(cells[i, j])
            axes.set_axis_off()
            if camera not in scene.images:
                continue
            axes.imshow(np.clip(scene.images[camera], 0.0, 1.0), aspect="auto")
            if camera in scene.overlays:
                _overlay(axes, scene.overlays[camera], scene.images[camera].shape[:2])
            _image_label(axes, camera)


def _image_label(axes: Axes, camera: str) -> None:
    axes.text(
        *(0.015, 0.96, camera.removeprefix("CAM_").replace("_", " ").lower()),
        transform=axes.transAxes,
        va="top",
        fontsize=6,
        color="white",
        bbox={"facecolor": "black", "alpha": 0.55, "pad": 1.5, "edgecolor": "none"},
    )


def _overlay(axes: Axes, over: Overlay, size: Sequence[int]) -> None:
    """Boxes' edges, and points coloured by depth, see :data:`DEPTH`."""
    height, width = size
    axes.add_collection(LineCollection(list(over.segments), colors=BOX, linewidths=0.6))
    if len(over.points):
        right, down = over.points.T
        depth_style: dict[str, Any] = {"cmap": DEPTH, "vmin": 0, "vmax": FAR, "linewidths": 0}
        axes.scatter(right, down, s=SIZES.get(over.sensor, 3), c=over.depth, **depth_style)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def draw_map(
    axes: Axes, scene: Scene, values: Map, colours: Colormap, scale: tuple[float, float]
) -> None:
    """One map, forward up, with the ego vehicle; axes in metres."""
    axes.imshow(
        values,
        cmap=colours,
        vmin=scale[0],
        vmax=scale[1],
        origin="lower",
        extent=scene.plane.extent,
        interpolation="nearest",
    )
    left, right, back, front = scene.plane.extent
    axes.xaxis.set_major_locator(FixedLocator(_ticks(left, right)))
    axes.yaxis.set_major_locator(FixedLocator(_ticks(back, front)))
    axes.tick_params(length=2, width=0.6, pad=2, labelsize=8)
    _ego(axes, scene.plane.ego)


def _ticks(low: float, high: float) -> list[float]:
    """Multiples of 20 or 10 m, none so near an edge that its label would meet the next map's."""
    every = 20 if high - low > 60 else 10
    margin = 0.06 * (high - low)
    first, last = math.ceil((low + margin) / every), math.floor((high - margin) / every)
    return [float(every * k) for k in range(first, last + 1)]


def draw_vehicles(axes: Axes, scene: Scene, colour: str) -> None:
    """Annotated boxes, cut at the map's edge."""
    limits = axes.axis()
    for outline in scene.outlines:
        box = Polygon(outline, closed=True, fill=False, edgecolor=colour, lw=0.6)
        axes.add_patch(box)
    axes.axis(limits)


def draw_marks(axes: Axes, marks: Sequence[Decisive]) -> None:
    """Rings where a vehicle is annotated, crosses where none is; white around black, so that they
    are seen on any ground and in any print."""
    for mark in marks:
        for style in RING if mark.correct else CROSS:
            axes.plot(mark.right, mark.forward, linestyle="none", **style)


def _outlined(**style: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Below a white mark, above the same in black and thinner."""
    below = {**style, "markeredgecolor": "white", "markeredgewidth": 3.0}
    return below, {**style, "markeredgecolor": "black", "markeredgewidth": 1.2}


RING = _outlined(marker="o", markersize=9, markerfacecolor="none")
CROSS = _outlined(marker="x", markersize=6)


def draw_bar(figure: Figure, map_style: MapStyle, place: tuple[float, float, float, float]) -> None:
    """The scale that the panels share, with its unit and what its ends mean."""
    signed = map_style.style == "signed"
    unit = f"against  ←  {map_style.unit}  →  for" if signed else map_style.unit
    shown = ScalarMappable(Normalize(map_style.low, map_style.high), map_style.colours(""))
    _bar(figure, shown, unit, place)


def draw_depths(figure: Figure, sensor: str, place: tuple[float, float, float, float]) -> None:
    """The colours of points in the images."""
    shown = ScalarMappable(Normalize(0, FAR), DEPTH)
    _bar(figure, shown, f"{sensor} points in the images, depth (m)", place)


def draw_activations(figure: Figure, top: float, place: tuple[float, float, float, float]) -> None:
    """The scale of a layer's activation maps, in grey for all their colours."""
    shown = ScalarMappable(Normalize(0, top or 1.0), from_white())
    _bar(figure, shown, "activation, in each map's own colour", place)


def _bar(
    figure: Figure, shown: ScalarMappable, title: str, place: tuple[float, float, float, float]
) -> None:
    axes = figure.add_axes(place)
    bar = figure.colorbar(shown, cax=axes, orientation="horizontal")
    bar.locator, bar.formatter = MaxNLocator(4, steps=[1, 2, 5, 10]), StrMethodFormatter("{x:g}")
    bar.update_ticks()
    bar.outline.set_linewidth(0.5)  # type: ignore[operator]
    axes.tick_params(length=2, width=0.6, pad=1.5, labelsize=8)
    axes.set_title(title, fontsize=8, pad=2)


def _ego(axes: Axes, ego: tuple[float, float, float]) -> None:
    """A car with an arrow's head over it, so that it is seen on a small map."""
    half, rear, front = ego
    corners = [(-half, rear), (half, rear), (half, front), (-half, front)]
    axes.add_patch(Polygon(corners, closed=True, facecolor="black", edgecolor="white", lw=0.4))
    nose = [(-2 * half, rear), (0, front + 0.5 * (front - rear)), (2 * half, rear)]
    axes.add_patch(Polygon(nose, closed=True, facecolor="black", edgecolor="white", lw=0.4))
