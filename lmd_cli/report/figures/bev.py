"""The paper's figures 4 (signed), 2 (positive) and 3 (sigmoid), of one sample or of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec

from lmd_cli.report.figures.axes import (
    DPI,
    Format,
    draw_bar,
    draw_images,
    draw_map,
    draw_marks,
    draw_vehicles,
    figure_bytes,
    figure_settings,
)
from lmd_cli.report.figures.scene import Scene, arranged
from lmd_cli.report.figures.sheet import (
    WIDTH,
    bar_place,
    depth_of,
    draw_footer,
    draw_legend,
    footer_height,
    make_sheet,
    title_size,
)
from lmd_cli.report.figures.styles import (
    MapStyle,
    Style,
    bias_lines,
    from_white,
    make_map_style,
    part_title,
)

#: Of a grid, inches: between two rows (axes of the one above, titles of the maps, the row's title),
#: from a row to its title, and for the axis between images and maps.
BETWEEN, ABOVE, AXIS = 0.58, 0.22, 0.42
#: What the images of a grid take, in maps' widths.
IMAGES = 2.1


def decomposition_figure(scene: Scene, style: Style = "signed", form: Format = "png") -> bytes:
    """Six images, ground truth, fused prediction and one panel for each part; forward is up.

    Returns:
        a file: the same bytes for the same scene.
    """
    with figure_settings():
        map_style = make_map_style(style, [scene.total, *scene.parts.values()], list(scene.parts))
        return figure_bytes(_single(scene, map_style), form)


def grid_figure(scenes: Sequence[Scene], style: Style = "signed", form: Format = "png") -> bytes:
    """One row for each sample, as in the paper's figures; colour scales are shared by all rows.

    The scenes must have the same parts.
    """
    maps = [m for scene in scenes for m in (scene.total, *scene.parts.values())]
    with figure_settings():
        map_style = make_map_style(style, maps, list(scenes[0].parts))
        return figure_bytes(_grid(scenes, map_style), form)


def _single(scene: Scene, map_style: MapStyle) -> Figure:
    """The whole figure."""
    panels, text = 2 + len(scene.parts), _text([scene], map_style)
    sheet = make_sheet(scene, panels, scene.title, text)
    for axes in _maps(sheet.figure, sheet.cells, scene, map_style, title_size(WIDTH / panels)):
        axes.set_xlabel("right (m)", labelpad=1)
    draw_legend(sheet.figure, [scene], text)
    draw_bar(sheet.figure, map_style, bar_place(sheet.figure))
    return sheet.figure


def _grid(scenes: Sequence[Scene], map_style: MapStyle) -> Figure:
    """Rows of images, ground truth, prediction, parts."""
    panels, text = 2 + len(scenes[0].parts), _text(scenes, map_style)
    panel = (WIDTH - AXIS) / (panels + IMAGES)
    cells = _grid_cells(scenes, panels, panel, footer_height(text))
    figure = cells.figure
    assert isinstance(figure, Figure)
    height = figure.get_figheight()
    for number, scene in enumerate(scenes):
        draw_images(figure, cells[number, 0], scene, arranged(scene.images))
        places = [cells[number, 2 + i] for i in range(panels)]
        for axes in _maps(figure, places, scene, map_style, title_size(panel)):
            if number + 1 == len(scenes):
                axes.set_xlabel("right (m)", labelpad=1)
        box = cells[number, 0].get_position(figure)
        place = (box.x0, box.y1 + ABOVE / height)
        figure.text(*place, scene.title, fontsize=9, va="bottom", parse_math=False)
        note = (box.x1, place[1])
        small: dict[str, Any] = {"fontsize": 6, "color": "#59636e", "ha": "left", "va": "bottom"}
        figure.text(*note, scene.note, **small, parse_math=False)
    draw_footer(figure, text)
    draw_legend(figure, scenes, text)
    draw_bar(figure, map_style, bar_place(figure))
    return figure


def _grid_cells(scenes: Sequence[Scene], panels: int, panel: float, below: float) -> GridSpec:
    """A new figure's cells: in each row the images, room for an axis, and the maps.

    Args:
        scenes: one for each row.
        panels: maps of a row.
        panel: a map's width, inches.
        below: height of what is below the maps, inches.
    """
    map_height = panel * max(depth_of(scene) for scene in scenes)
    height = (map_height + BETWEEN) * len(scenes) + below
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    return figure.add_gridspec(
        len(scenes),
        panels + 2,
        width_ratios=[IMAGES, AXIS / panel, *[1.0] * panels],
        left=0.01,
        right=0.99,
        bottom=below / height,
        top=1 - BETWEEN / height,
        wspace=0.08,
        hspace=BETWEEN / map_height,
    )


def _maps(
    figure: Figure, cells: Sequence[SubplotSpec], scene: Scene, map_style: MapStyle, size: float
) -> list[Axes]:
    """Ground truth, fused prediction and parts, with titles of a size in points."""
    first = figure.add_subplot(cells[0])
    draw_map(first, scene, scene.ground_truth, from_white(), (0.0, 1.0))
    draw_vehicles(first, scene, "#8a8a8a")
    first.set_title(scene.truth, fontsize=size, pad=4)
    first.set_ylabel("forward (m)", labelpad=0)
    shown = [("prediction", scene.total), *scene.parts.items()]
    axes = [first]
    for cell, (name, values) in zip(cells[1:], shown, strict=True):
        panel = figure.add_subplot(cell)
        coloured, note = map_style.values(values)
        draw_map(panel, scene, coloured, map_style.colours(name), (map_style.low, map_style.high))
        draw_vehicles(panel, scene, map_style.outline)
        draw_marks(panel, [m for m in scene.marks if name in ("prediction", m.sensor)])
        panel.set_title(f"{part_title(name)}{note}", fontsize=size, pad=4, parse_math=False)
        panel.set_yticklabels([])
        axes.append(panel)
    return axes


def _text(scenes: Sequence[Scene], map_style: MapStyle) -> list[str]:
    """What is to be seen, and how it is coloured."""
    parts, criterion = " + ".join(map(part_title, scenes[0].parts)), scenes[0].criterion
    lines = [f"Fused prediction = {parts}, cell by cell. {map_style.statement} Forward is up."]
    if not criterion.peak:
        lines.append("Ground truth: the corners of annotated vehicles are cut to whole cells.")
    if any(scene.marks for scene in scenes):
        lines.append(f"Only this part is enough: {criterion.definition}.")
    return lines + bias_lines(scene.parts for scene in scenes)
