"""Maps of two runs beside each other, and of what the second has more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmd_cli.report.figures.axes import (
    DPI,
    draw_bar,
    draw_map,
    draw_vehicles,
    figure_bytes,
    figure_settings,
)
from lmd_cli.report.figures.scene import Map, Scene
from lmd_cli.report.figures.sheet import (
    AXES,
    WIDTH,
    bar_place,
    depth_of,
    draw_footer,
    footer_height,
    title_size,
)
from lmd_cli.report.figures.styles import MapStyle, make_map_style, part_title

#: Above each row of maps, inches: the sample's name with the axes of the row above, and the maps'
#: titles.
NAME, TITLES = 0.5, 0.3


@dataclass(frozen=True, eq=False)
class ScenePair:
    """One sample in two runs, which have the same parts."""

    before: Scene
    after: Scene

    @property
    def differences(self) -> dict[str, Map]:
        """Of the prediction and of each part, the second run's minus the first's."""
        parts = {name: self.after.parts[name] - part for name, part in self.before.parts.items()}
        return {"prediction": self.after.total - self.before.total, **parts}


def difference_figure(pairs: Sequence[ScenePair], labels: tuple[str, str]) -> bytes:
    """A PNG: for each sample both predictions, then the differences; the same bytes for the same
    maps.

    Args:
        pairs: samples, at least one, of the same plane.
        labels: of both runs.
    """
    totals = make_map_style("signed", [m for p in pairs for m in (p.before.total, p.after.total)])
    changes = make_map_style("signed", chain.from_iterable(p.differences.values() for p in pairs))
    with figure_settings():
        return figure_bytes(_figure(pairs, labels, totals, changes), "png")


def _figure(
    pairs: Sequence[ScenePair], labels: tuple[str, str], totals: MapStyle, changes: MapStyle
) -> Figure:
    text = [
        f"Left: the predictions of both runs, from {totals.low:.3g} (brown) to {totals.high:.3g} "
        "logits (teal). Then the second run minus the first: teal where the second has more. "
        "Outlines: annotated vehicles. Forward is up, axes in metres.",
    ]
    count = 2 + len(pairs[0].differences)
    row = (WIDTH - 0.5) / count * depth_of(pairs[0].before) + NAME + TITLES
    below = footer_height(text) - AXES + 0.3
    height = row * len(pairs) + below
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    for number, pair in enumerate(pairs):
        top = height - number * row
        place = (0.5, (top - 0.2) / height)
        figure.text(*place, pair.before.title, ha="center", va="top", parse_math=False)
        span = {"top": (top - NAME - TITLES + 0.1) / height, "bottom": (top - row + 0.12) / height}
        grid = figure.add_gridspec(1, count, left=0.04, right=0.99, wspace=0.06, **span)
        columns = [figure.add_subplot(grid[0, i]) for i in range(count)]
        _row(columns, pair, labels, totals, changes)
    draw_footer(figure, text)
    draw_bar(figure, changes, bar_place(figure))
    return figure


def _row(
    columns: Sequence[Axes],
    pair: ScenePair,
    labels: tuple[str, str],
    totals: MapStyle,
    changes: MapStyle,
) -> None:
    shown = [(labels[0], pair.before.total, totals), (labels[1], pair.after.total, totals)]
    shown += [(f"{part_title(n)}: change", m, changes) for n, m in pair.differences.items()]
    size = title_size(WIDTH / len(columns))
    for place, (axes, (title, values, style)) in enumerate(zip(columns, shown, strict=True)):
        draw_map(axes, pair.before, values, style.colours(""), (style.low, style.high))
        draw_vehicles(axes, pair.before, style.outline)
        short = title if len(title) <= 24 else f"{title[:23]}…"
        axes.set_title(short, fontsize=size, pad=4, parse_math=False)
        if place:
            axes.set_yticklabels([])
