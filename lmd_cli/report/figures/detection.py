"""One detection: in the camera that shows it best, on the map, and in each sensor's part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lmd_cli.evaluation.ground.plane import Plane
from lmd_cli.report.figures.axes import DPI, Format, figure_bytes, figure_settings
from lmd_cli.report.figures.styles import part_title

Map = NDArray[np.floating]
#: Metres around the detection that its maps show.
AROUND = 12.0
PANEL = 2.1  # inches
BOX, ANNOTATION = "#e0218a", "#12a012"


@dataclass(frozen=True, eq=False)
class Look:
    """What a picture of a detection shows.

    Attributes:
        title: what it is.
        image: of a camera, (H, W, 3) in [0, 1]; none if no camera shows it.
        camera: its name.
        in_image, on_map: lines (n, 2, 2) of the box (``box``) and of annotations
            (``annotations``), in pixels, and in metres (right, forward).
        total, parts: the output and each part of it, (rows, columns), forward up.
        values: of the output and of each part at the place where the detection is decided.
        plane: where the maps lie.
        centre: of the detection, metres (right, forward).
    """

    title: str
    image: Map | None
    camera: str
    total: Map
    parts: Mapping[str, Map]
    values: Mapping[str, float]
    plane: Plane
    centre: tuple[float, float]
    in_image: Mapping[str, Map] = field(default_factory=dict)
    on_map: Mapping[str, Map] = field(default_factory=dict)


def detection_figure(look: Look, form: Format = "png") -> bytes:
    """A file: the same bytes for the same detection."""
    with figure_settings():
        return figure_bytes(_figure(look), form)


def _figure(look: Look) -> Figure:
    maps = {"prediction": look.total, **look.parts}
    top = 2.6 if look.image is not None else 0.0
    figure = Figure(figsize=(PANEL * len(maps), top + PANEL + 1.0), dpi=DPI, layout="constrained")
    figure.suptitle(look.title, fontsize=8, parse_math=False)
    cells = figure.add_gridspec(2 if top else 1, 1, height_ratios=[top, PANEL + 0.6][not top :])
    below = figure.add_subfigure(cells[-1])
    if top:
        _image(figure.add_subfigure(cells[0]).subplots(), look)
    scale = float(np.quantile(np.abs(np.stack(list(maps.values()))), 0.999)) or 1.0
    panels = below.subplots(1, len(maps), sharey=True)
    for axes, (name, values) in zip(panels, maps.items(), strict=True):
        shown = axes.imshow(
            values,
            origin="lower",
            extent=look.plane.extent,
            cmap="RdBu_r",
            vmin=-scale,
            vmax=scale,
            interpolation="nearest",
        )
        _lines(axes, look.on_map)
        x, y = look.centre
        axes.set_xlim(x - AROUND, x + AROUND)
        axes.set_ylim(y - AROUND, y + AROUND)
        axes.set_title(f"{part_title(name)} {look.values[name]:+.3g}", fontsize=8)
        axes.set_xlabel("right (m)")
    panels[0].set_ylabel("forward (m)")
    bar = below.colorbar(shown, ax=panels, fraction=0.02)
    bar.set_label("part of the output")
    return figure


def _image(axes: Axes, look: Look) -> None:
    assert look.image is not None
    height, width = look.image.shape[:2]
    axes.imshow(np.clip(look.image, 0, 1))
    _lines(axes, look.in_image)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_axis_off()
    axes.set_title(f"{look.camera} (pink: the detection; green: annotations)", fontsize=8)


def _lines(axes: Axes, lines: Mapping[str, Map]) -> None:
    styles: Sequence[tuple[str, str, float, str]] = (
        ("annotations", ANNOTATION, 0.8, "dashed"),
        ("box", BOX, 1.4, "solid"),
    )
    for name, colour, width, dash in styles:
        axes.add_collection(
            LineCollection(
                list(lines.get(name, ())), colors=colour, linewidths=width, linestyles=dash
            )
        )
