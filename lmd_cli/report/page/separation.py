"""Whether a run's parts keep apart: charts of its comparisons, and words that fit its rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from lmd_cli.evaluation.comparisons import (
    Comparison,
    letter,
    measured_comparisons,
    table_comparisons,
)
from lmd_cli.report.figures.styles import part_title
from lmd_cli.report.page.svg_charts import WIDTH, Bar, Group, bars, chart_width
from lmd_cli.report.palette import shade
from lmd_cli.report.words import counted, words_of
from lmd_cli.results.pair_rows import PAIR_FIELDS
from lmd_cli.results.read_run import RunResults
from lmd_cli.results.summary import paper_table, summarise
from lmd_cli.results.survey import Survey

NAMES = {"pcc": "correlation (PCC)", "mse": "mean squared error (MSE)"}
#: How a row's name ends that was linearised at each perturbed input.
ANEW = "@perturbed"


def with_explained(run: RunResults, survey: Survey | None) -> RunResults:
    """The run with a row of the rules that maps and charts are made by, which the survey measured
    where the run's tables lack it; and a note that says so."""
    if survey is None or not survey.pairs or survey.variant in run.rows:
        return run
    pairs = pd.DataFrame(survey.pairs, columns=list(PAIR_FIELDS)).astype(
        {"pcc": float, "mse": float}
    )
    there = set(zip(run.metrics.perturbed, run.metrics.target, strict=True))
    every = measured_comparisons(run.modalities)
    measured = [c for c in every if (c.perturbed_name, c.target) in there]
    metrics = pd.concat([run.metrics, summarise(pairs, [survey.variant], measured)])
    samples = counted(len({row[0] for row in survey.pairs}), "sample")
    note = (
        f"{survey.variant}, by which the maps and charts are made, was not among the run's rows: "
        f"lmd report measured it, over {samples} with one other sample each."
    )
    return replace(
        run,
        record={**run.record, "rows": [*run.rows, survey.variant]},
        metrics=metrics.reset_index(drop=True),
        table=paper_table(metrics, table_comparisons(run.modalities)),
        notes=[*run.notes, note],
    )


def separation(run: RunResults) -> dict[str, Any] | None:
    """One chart for PCC and one for MSE: a group for each comparison, a bar for each row."""
    if not len(run.table):
        return None
    shades = [shade(i) for i in range(len(run.rows))]
    charts = [
        {"svg": bars(_groups(run, kind), run.rows, label, slots=shades, across="comparison")}
        for kind, label in NAMES.items()
    ]
    count = len(run.metrics) // len(run.rows)
    return {
        "legend": list(zip(run.rows, shades, strict=True)),
        "charts": charts,
        "broad": chart_width(count) > WIDTH,
    }


def _groups(run: RunResults, kind: str) -> list[Group]:
    titles = [str(name)[4:] for name in run.table.columns if str(name).startswith(kind.upper())]
    # Both frames list a row's comparisons in one order, the table's first.
    groups = []
    for number, title in enumerate(titles):
        bars = []
        for name in run.rows:
            row = run.metrics[run.metrics.variant == name].iloc[number]
            mean, deviation = float(row[f"{kind}_mean"]), float(row[f"{kind}_std"])
            known = mean == mean
            text = f"{name}, {kind.upper()} {title}: {mean:.3g} ± {deviation:.3g}"
            whisker = (mean - deviation, mean + deviation) if known else (None, None)
            bars.append(Bar(mean if known else None, text, *whisker))
        expected = str(run.metrics.iloc[number].expected)
        groups.append(Group(title, bars, f"should {expected}"))
    return groups


def explained(run: RunResults) -> str:
    """How a column of this run's table is read: ``R_p/C is what became of the camera's part``."""
    kept = next(
        (c for c in run.comparisons if c.expected == "keep"),
        next(iter(run.comparisons), None),
    )
    return "" if kept is None else _sentence(kept, words_of(run.modalities).many)


def _sentence(made: Comparison, many: str) -> str:
    replaced = " and ".join(f"the {part_title(name)}" for name in made.perturbed)
    short = {letter(name) for name in (*made.perturbed, made.target)}
    named = f" ({many} by their first letters)" if all(len(name) == 1 for name in short) else ""
    verb = "was" if len(made.perturbed) == 1 else "were"
    return (
        f"{made.title} is what became of the {part_title(made.target)}'s part when {replaced} "
        f"{verb} replaced{named}."
    )


def by_construction(run: RunResults) -> str:
    """For which rows a kept sensor's part has PCC 1 and MSE 0 by construction."""
    exact, word = [name for name in run.rows if name in run.exact], words_of(run.modalities).one
    anew = [name for name in run.rows if name.endswith(ANEW)]
    others = [name for name in run.rows if name not in (*exact, *anew)]
    lines = []
    if exact:
        whose = f"In the rows {', '.join(exact)}" if others or anew else "Here"
        lines.append(
            f"{whose} 1 and 0 hold by construction: the factors of the split are fixed at the "
            f"sample as it was, so a part whose {word} was kept is compared with itself."
        )
    if anew:
        lines.append(
            "Rows @perturbed are linearised anew at each perturbed input: there the part of a "
            f"{word} that was kept may move, too, and the table says how much."
        )
    if others:
        lines.append(
            f"For {', '.join(others)} nothing holds by construction: every comparison is measured, "
            f"and the part of a {word} that was kept may move."
        )
    return " ".join(lines)
