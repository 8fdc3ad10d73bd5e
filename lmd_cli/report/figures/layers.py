"""The figure of one sample's layers: each part's share after each operation or block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmd_cli.decomposition import OperationRecord
from lmd_cli.decomposition.layout import BIAS, INTERACTION
from lmd_cli.report.blocks import block_names, drawn_operations, last_name, note, stretches
from lmd_cli.report.figures.axes import DPI, Format, figure_bytes, figure_settings
from lmd_cli.report.figures.styles import part_title
from lmd_cli.report.palette import colour

#: Shares of the figure's width: a narrower block has no line before it, or no name below it.
NARROW, LABELLED = 0.01, 0.032
#: Characters of a block's name, and the width of one, inches.
LONGEST, LETTER = 18, 0.085
#: Inches: the figure's width, and the left edge of its axes.
WIDTH, LEFT = 11.0, 0.55
#: What belongs to no sensor is hatched.
HATCHES = {BIAS: "////", INTERACTION: "...."}
#: A part with less than this at the output has no name beside it.
NAMED = 0.03


def layers_figure(
    operations: Sequence[OperationRecord],
    title: str,
    small: str = "",
    parts: Sequence[str] = (),
    form: Format = "png",
) -> bytes:
    """Stacked shares of the parts' L2 norms, from the fusion (left) to the output (right).

    Args:
        title: scene and time; ``small``: a note below it.
        parts: of the prediction, which decide the colours.
    """
    names = list(dict.fromkeys([*parts, *(n for record in operations for n in record.shares)]))
    names = [name for name in names if any(record.shares.get(name) for record in operations)]
    blocks = block_names([record.module for record in operations])
    drawn = drawn_operations(blocks)
    shares = np.array([[operations[i].shares.get(name, 0.0) for i in drawn] for name in names])
    with figure_settings():
        figure = Figure(figsize=(WIDTH, 3.7), dpi=DPI, facecolor="white")
        axes = figure.add_axes((LEFT / WIDTH, 0.27, 0.87, 0.56))
        floor = np.zeros(len(drawn))
        for name, row in zip(names, shares, strict=True):
            look: dict[str, Any] = {
                "color": colour(name, names),
                "hatch": HATCHES.get(name),
                "edgecolor": "white",
            }
            axes.bar(range(len(row)), row, 1.0, floor, label=part_title(name), linewidth=0, **look)
            if len(row) and row[-1] >= NAMED:
                place = (len(row) - 0.4, floor[-1] + row[-1] / 2)
                axes.text(*place, part_title(name), va="center", fontsize=9, parse_math=False)
            floor += row
            axes.stairs(floor, np.arange(len(drawn) + 1) - 0.5, baseline=None, color="white", lw=1)
        axes.set_xlim(-0.5, len(drawn) - 0.5)
        axes.set_ylim(0.0, 1.0)
        axes.set_ylabel("share of the parts' norms")
        _stages(axes, [blocks[i] for i in drawn])
        figure.legend(loc="upper right", ncols=len(names), frameon=False, fontsize=9)
        figure.text(LEFT / WIDTH, 0.97, title, va="top", fontsize=10, parse_math=False)
        grey: dict[str, Any] = {"color": "#59636e", "fontsize": 7}
        figure.text(LEFT / WIDTH, 0.9, small, va="top", parse_math=False, **grey)
        text = note(len(operations), len(drawn))
        figure.text(0.99, 0.02, text, ha="right", fontsize=8)
        return figure_bytes(figure, form)


def _stages(axes: Axes, names: Sequence[str]) -> None:
    """A tick under each block of the network, a line between two."""
    blocks = stretches(names)
    for start, end in blocks[1:]:
        if (end - start) / len(names) >= NARROW:
            axes.axvline(start - 0.5, color="white", linewidth=0.8)
    enough = LABELLED * len(names)
    wide = [(a, b) for a, b in blocks if b - a >= enough]
    places = [(a + b - 1) / 2 for a, b in wide]
    titles = [last_name(names[a]) for a, _ in wide]
    labels = [_short(t, (p + 0.5) / len(names)) for t, p in zip(titles, places, strict=True)]
    axes.set_xticks(places, labels, rotation=25, ha="right")


def _short(name: str, place: float) -> str:
    """A slanted label that ends at this share of the axes and does not leave the figure."""
    room = (LEFT + 0.87 * WIDTH * place) / LETTER
    longest = min(LONGEST, max(int(room), 2))
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
