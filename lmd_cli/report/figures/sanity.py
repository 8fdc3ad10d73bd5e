"""The sanity check as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lmd_cli.evaluation.randomisation import SanityRow
from lmd_cli.report.figures.axes import DPI, figure_bytes, figure_settings
from lmd_cli.report.figures.scores import OUTLINE
from lmd_cli.report.figures.styles import part_title
from lmd_cli.report.palette import colour

TOTAL, MARKERS = "total", "osD^vX"
#: A correlation above which two maps are said to resemble each other.
RESEMBLES = 0.5


def sanity_table(rows: Sequence[SanityRow]) -> tuple[list[str], list[list[str]]]:
    """One line for each step: the PCC of every part."""
    names = list(dict.fromkeys(row.part for row in rows))
    lines = []
    for step in dict.fromkeys(row.step for row in rows):
        here = {row.part: row for row in rows if row.step == step}
        layer = here[names[0]].layer or "(trained)"
        lines.append([str(step), layer, *(f"{here[name].pcc:.2f}" for name in names)])
    return ["step", "layer", *(f"PCC {name}" for name in names)], lines


def sanity_png(rows: Sequence[SanityRow], samples: int) -> bytes:
    """PCC (lines) and rank correlation of magnitudes (dotted) of each part over the steps.

    Args:
        samples: over how many the rows are means.
    """
    names = list(dict.fromkeys(row.part for row in rows))
    parts = [name for name in names if name != TOTAL]
    with figure_settings():
        figure = Figure(figsize=(8.0, 4.6), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        for number, part in enumerate(names):
            mine = [row for row in rows if row.part == part]
            style: dict[str, Any] = {"color": colour(part, parts), "marker": MARKERS[number % 6]}
            steps = [row.step for row in mine]
            label = "prediction" if part == TOTAL else part_title(part)
            axes.plot(steps, [row.pcc for row in mine], label=label, ms=5, **style)
            axes.plot(steps, [row.rank for row in mine], lw=0.9, ls=":", ms=3, **style)
        axes.axhline(0.0, color=OUTLINE, lw=0.8)
        lowest = min(value for row in rows for value in (row.pcc, row.rank, -0.5))
        axes.set(xlabel="layers randomised, from the output", ylim=(lowest - 0.1, 1.05))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("correlation with the trained network's map\n(dotted: ranks of magnitudes)")
        figure.suptitle(f"{conclusion(rows)}\nN = {samples} samples; lower is better", fontsize=9.5)
        axes.legend(frameon=False)
        return figure_bytes(figure, "png")


def conclusion(rows: Sequence[SanityRow]) -> str:
    """One line: which parts still resemble the trained network's when all layers are random."""
    last = max(row.step for row in rows)
    pcc = {row.part: abs(row.pcc) for row in rows if row.step == last and row.part != TOTAL}
    kept = [f"{part_title(name)} ({value:.2f})" for name, value in pcc.items() if value > RESEMBLES]
    what = f"With all {last} layers random"
    if kept:
        return f"{what}, these parts still resemble the trained ones (|PCC|): {', '.join(kept)}"
    return f"{what}, no part resembles the trained one (|PCC| at most {max(pcc.values()):.2f})"
