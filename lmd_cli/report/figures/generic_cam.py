"""Class activation maps over an output that does not lie on the ground, in its own pixels."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from lmd_cli.evaluation.decomposed_sample import SampleDecomposition
from lmd_cli.evaluation.ground.plane import Array
from lmd_cli.report.figures.axes import (
    DPI,
    Format,
    draw_activations,
    figure_bytes,
    figure_settings,
)
from lmd_cli.report.figures.generic import (
    FOOTER,
    HEADER,
    WIDTH,
    bar_place,
    footer,
    title,
    view_of,
)
from lmd_cli.report.figures.styles import Map, from_white, positive_normalised
from lmd_cli.report.palette import PREDICTION, colour


def generic_picture(
    split: SampleDecomposition,
    panels: Sequence[tuple[str, str, Map]],
    corners: Array | None,
    layer: str,
    score: float,
    form: Format,
) -> bytes:
    """The prediction, and beside it each of the maps.

    Args:
        panels: part (empty for the whole layer), label and map (rows, columns), on the output's
            pixels.
        corners: of the region (4, 2), pixels from the upper left corner; none for the whole map.
        score: sum of the output over the region.
    """
    top = max(float(values.max()) for _, _, values in panels)
    view = view_of(split)
    prediction, largest = positive_normalised(view.total)
    drawn = [(PREDICTION, f"prediction (max {largest:.3g})", prediction)]
    for name, label, values in panels:
        peak = f"{label} (max {float(values.max()):.3g})"
        drawn.append((colour(name, list(view.parts)), peak, values / (top or 1.0)))
    rows, columns = view.total.shape
    height = min(WIDTH / len(drawn) * rows / columns, 8.0) + HEADER + FOOTER
    with figure_settings():
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
        title(figure, view, 1.0, height)
        cells = figure.add_gridspec(
            *(1, len(drawn)),
            left=0.04,
            right=0.99,
            wspace=0.08,
            top=1 - HEADER / height,
            bottom=(FOOTER - 0.12) / height,
        )
        for i, (hue, label, values) in enumerate(drawn):
            axes = figure.add_subplot(cells[0, i])
            _panel(axes, hue, label, values, corners)
            if i:
                axes.set_yticklabels([])
        draw_activations(figure, top, bar_place(height))
        footer(figure, _text(layer, score, top, corners), height)
        return figure_bytes(figure, form)


def _panel(axes: Axes, hue: str, label: str, values: Map, corners: Array | None) -> None:
    axes.imshow(values, cmap=from_white(hue), vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_title(label, fontsize=9.5, pad=4, parse_math=False)
    axes.tick_params(length=2, width=0.6, pad=2, labelsize=8)
    if corners is not None:  # imshow has pixel middles at whole numbers
        frame = Polygon(corners - 0.5, closed=True, fill=False, edgecolor="#c00078", lw=1.4)
        axes.add_patch(frame)


def _text(layer: str, score: float, top: float, corners: Array | None) -> list[str]:
    where = "the framed region" if corners is not None else "the whole map"
    return [
        f"Layer {layer}. Score: sum of the output over {where}, {score:.4g}. The activation maps "
        f"share one scale, white (0) to darkest ({top:.3g}); the prediction shows its positive "
        "values. Axes in pixels, the first row on top."
    ]
