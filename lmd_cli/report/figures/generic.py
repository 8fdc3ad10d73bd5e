"""Figures of outputs that do not lie on the ground: maps in their own pixels, or numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lmd_cli.evaluation.decomposed_sample import SampleDecomposition
from lmd_cli.report.figures.axes import DPI, Format, draw_bar, figure_bytes, figure_settings
from lmd_cli.report.figures.scene import note_of, title_of
from lmd_cli.report.figures.styles import (
    Map,
    MapStyle,
    Style,
    bias_lines,
    from_white,
    make_map_style,
)
from lmd_cli.report.palette import colour

WIDTH = 13.0
#: Inches above and below the panels, and for each panel of numbers.
HEADER, FOOTER, ROW = 0.62, 0.78, 1.15
#: Up to this many numbers are written beside their bars.
WRITTEN = 12
TRUTH, PREDICTION, TRUTH_COLOUR = "ground truth", "prediction", "#8a8a8a"


@dataclass(frozen=True, eq=False)
class View:
    """One sample, as :func:`lmd_cli.evaluation.decomposed_sample.shown` picks it.

    Attributes:
        total: (H, W), or (N,).
        parts: by name, the same shape; they sum to ``total``.
        truth: the same shape, if known.
        title: first line; ``note``: small below it; ``warning``: a line in red, if any.
    """

    total: Map
    parts: Mapping[str, Map]
    truth: Map | None
    title: str
    note: str = ""
    warning: str = ""

    @property
    def panels(self) -> list[tuple[str, Map]]:
        """Name and values, from left to right or from the top down."""
        first = [] if self.truth is None else [(TRUTH, self.truth)]
        return [*first, (PREDICTION, self.total), *self.parts.items()]


def view_of(split: SampleDecomposition) -> View:
    """A decomposed sample to be drawn."""
    warning = f"{split.built.checkpoint}: the parts mean nothing" if split.built.random else ""
    truth: Tensor | None = split.ground_truth
    return View(
        split.total.numpy(),
        {name: part.numpy() for name, part in split.parts.items()},
        None if truth is None else truth.numpy(),
        title_of(split),
        note_of(split),
        warning,
    )


def generic_figure(views: Sequence[View], style: Style = "signed", form: Format = "png") -> bytes:
    """One sample, or several below each other; the colours' scales are shared by all.

    The views must be of the same shape and have the same parts. Numbers are drawn as bars,
    whatever the style.
    """
    with figure_settings():
        if views[0].total.ndim == 1:
            return figure_bytes(_bars(views), form)
        maps = [m for v in views for m in (v.total, *v.parts.values())]
        map_style = make_map_style(style, maps, list(views[0].parts), "output")
        return figure_bytes(_maps(views, map_style), form)


def _maps(views: Sequence[View], map_style: MapStyle) -> Figure:
    """One row for each view."""
    rows, columns = views[0].total.shape
    count = max(len(view.panels) for view in views)
    panel = WIDTH / count
    tall = min(panel * rows / columns, 8.0) + HEADER
    height = tall * len(views) + FOOTER
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    for number, view in enumerate(views):
        top = height - number * tall
        title(figure, view, top / height, height)
        span = {"top": (top - HEADER) / height, "bottom": (top - tall + 0.12) / height}
        grid = figure.add_gridspec(1, count, left=0.04, right=0.99, wspace=0.08, **span)
        for i, (name, values) in enumerate(view.panels):
            axes = figure.add_subplot(grid[0, i])
            _map(axes, name, values, map_style)
            if i:
                axes.set_yticklabels([])
    parts = " + ".join(views[0].parts)
    lines = [
        f"Prediction = {parts}, pixel by pixel. {map_style.statement} Axes in pixels, the first "
        "row on top."
    ]
    footer(figure, lines + bias_lines(view.parts for view in views), height)
    draw_bar(figure, map_style, bar_place(height))
    return figure


def _map(axes: Axes, name: str, values: Map, map_style: MapStyle) -> None:
    if name == TRUTH:
        coloured, note, colours, limits = values, "", from_white(), (0.0, 1.0)
    else:
        coloured, note = map_style.values(values)
        colours, limits = map_style.colours(name), (map_style.low, map_style.high)
    axes.imshow(coloured, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axes.set_title(f"{name}{note}", fontsize=9.5, pad=4, parse_math=False)
    axes.tick_params(length=2, width=0.6, pad=2, labelsize=8)


def _bars(views: Sequence[View]) -> Figure:
    """One panel for each part, below each other; one scale for the prediction and its parts."""
    count = sum(len(view.panels) for view in views)
    height = ROW * count + HEADER * len(views) + FOOTER
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    values = np.concatenate([m for v in views for m in (v.total, *v.parts.values())])
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    margin = 0.25 * (high - low or 1.0)
    top = height
    for view in views:
        title(figure, view, top / height, height)
        top -= HEADER
        for name, axes in _rows(figure, view, top, height):
            hue = TRUTH_COLOUR if name == TRUTH else colour(name, list(view.parts))
            _bar(axes, name, dict(view.panels)[name], hue)
            if name != TRUTH:
                axes.set_ylim(low - margin, high + margin)
        top -= ROW * len(view.panels)
    parts = " + ".join(views[0].parts)
    text = f"Prediction = {parts}, number by number. One scale for the prediction and its parts."
    footer(figure, [text, *bias_lines(view.parts for view in views)], height)
    return figure


def _rows(figure: Figure, view: View, top: float, height: float) -> Iterator[tuple[str, Axes]]:
    for name, _ in view.panels:
        place = (0.11, (top - ROW + 0.22) / height, 0.88, (ROW - 0.22) / height)
        yield name, figure.add_axes(place)
        top -= ROW


def _bar(axes: Axes, name: str, values: Map, hue: str) -> None:
    places = np.arange(len(values))
    axes.bar(places, values, color=hue, width=0.8)
    axes.axhline(0.0, color="#303030", lw=0.6)
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.tick_params(length=2, width=0.6, pad=2, labelsize=8)
    axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, parse_math=False)
    if len(values) > WRITTEN:
        return
    axes.set_xticks(places)
    for place, value in zip(places, values, strict=True):
        side, gap = ("bottom", 2) if value >= 0 else ("top", -2)
        at: dict[str, Any] = {"xytext": (0, gap), "textcoords": "offset points", "va": side}
        axes.annotate(f"{value:.3g}", (place, value), **at, ha="center", fontsize=7.5)


def title(figure: Figure, view: View, top: float, height: float) -> None:
    """A sample's name, and its warning, below ``top`` (a share of the figure)."""
    line: dict[str, Any] = {"ha": "center", "va": "top"}
    figure.text(0.5, top - 0.06 / height, view.title, **line, fontsize=10.5, parse_math=False)
    note: dict[str, Any] = {"fontsize": 7, "color": "#59636e", "parse_math": False}
    figure.text(0.5, top - 0.25 / height, view.note, **line, **note)
    if view.warning:
        figure.text(0.5, top - 0.37 / height, view.warning, **line, color="#c00000", fontsize=8.5)


def bar_place(height: float) -> tuple[float, float, float, float]:
    """Where a colour bar goes, at the bottom right of a figure of so many inches."""
    return 0.83, 0.36 / height, 0.155, 0.1 / height


def footer(figure: Figure, lines: Sequence[str], height: float) -> None:
    """What a reader must know, at the bottom."""
    text = "\n".join(line for long in lines for line in textwrap.wrap(long, 160))
    figure.text(0.01, 0.1 / height, text, va="bottom", fontsize=7.8, linespacing=1.35)
