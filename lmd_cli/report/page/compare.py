"""The page of a comparison of runs: one HTML file in the design of a run's page."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lmd_cli.evaluation.comparisons import Comparison, letter
from lmd_cli.evaluation.ground.decisive import SEVERAL, TOGETHER
from lmd_cli.evaluation.paired import NOT_DETECTED, Change, MetricRow, moves
from lmd_cli.evaluation.statistics import Interval
from lmd_cli.report.figures.difference import ScenePair, difference_figure
from lmd_cli.report.page.document import document, page_margin
from lmd_cli.report.page.figures import ROWS, scene_of_shown
from lmd_cli.report.page.svg_charts import FEW, Bar, Group, bars
from lmd_cli.report.page.table_cells import PageTable, cell, page_table
from lmd_cli.report.tables.comparison import (
    alarm_rows,
    beyond_zero,
    by,
    change_values,
    changed,
    differing_metrics,
    headline,
    interval_note,
    interval_text,
    number,
)
from lmd_cli.report.words import counted
from lmd_cli.results.comparable import allowed_differences
from lmd_cli.results.comparison import RunComparison
from lmd_cli.results.survey import Shown, Survey

SCRIPTS = ("tables.js", "charts.js")
#: Whether a difference excludes zero.
BEYOND = {True: "yes", None: "rounding only"}
#: Colours of the other runs: none of a sensor's.
RUN_SLOTS = (6, 5, 4, 7)
#: Of a hash.
DIGITS = 12
#: Rows of the list of vehicles; the nearest come first.
LISTED = 200
#: Charts by title: the metrics whose names begin so, and what of the name is the label.
FAMILIES = (
    ("IoU", ("iou",)),
    (
        "Detections",
        tuple(f"detections.{n}" for n in ("recall", "precision", "mAP", "NDS", "AP", "panoptic")),
    ),
    ("False alarms of a sample (lmd detect)", ("detections.false_alarms",)),
    ("Errors of the hits", ("detections.m",)),
    ("Detected, in all and without sensors", ("objects.detected",)),
    ("Lost without a sensor", ("objects.lost_without.",)),
    ("False alarms of a sample", ("false_alarms",)),
    ("New false alarms of a sample", ("new_false_alarms_without.",)),
    ("Share of the evidence", ("objects.share.", "objects.bias_share")),
    ("Enough alone, by parts", ("objects.decisive.",)),
    ("Enough alone, by removal", ("objects.decisive_removal.",)),
    ("Mean logit in the footprint", ("objects.logit.",)),
    ("Correlation (PCC)", ("pcc.",)),
    ("Mean squared error (MSE)", ("mse.",)),
)


def comparison_page(comparison: RunComparison, verdict: dict[str, Any] | None = None) -> bytes:
    """The page as UTF-8 bytes: the same for the same files.

    Args:
        verdict: what stands at the top, see :func:`~.gate.verdict_values`; nothing if none.
    """
    first, others = comparison.labels[0], " and ".join(comparison.others)
    render = document("compare.html.j2", SCRIPTS, page_margin(comparison.runs))
    return render(
        title=f"{others} compared with {first}",
        heading="What changed between the runs?",
        subtitle=f"{others} compared with {first}",
        verdict=verdict,
        notes=comparison.notes,
        headlines=[headline(comparison, i) for i in range(len(comparison.others))],
        facts=_facts(comparison),
        compared=True,
        paired=comparison.paired,
        first=first,
        cluster=comparison.clusters.kind,
        series=list(zip(comparison.others, _slots(comparison), strict=True)),
        charts=_charts(comparison),
        intervals=interval_note(comparison),
        metrics=_metrics(comparison),
        meanings=_meanings(comparison),
        vehicles=_vehicles(comparison),
        alarms=[_alarms(comparison, i) for i in range(len(comparison.alarms))],
        pictures=_pictures(comparison),
        runs=_runs(comparison),
        differences=_differences(comparison),
    )


def _slots(comparison: RunComparison) -> list[int]:
    return [RUN_SLOTS[i % len(RUN_SLOTS)] for i in range(len(comparison.others))]


def _facts(comparison: RunComparison) -> list[dict[str, str]]:
    clusters = comparison.clusters
    where = "in all runs" if comparison.paired else "of all runs together"
    return [
        fact("Samples", str(len(clusters.of)), where),
        fact("Vehicles", str(comparison.vehicles), f"{where}, inside the maps"),
        fact("Bootstrap", counted(clusters.count, clusters.kind), "drawn with replacement"),
        *(_changed_fact(comparison, i) for i in range(len(comparison.others))),
    ]


def _changed_fact(comparison: RunComparison, other: int) -> dict[str, str]:
    beyond, known = differing_metrics(comparison, other)
    note = "differences with an interval that excludes zero"
    return fact(comparison.others[other], f"{beyond} of {known}", note)


def fact(name: str, value: str, note: str) -> dict[str, str]:
    """One of the boxes below the title."""
    return {"name": name, "value": value, "note": note}


# -- metrics ------------------------------------------------------------------------------


def _charts(comparison: RunComparison) -> list[dict[str, Any]]:
    charts = []
    for title, prefixes in FAMILIES:
        rows = [r for r in comparison.rows if r.name.startswith(prefixes) and "@" not in r.name]
        groups = [_group(row, comparison) for row in rows if not math.isnan(row.values[0])]
        if groups:
            svg = bars(groups, comparison.others, "difference", slots=_slots(comparison))
            charts.append({"title": title, "svg": svg, "broad": len(groups) > FEW})
    return charts


def _group(row: MetricRow, comparison: RunComparison) -> Group:
    runs = zip(comparison.others, row.differences, strict=True)
    return Group(_label(row.name), [_bar(row, name, d) for name, d in runs])


def _label(name: str) -> str:
    """A metric under its bars: ``R_p/C``, ``without radar``, ``bias share``, ``AP car``."""
    family, _, label = name.partition(".")
    if family in ("pcc", "mse"):
        perturbed, _, target = label.partition(".")
        return Comparison(tuple(perturbed.split("+")), target).title
    if family == "detections":
        return label.replace("_", " ").replace(".", " ")
    if family == "objects":
        first, _, rest = label.partition(".")
        removed = first in ("lost_without", "detected_without")
        return _without(rest) if removed else rest or first.replace("_", " ")
    return _without(label) if family.endswith("_without") else name.replace("_", " ")


def _without(removed: str) -> str:
    """Several by their first letters: there is no room for more below a bar."""
    names = removed.split("+")
    return f"without {removed if len(names) == 1 else '+'.join(map(letter, names))}"


def _bar(row: MetricRow, run: str, d: Interval) -> Bar:
    known = interval_text(d)
    text = f"{row.name}, {run}: {number(d.estimate, '+')}{f', 95 % {known}' if known else ''}"
    if math.isnan(d.estimate):
        return Bar(None, text)
    low, high = (None, None) if math.isnan(d.low) else (d.low, d.high)
    return Bar(d.estimate, text, low, high)


def _metrics(comparison: RunComparison) -> PageTable:
    first, header = comparison.labels[0], ["metric", comparison.labels[0]]
    for other in comparison.others:
        header += [other, f"{other} − {first}", "95 % interval", "excludes zero"]
    rows = [_metric_cells(row) for row in comparison.rows]
    return page_table("all-metrics", "All metrics that the runs share", header, rows)


def _meanings(comparison: RunComparison) -> PageTable:
    rows = [(row.name, row.meaning) for row in comparison.rows]
    return page_table("meanings", "Metrics", ["metric", "meaning"], rows)


def _metric_cells(row: MetricRow) -> list[Any]:
    cells: list[Any] = [row.name, row.values[0]]
    for other, (value, d) in enumerate(zip(row.values[1:], row.differences, strict=True)):
        verdict = beyond_zero(row, other)
        cells += [value, d.estimate, interval_text(d), BEYOND.get(verdict, "")]
    return cells


# -- vehicles -----------------------------------------------------------------------------


def _vehicles(comparison: RunComparison) -> list[dict[str, Any]]:
    if not comparison.vehicles or not comparison.paired:
        return []
    return [
        {
            "label": label,
            "parts": _moves(f"parts-{i}", "By parts", comparison, i, "parts"),
            "removal": _moves(f"removal-{i}", "By removal", comparison, i, "removal"),
            "listed": _listed(f"changed-{i}", changed(comparison, i)),
        }
        for i, label in enumerate(comparison.others)
    ]


def _moves(name: str, title: str, comparison: RunComparison, other: int, source: str) -> PageTable:
    """How many vehicles went from which verdict (rows) to which (columns)."""
    counts = moves(comparison.changes[other], source)
    survey = comparison.surveys[0]
    assert survey is not None
    given = {verdict for pair in counts for verdict in pair}
    order = (*survey.sensors, SEVERAL, TOGETHER, NOT_DETECTED)
    verdicts = [verdict for verdict in order if verdict in given]
    rows = [[before, *(counts[before, after] for after in verdicts)] for before in verdicts]
    caption = f"{title}: rows {comparison.labels[0]}, columns {comparison.others[other]}"
    return page_table(name, caption, ["enough alone", *verdicts], rows)


def _listed(name: str, changes: Sequence[Change]) -> PageTable:
    nearest = sorted(changes, key=lambda change: change.before["distance"])[:LISTED]
    caption = f"{len(changes)} vehicles with another decisive sensor{by(changes)}"
    if len(nearest) < len(changes):
        caption += f", the nearest {LISTED}"
    header = ["distance (m)", "parts before", "after", "removal before", "after", "detection"]
    header += ["score before", "after", "category", "sample", "vehicle"]
    rows = []
    for change in nearest:
        values = change_values(change)
        sample, token, category, distance, detection, *verdicts = values
        rows.append(
            [round(distance, 1), *verdicts[:4], detection, *verdicts[4:], category, sample, token]
        )
    return PageTable(name, caption, header, [[cell(value) for value in row] for row in rows])


def _alarms(comparison: RunComparison, other: int) -> PageTable:
    """False alarms that only one of two runs has."""
    first, label = comparison.labels[0], comparison.others[other]
    rows = [row[1:] for row in alarm_rows(comparison) if row[0] == label]
    new = sum(row[0] == "new" for row in rows)
    caption = f"{label} against {first}: false alarms, {new} new, {len(rows) - new} gone"
    if len(rows) > LISTED:
        caption += f"; the first {LISTED}"
    header = ["false alarm", "sample", "detection", "class", "score", "distance (m)"]
    header += ["forward (m)", "left (m)"]
    rounded = [[*row[:5], *(round(metres, 1) for metres in row[5:])] for row in rows[:LISTED]]
    return page_table(f"alarms-{other}", caption, header, rounded)


# -- maps and runs ------------------------------------------------------------------------


def _pictures(comparison: RunComparison) -> list[dict[str, str]]:
    first = comparison.surveys[0]
    if first is None or not first.ground or not comparison.paired:
        return []
    pictures = []
    for label, other in zip(comparison.others, comparison.surveys[1:], strict=True):
        pairs = [] if other is None else _most_changed(first, other)
        if pairs:
            assert other is not None
            scenes = [_scenes(*pair, first, other) for pair in pairs]
            data = difference_figure(scenes, (comparison.labels[0], label))
            src = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
            caption = (
                f"{label} against {comparison.labels[0]}: {counted(len(pairs), 'sample')} in rows"
            )
            pictures.append({"src": src, "caption": caption})
    return pictures


def _most_changed(first: Survey, second: Survey) -> list[tuple[Shown, Shown]]:
    """The samples of both surveys, by the L2 norm of the change of the prediction."""
    there = {one.token: one for one in second.shown}
    pairs = [(one, there[one.token]) for one in first.shown if one.token in there]
    norms = [float(np.linalg.norm((b.parts.sum(0) - a.parts.sum(0)).ravel())) for a, b in pairs]
    ranked = sorted(range(len(pairs)), key=lambda i: (-norms[i], i))
    return [pairs[i] for i in ranked[:ROWS]]


def _scenes(before: Shown, after: Shown, first: Survey, second: Survey) -> ScenePair:
    bare = [replace(shown, images={}) for shown in (before, after)]
    return ScenePair(scene_of_shown(bare[0], first), scene_of_shown(bare[1], second))


def _runs(comparison: RunComparison) -> PageTable:
    rows = []
    for label, run in zip(comparison.labels, comparison.runs, strict=True):
        record = run.record
        weights = "random" if record["weights"]["random"] else record["weights"].get("sha256")
        commit = record.get("code", {}).get("lmd", {}).get("commit")
        hashes = [_digits(value) for value in (run.sha256, weights, commit)]
        named = [record.get("checkpoint"), ", ".join(run.variants), len(run.tokens)]
        rows.append([label, *hashes, *named])
    header = ["run", "run.json (sha256)", "weights (sha256)", "code (commit)"]
    header += ["checkpoint", "variants", "samples"]
    return page_table("runs-table", "The runs", header, rows)


def _digits(value: Any) -> str:
    return "" if value is None else str(value)[:DIGITS]


def _differences(comparison: RunComparison) -> list[PageTable]:
    first, tables = comparison.runs[0], []
    for i, (label, run) in enumerate(zip(comparison.others, comparison.runs[1:], strict=True)):
        rows = [[key, _text(a), _text(b)] for key, a, b in allowed_differences(first, run)]
        caption = f"Entries of run.json that differ between {comparison.labels[0]} and {label}"
        header = ["entry", comparison.labels[0], label]
        tables.append(page_table(f"differ-{i}", caption, header, rows))
    return tables


def _text(value: Any) -> str:
    return "" if value is None else str(value)
