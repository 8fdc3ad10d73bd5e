"""Scores against known truth, as a table and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmd_cli.evaluation.scores.against_ground_truth import Score
from lmd_cli.report.figures.axes import DPI, figure_bytes, figure_settings
from lmd_cli.report.figures.styles import COLOURS

TITLES = {
    "auroc_all": "AUROC, all",
    "auroc_detected": "AUROC, detected",
    "rank_correlation": "rank correlation",
    "auroc_intervention": "AUROC, intervention",
    "auroc_lost": "AUROC, lost",
    "rank_correlation_intervention": "rank correlation, drop",
    "bias_share": "share of the bias",
}
#: What a method without any knowledge gets.
CHANCE = {
    **dict.fromkeys(("auroc_all", "auroc_detected", "auroc_intervention", "auroc_lost"), 0.5),
    **dict.fromkeys(("rank_correlation", "rank_correlation_intervention"), 0.0),
}
OUTLINE = "#8a8a8a"
LMD = COLOURS["camera"]
BASELINE = COLOURS["radar"]

Scores = Mapping[str, Sequence[Score]]


def title(score: Score, several: bool) -> str:
    """A column's title; the modality where there are several."""
    return f"{TITLES[score.name]} {score.modality}".rstrip() if several else TITLES[score.name]


def columns(scores: Scores) -> list[tuple[str, str]]:
    """(score, modality) of every column, in order."""
    first = next(iter(scores.values()), ())
    return [(s.name, s.modality) for s in first]


def score_table(
    scores: Scores, seconds: Mapping[str, float], plain_seconds: float
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: estimates with their intervals, and what a sample costs.

    Args:
        scores: for each method.
        seconds: for each method the time for a sample.
        plain_seconds: of a plain pass of the network.
    """
    header = ["method", *_titles(scores), "s/sample", "x plain"]
    rows = []
    for name, values in scores.items():
        cost = [f"{seconds[name]:.3f}", f"{seconds[name] / plain_seconds:.1f}"]
        rows.append([name, *map(_entry, values), *cost])
    return header, rows


def _titles(scores: Scores) -> list[str]:
    names = columns(scores)
    several = {name for name, _ in names if [n for n, _ in names].count(name) > 1}
    return [title(s, s.name in several) for s in next(iter(scores.values()), ())]


def _entry(score: Score) -> str:
    i = score.interval
    if math.isnan(i.estimate):
        return ""
    if math.isnan(i.low):
        return f"{i.estimate:.3f}"
    return f"{i.estimate:.3f} [{i.low:.3f}, {i.high:.3f}]"


def score_png(scores: Scores) -> bytes:
    """One panel for each score, one line for each method with its 95 % interval.

    Returns:
        a PNG: the same bytes for the same scores.
    """
    with figure_settings():
        return figure_bytes(_draw(scores), "png")


def _draw(scores: Scores) -> Figure:
    titles = _titles(scores)
    figure = Figure(
        figsize=(2.4 + 2.3 * max(1, len(titles)), 1.0 + 0.28 * max(1, len(scores))),
        dpi=DPI,
        layout="constrained",
    )
    axes = figure.subplots(1, max(1, len(titles)), sharey=True, squeeze=False)[0]
    for i, (panel, heading) in enumerate(zip(axes, titles, strict=False)):
        _panel(panel, heading, [(name, values[i]) for name, values in scores.items()])
    if len(axes):
        axes[0].set_yticks(range(len(scores)), list(scores))
        axes[0].invert_yaxis()
    return figure


def _panel(axes: Axes, heading: str, values: Sequence[tuple[str, Score]]) -> None:
    axes.set_title(heading)
    for row, (name, score) in enumerate(values):
        colour = LMD if name.startswith("lmd") else BASELINE
        interval = score.interval
        if not math.isnan(interval.low):
            axes.plot([interval.low, interval.high], [row, row], color=colour, lw=1.6, alpha=0.6)
        axes.plot([interval.estimate], [row], "o", color=colour, ms=4)
    if values and values[0][1].name in CHANCE:
        axes.axvline(CHANCE[values[0][1].name], color=OUTLINE, lw=0.8, ls=":")
    axes.grid(axis="x", lw=0.3, color=OUTLINE)
    axes.set_axisbelow(True)
