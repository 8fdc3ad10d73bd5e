"""The paper's figures 2 (positive), 3 (sigmoid) and 4 (signed), of one sample or of several."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from lmd_cli.report.decisive import DEFINITION
from lmd_cli.report.drawing import (
    DPI,
    Format,
    draw_bar,
    draw_images,
    draw_map,
    draw_marks,
    draw_vehicles,
    figure_bytes,
    own_settings,
)
from lmd_cli.report.looks import Look, Style, from_white, make_look
from lmd_cli.report.scene import ROWS, Scene

WIDTH = 13.0
#: Inches above and below the panels, and between images and maps.
HEADER, FOOTER, GAP = 0.62, 1.35, 0.36


def decomposition_figure(scene: Scene, style: Style = "positive", form: Format = "png") -> bytes:
    """Six images, ground truth, fused prediction and one panel for each part; forward is up.

    Returns:
        a file: the same bytes for the same scene.
    """
    with own_settings():
        look = make_look(style, [scene.total, *scene.parts.values()])
        return figure_bytes(_single(scene, look), form)


def grid_figure(scenes: Sequence[Scene], style: Style = "positive", form: Format = "png") -> bytes:
    """One row for each sample, as in the paper's figures; colour scales are shared by all rows.

    The scenes must have the same parts.
    """
    maps = [m for scene in scenes for m in (scene.total, *scene.parts.values())]
    with own_settings():
        return figure_bytes(_grid(scenes, make_look(style, maps)), form)


def _single(scene: Scene, look: Look) -> Figure:
    """The whole figure; sizes in inches, from the panels up."""
    images = WIDTH / 3 * _ratio(scene) * len(ROWS) if scene.images else 0.0
    maps = WIDTH / (2 + len(scene.parts)) * _depth(scene) + 0.2
    figure = Figure(figsize=(WIDTH, HEADER + images + maps + FOOTER), dpi=DPI, facecolor="white")
    total = figure.get_figheight()
    _title(figure, scene, total)
    bottom = (FOOTER + maps) / total
    if scene.images:
        span = {"bottom": bottom, "top": 1 - HEADER / total}
        draw_images(figure, figure.add_gridspec(1, 1, left=0.01, right=0.99, **span)[0], scene)
    span = {"bottom": FOOTER / total, "top": bottom - GAP / total}
    cells = figure.add_gridspec(1, 2 + len(scene.parts), left=0.04, right=0.99, wspace=0.06, **span)
    axes = _maps(figure, [cells[0, i] for i in range(2 + len(scene.parts))], scene, look)
    for panel in axes:
        panel.set_xlabel("right (m)", labelpad=1)
    _footer(figure, [scene], look, total)
    return figure


def _grid(scenes: Sequence[Scene], look: Look) -> Figure:
    """Rows of images, ground truth, prediction, parts."""
    panels = 2 + len(scenes[0].parts)
    wide, gap = 2.1, 0.12  # what the images take, and the axis beside them, in panels
    panel = WIDTH / (panels + wide + gap)
    row = panel * max(_depth(scene) for scene in scenes) + 0.3
    height = 0.3 + row * len(scenes) + FOOTER
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    cells = figure.add_gridspec(
        len(scenes),
        panels + 2,
        width_ratios=[wide, gap, *[1.0] * panels],
        left=0.01,
        right=0.99,
        bottom=FOOTER / height,
        top=1 - 0.3 / height,
        wspace=0.08,
        hspace=0.3 / (row - 0.3),
    )
    for number, scene in enumerate(scenes):
        draw_images(figure, cells[number, 0], scene, large=False)
        axes = _maps(figure, [cells[number, 2 + i] for i in range(panels)], scene, look)
        axes[0].set_ylabel("")
        box = cells[number, 0].get_position(figure)
        figure.text(
            box.x0, box.y1 + 0.04 / height, scene.title, fontsize=8, va="bottom", parse_math=False
        )
    _footer(figure, scenes, look, height)
    return figure


def _maps(figure: Figure, cells: Sequence[SubplotSpec], scene: Scene, look: Look) -> list[Axes]:
    """Ground truth, fused prediction and parts."""
    first = figure.add_subplot(cells[0])
    draw_map(first, scene, scene.ground_truth, from_white(""), (0.0, 1.0))
    draw_vehicles(first, scene, "#8a8a8a")
    first.set_title("ground truth", fontsize=9.5, pad=4)
    first.set_ylabel("forward (m)", labelpad=0)
    shown = [("prediction", scene.total), *scene.parts.items()]
    axes = [first]
    for cell, (name, values) in zip(cells[1:], shown, strict=True):
        panel = figure.add_subplot(cell)
        coloured, note = look.values(values)
        draw_map(panel, scene, coloured, look.colours(name), (look.low, look.high))
        draw_vehicles(panel, scene, look.outline)
        draw_marks(panel, [m for m in scene.marks if name in ("prediction", m.sensor)])
        label = "fused prediction" if name == "prediction" else name
        panel.set_title(f"{label}{note}", fontsize=9.5, pad=4, parse_math=False)
        panel.set_yticklabels([])
        axes.append(panel)
    return axes


def _ratio(scene: Scene) -> float:
    height, width = next(iter(scene.images.values())).shape[:2]
    return height / width


def _depth(scene: Scene) -> float:
    """A map's height over its width."""
    plane = scene.plane
    return (plane.front - plane.back) / (plane.right - plane.left)


def _title(figure: Figure, scene: Scene, height: float) -> None:
    figure.text(
        0.5, 1 - 0.1 / height, scene.title, ha="center", va="top", fontsize=11, parse_math=False
    )
    if scene.warning:
        figure.text(0.5, 1 - 0.36 / height, scene.warning, ha="center", va="top", color="#c00000")


def _footer(figure: Figure, scenes: Sequence[Scene], look: Look, height: float) -> None:
    """What is to be seen, how it is coloured, and the shared scale."""
    parts = " + ".join(scenes[0].parts)
    lines = [
        f"{look.statement} Prediction = {parts}, cell by cell. Axes in metres, forward is up; "
        "triangle: ego vehicle.",
        "Outlines: annotated vehicles" + (_image_note(scenes) + "."),
    ]
    if any(scene.marks for scene in scenes):
        lines.append(
            f"Green: one sensor alone is {DEFINITION} (ring: a vehicle; cross: none there)."
        )
    width = 165 if look.unit else 205  # characters beside the colour bar, or without it
    text = "\n".join(line for long in lines for line in textwrap.wrap(long, width))
    figure.text(0.01, 0.08 / height, text, va="bottom", fontsize=7.8, linespacing=1.35)
    draw_bar(figure, look, (0.83, 0.32 / height, 0.155, 0.1 / height))


def _image_note(scenes: Sequence[Scene]) -> str:
    overlays = [over for scene in scenes for over in scene.overlays.values()]
    boxes = any(len(over.segments) for over in overlays)
    points = any(len(over.points) for over in overlays)
    listed = [*(["their boxes"] if boxes else []), *(["radar or LiDAR points"] if points else [])]
    return f"; in the images: {' and '.join(listed)}" if listed else ""
