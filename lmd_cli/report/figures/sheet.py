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

from lmd_cli.report.figures.axes import DPI, FAR, draw_images
from lmd_cli.report.figures.scene import Scene, arranged
from lmd_cli.report.figures.styles import part_title

WIDTH = 13.0
#: Above the images, and what a warning takes; between images and maps; below the maps for their
#: axes; a line of the text; a colour bar.
TITLE, WARNING, GAP, AXES, LINE, BAR = 0.42, 0.24, 0.36, 0.52, 0.15, 0.62
#: Characters of a line, beside a colour bar or without one.
BESIDE, ALONE = 165, 205


@dataclass(frozen=True)
class Sheet:
    """A figure with its images and title drawn; ``cells`` are for the maps."""

    figure: Figure
    cells: Sequence[SubplotSpec]


def make_sheet(scene: Scene, maps: int, title: str, text: Sequence[str], bar: bool) -> Sheet:
    """Draws all but the maps.

    Args:
        scene: its images and the shape of its maps.
        maps: how many lie side by side.
        title: first line.
        text: sentences below, wrapped.
        bar: leave room for a colour bar beside the text.
    """
    images = WIDTH / 3 * _ratio(scene) * len(arranged(scene.images)) if scene.images else 0.0
    depth = WIDTH / maps * depth_of(scene) + 0.2
    header = TITLE + (WARNING if scene.warning else 0.0)
    below = footer_height(text, bar)
    height = header + images + depth + below
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    _title(figure, title, scene.warning, height)
    bottom = (below + depth) / height
    if scene.images:
        span = {"bottom": bottom, "top": 1 - header / height}
        draw_images(figure, figure.add_gridspec(1, 1, left=0.01, right=0.99, **span)[0], scene)
    span = {"bottom": below / height, "top": bottom - GAP / height}
    grid = figure.add_gridspec(1, maps, left=0.04, right=0.99, wspace=0.06, **span)
    draw_footer(figure, text, bar)
    return Sheet(figure, [grid[0, i] for i in range(maps)])


def footer_height(text: Sequence[str], bar: bool) -> float:
    """Of the maps' axes and what is below them."""
    return AXES + max(LINE * len(_wrapped(text, bar)) + 0.1, BAR if bar else 0.0)


def draw_footer(figure: Figure, text: Sequence[str], bar: bool) -> None:
    """The sentences, at the bottom left."""
    place = (0.01, 0.08 / figure.get_figheight())
    lines = "\n".join(_wrapped(text, bar))
    figure.text(*place, lines, va="bottom", fontsize=7.8, linespacing=1.35, parse_math=False)


def bar_place(figure: Figure) -> tuple[float, float, float, float]:
    """Where a colour bar goes, at the bottom right."""
    height = figure.get_figheight()
    return 0.83, 0.3 / height, 0.155, 0.1 / height


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


def image_note(scenes: Sequence[Scene]) -> str:
    """What is drawn over the images, to go on behind ``Outlines: annotated vehicles``."""
    overlays = [over for scene in scenes for over in scene.overlays.values()]
    boxes = any(len(over.segments) for over in overlays)
    sensors = {part_title(o.sensor) for o in overlays if len(o.points)}
    points = f"{' and '.join(sorted(sensors))} points (cyan: near; magenta: {FAR} m and beyond)"
    listed = [*(["their boxes"] if boxes else []), *([points] if sensors else [])]
    return f"; in the images: {' and '.join(listed)}" if listed else ""


def _wrapped(text: Sequence[str], bar: bool) -> list[str]:
    return [line for one in text for line in textwrap.wrap(one, BESIDE if bar else ALONE)]


def _ratio(scene: Scene) -> float:
    height, width = next(iter(scene.images.values())).shape[:2]
    return height / width


def _title(figure: Figure, title: str, warning: str, height: float) -> None:
    place: dict[str, Any] = {"ha": "center", "va": "top", "parse_math": False}
    figure.text(0.5, 1 - 0.1 / height, title, fontsize=11, **place)
    if warning:
        figure.text(0.5, 1 - 0.36 / height, warning, color="#c00000", **place)
