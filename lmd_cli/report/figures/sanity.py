"""The sanity check as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lmd_cli.evaluation.randomisation import SanityRow
from lmd_cli.report.figures.axes import DPI, figure_bytes, figure_settings
from lmd_cli.report.figures.scores import OUTLINE
from lmd_cli.report.figures.styles import COLOURS


def sanity_table(rows: Sequence[SanityRow]) -> tuple[list[str], list[list[str]]]:
    """One line for each step: the PCC of every part."""
    names = list(dict.fromkeys(row.part for row in rows))
    lines = []
    for step in dict.fromkeys(row.step for row in rows):
        here = {row.part: row for row in rows if row.step == step}
        layer = here[names[0]].layer or "(trained)"
        lines.append([str(step), layer, *(f"{here[name].pcc:.2f}" for name in names)])
    return ["step", "layer", *(f"PCC {name}" for name in names)], lines


def sanity_png(rows: Sequence[SanityRow]) -> bytes:
    """PCC (lines) and rank correlation of magnitudes (dashed) of each part over the steps."""
    with figure_settings():
        figure = Figure(figsize=(8.0, 4.2), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        for part in dict.fromkeys(row.part for row in rows):
            mine = [row for row in rows if row.part == part]
            colour = COLOURS.get("prediction" if part == "total" else part, OUTLINE)
            steps = [row.step for row in mine]
            axes.plot(steps, [row.pcc for row in mine], color=colour, label=part)
            axes.plot(steps, [row.rank for row in mine], color=colour, lw=0.9, ls="--")
        axes.axhline(0.0, color=OUTLINE, lw=0.8)
        axes.set(xlabel="layers randomised, from the output", ylim=(-0.6, 1.05))
        axes.set_ylabel("correlation with the trained network's map\n(dashed: ranks of magnitudes)")
        axes.legend(frameon=False)
        return figure_bytes(figure, "png")
