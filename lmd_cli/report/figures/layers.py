"""The figure of one sample's layers: each part's share after each operation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmd_cli.decomposition import OperationRecord
from lmd_cli.report.figures.axes import DPI, Format, figure_bytes, figure_settings
from lmd_cli.report.figures.styles import COLOURS, OTHER
from lmd_cli.report.page.svg_charts import stage_of

#: Shares of the figure's width: a narrower block has no line before it, or no name below it.
NARROW, LABELLED = 0.01, 0.02
#: Characters of a block's name, and the width of one, inches.
LONGEST, LETTER = 18, 0.085
#: Inches: the figure's width, and the left edge of its axes.
WIDTH, LEFT = 11.0, 0.55


def layers_figure(operations: Sequence[OperationRecord], title: str, form: Format = "png") -> bytes:
    """Stacked shares of the parts' L2 norms, from the fusion (left) to the output (right)."""
    names = list(dict.fromkeys(name for record in operations for name in record.shares))
    shares = np.array([[r.shares.get(name, 0.0) for r in operations] for name in names])
    with figure_settings():
        figure = Figure(figsize=(WIDTH, 3.6), dpi=DPI, facecolor="white")
        axes = figure.add_axes((LEFT / WIDTH, 0.27, 0.94, 0.58))
        floor = np.zeros(len(operations))
        for name, row in zip(names, shares, strict=True):
            colour = COLOURS.get(name, OTHER)
            axes.bar(range(len(row)), row, 1.0, floor, color=colour, label=name, linewidth=0)
            floor += row
        axes.set_xlim(-0.5, len(operations) - 0.5)
        axes.set_ylim(0.0, 1.0)
        axes.set_ylabel("share of the parts' norms")
        _stages(axes, [stage_of(record.module) for record in operations])
        figure.legend(loc="upper right", ncols=len(names), frameon=False, fontsize=9)
        figure.text(LEFT / WIDTH, 0.965, title, va="top", fontsize=9.5, parse_math=False)
        note = "Operations in the order of execution: from where the sensors meet to the prediction"
        figure.text(0.99, 0.02, note, ha="right", fontsize=8)
        return figure_bytes(figure, form)


def _stages(axes: Axes, names: Sequence[str]) -> None:
    """A tick under each block of the network, a line between two."""
    starts = [i for i in range(len(names)) if i == 0 or names[i] != names[i - 1]]
    ends = [*starts[1:], len(names)]
    for start, end in list(zip(starts, ends, strict=True))[1:]:
        if (end - start) / len(names) >= NARROW:
            axes.axvline(start - 0.5, color="white", linewidth=0.8)
    enough = max(LABELLED * len(names), 2)
    wide = [(a, b) for a, b in zip(starts, ends, strict=True) if b - a >= enough]
    places = [(a + b - 1) / 2 for a, b in wide]
    titles = [names[a].rpartition(".")[2] or "input" for a, _ in wide]
    labels = [_short(t, p / len(names)) for t, p in zip(titles, places, strict=True)]
    axes.set_xticks(places, labels, rotation=25, ha="right")


def _short(name: str, place: float) -> str:
    """A slanted label that ends at this share of the axes and does not leave the figure."""
    room = (LEFT + 0.94 * WIDTH * place) / LETTER
    longest = min(LONGEST, max(int(room), 2))
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
