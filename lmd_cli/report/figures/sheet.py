"""One sample on a sheet: a title, the cameras' images, a row of maps, and text below them.

Sizes are in inches, so that text keeps its size whatever the number of panels and rows.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D

from lmd_cli.report.figures.axes import BOX, DPI, draw_depths, draw_images
from lmd_cli.report.figures.scene import Scene, arranged
from lmd_cli.report.figures.styles import part_title

WIDTH = 13.0
#: Above the images, and what a warning takes; between images and maps; below the maps for their
#: axes; a line of the text; the legend; a colour bar.
TITLE, WARNING, GAP, AXES, LINE, LEGEND, BAR = 0.56, 0.22, 0.36, 0.52, 0.15, 0.26, 0.62
#: Characters of a line beside the colour bars.
LETTERS = 125
#: Left ends and width of the colour bars: of values, of depths.
VALUES, DEPTHS, LONG = 0.83, 0.645, 0.155
#: Images side by side, at least, so that they are smaller than the maps.
BESIDE = 6


@dataclass(frozen=True)
class Sheet:
    """A figure with its images and title drawn; ``cells`` are for the maps."""

    figure: Figure
    cells: Sequence[SubplotSpec]


def make_sheet(scene: Scene, maps: int, title: str, text: Sequence[str]) -> Sheet:
    """Draws all but the maps and the legend.

    Args:
        scene: its images and the shape of its maps.
        maps: how many lie side by side.
        title: first line.
        text: sentences below, wrapped.
    """
    row = [camera for row in arranged(scene.images) for camera in row]
    beside = max(BESIDE, maps + 1, len(row))
    images = WIDTH / beside * _ratio(scene) if scene.images else 0.0
    depth = WIDTH / maps * depth_of(scene) + 0.2
    header = TITLE + (WARNING if scene.warning else 0.0)
    below = footer_height(text)
    height = header + images + depth + below
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    _title(figure, title, scene, height)
    bottom = (below + depth) / height
    if scene.images:
        side = (1 - 0.98 * len(row) / beside) / 2
        span = {"bottom": bottom, "top": 1 - header / height, "left": side, "right": 1 - side}
        draw_images(figure, figure.add_gridspec(1, 1, **span)[0], scene, [row])
    span = {"bottom": below / height, "top": bottom - GAP / height}
    grid = figure.add_gridspec(1, maps, left=0.04, right=0.99, wspace=0.06, **span)
    draw_footer(figure, text)
    return Sheet(figure, [grid[0, i] for i in range(maps)])


def footer_height(text: Sequence[str]) -> float:
    """Of the maps' axes and what is below them."""
    return AXES + max(LINE * len(_wrapped(text)) + 0.1 + LEGEND, BAR)


def draw_footer(figure: Figure, text: Sequence[str]) -> None:
    """The sentences, at the bottom left."""
    place = (0.01, 0.08 / figure.get_figheight())
    lines = "\n".join(_wrapped(text))
    figure.text(*place, lines, va="bottom", fontsize=7.8, linespacing=1.35, parse_math=False)


def draw_legend(figure: Figure, scenes: Sequence[Scene], text: Sequence[str]) -> None:
    """What is drawn in maps and images, above the sentences, and the colours of the points."""
    handles = [_mark("ego vehicle", marker="^", markerfacecolor="black")]
    if any(len(scene.outlines) for scene in scenes):
        handles.append(_mark("annotated vehicle", marker="s"))
    marks = [mark for scene in scenes for mark in scene.marks]
    for correct, what, shape in ((True, "annotated", "o"), (False, "not annotated", "x")):
        if any(mark.correct == correct for mark in marks):
            handles.append(_mark(f"only this part is enough, {what}", marker=shape))
    overlays = [over for scene in scenes for over in scene.overlays.values()]
    if any(len(over.segments) for over in overlays):
        handles.append(Line2D([], [], color=BOX, lw=1.6, label="annotated, in the images"))
    height = figure.get_figheight()
    above = (0.1 + LINE * len(_wrapped(text))) / height
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, above)}
    spacing: dict[str, Any] = {"columnspacing": 1.4, "handletextpad": 0.4, "handlelength": 1.2}
    figure.legend(handles=handles, ncols=6, frameon=False, fontsize=7.8, **place, **spacing)
    if sensors := sorted({part_title(over.sensor) for over in overlays if len(over.points)}):
        draw_depths(figure, " and ".join(sensors), bar_place(figure, DEPTHS))


def _mark(label: str, **style: Any) -> Line2D:
    usual = {"markersize": 7, "markerfacecolor": "none", "markeredgecolor": "black"}
    return Line2D([], [], linestyle="none", label=label, **{**usual, **style})


def bar_place(figure: Figure, left: float = VALUES) -> tuple[float, float, float, float]:
    """Where a colour bar goes, at the bottom right."""
    height = figure.get_figheight()
    return left, 0.3 / height, LONG, 0.1 / height


def title_size(panel: float) -> float:
    """Points of a map's title, so that it stays over its map.

    Args:
        panel: the map's width with the gap beside it, inches.
    """
    return min(9.5, 4.6 * panel)


def depth_of(scene: Scene) -> float:
    """A map's height over its width."""
    plane = scene.plane
    return (plane.front - plane.back) / (plane.right - plane.left)


def _wrapped(text: Sequence[str]) -> list[str]:
    return [line for one in text for line in textwrap.wrap(one, LETTERS)]


def _ratio(scene: Scene) -> float:
    height, width = next(iter(scene.images.values())).shape[:2]
    return height / width


def _title(figure: Figure, title: str, scene: Scene, height: float) -> None:
    """Scene and time; small below them, what nobody reads aloud."""
    place: dict[str, Any] = {"ha": "center", "va": "top", "parse_math": False}
    figure.text(0.5, 1 - 0.1 / height, title, fontsize=11.5, **place)
    figure.text(0.5, 1 - 0.34 / height, scene.note, fontsize=7, color="#59636e", **place)
    if scene.warning:
        figure.text(0.5, 1 - 0.52 / height, scene.warning, color="#c00000", **place)
