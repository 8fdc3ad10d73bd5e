"""Scores against known truth, as a table and as a picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmd_cli.evaluation.scores.against_ground_truth import Score
from lmd_cli.report.figures.axes import DPI, figure_bytes, figure_settings
from lmd_cli.report.palette import LIGHT

TITLES = {
    "auroc_all": "AUROC, all",
    "auroc_detected": "AUROC, detected",
    "rank_correlation": "rank correlation",
    "auroc_intervention": "AUROC, intervention",
    "auroc_lost": "AUROC, lost",
    "false_alarm_auroc": "AUROC, false alarms",
    "planted_auroc": "AUROC, planted",
    "rank_correlation_intervention": "rank correlation, drop",
    "bias_share": "share of the bias",
}
#: What a method without any knowledge gets.
CHANCE = {
    **dict.fromkeys(("auroc_all", "auroc_detected", "auroc_intervention", "auroc_lost"), 0.5),
    **dict.fromkeys(("false_alarm_auroc", "planted_auroc"), 0.5),
    **dict.fromkeys(("rank_correlation", "rank_correlation_intervention"), 0.0),
}
OUTLINE = "#8a8a8a"
#: Colour and mark of LMD's methods and of the others.
LMD, BASELINE = (LIGHT[0], "o"), (LIGHT[1], "s")

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
        cost = [f"{seconds[name]:.3g}", f"{seconds[name] / plain_seconds:.1f}"]
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


def score_png(scores: Scores, sentence: str) -> bytes:
    """One panel for each score, one line for each method with its 95 % interval.

    Args:
        scores: for each method.
        sentence: the verdict, above the panels.

    Returns:
        a PNG: the same bytes for the same scores.
    """
    with figure_settings():
        return figure_bytes(_draw(scores, sentence), "png")


def _draw(scores: Scores, sentence: str) -> Figure:
    titles = _titles(scores)
    figure = Figure(
        figsize=(2.4 + 2.3 * max(1, len(titles)), 1.9 + 0.28 * max(1, len(scores))),
        dpi=DPI,
        layout="constrained",
    )
    axes = figure.subplots(1, max(1, len(titles)), sharey=True, squeeze=False)[0]
    for i, (panel, heading) in enumerate(zip(axes, titles, strict=False)):
        _panel(panel, heading, [(name, values[i]) for name, values in scores.items()])
    if len(axes):
        axes[0].set_yticks(range(len(scores)), list(scores))
        axes[0].invert_yaxis()
    text = "\n".join(textwrap.wrap(sentence, int(12 * figure.get_figwidth())))
    figure.suptitle(text, fontsize=9.5, parse_math=False)
    handles = [
        Line2D([], [], color=hue, marker=mark, lw=1.6, ms=4, label=label)
        for (hue, mark), label in ((LMD, "LMD"), (BASELINE, "another method"))
    ]
    handles.append(Line2D([], [], color=OUTLINE, lw=0.8, ls=":", label="chance"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _panel(axes: Axes, heading: str, values: Sequence[tuple[str, Score]]) -> None:
    better = (
        "lower: more is the sensors'" if values[0][1].name == "bias_share" else "higher: better"
    )
    axes.set_title(heading)
    axes.set_xlabel(f"N = {values[0][1].vehicles}; {better}", fontsize=8)
    for row, (name, score) in enumerate(values):
        hue, mark = LMD if name.startswith("lmd") else BASELINE
        interval = score.interval
        if not math.isnan(interval.low):
            axes.plot([interval.low, interval.high], [row, row], color=hue, lw=1.6, alpha=0.6)
        axes.plot([interval.estimate], [row], mark, color=hue, ms=4)
    if values and values[0][1].name in CHANCE:
        axes.axvline(CHANCE[values[0][1].name], color=OUTLINE, lw=0.8, ls=":")
    axes.grid(axis="x", lw=0.3, color=OUTLINE)
    axes.set_axisbelow(True)
