"""Comparisons of runs as rows of text and of numbers, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from lmd_cli.evaluation.paired import Change, MetricRow
from lmd_cli.evaluation.statistics import Interval
from lmd_cli.results.comparison import RunComparison

#: How good predictions are, by metrics of the headline.
QUALITY = {
    "iou": "IoU",
    "detections.mAP": "mAP",
    "detections.NDS": "NDS",
    "detections.panoptic_quality": "panoptic quality",
    "false_alarms": "false alarms of a sample",
}
_DETECTION = ("detected", "missed")
#: Of float32 results, a difference of less than this beside the values is none.
ROUNDING = 1e-6
METRIC_FIELDS = (
    *("metric", "run", "value", "rows", "difference", "low", "high", "undefined", "meaning"),
)
CHANGE_FIELDS = (
    *("run", "sample_token", "token", "category", "distance", "detection"),
    *("parts_before", "parts_after", "removal_before", "removal_after"),
    *("score_before", "score_after"),
)
ALARM_FIELDS = (
    *("run", "change", "sample_token", "detection", "class", "score", "distance", "x", "y"),
)


def beyond_zero(row: MetricRow, other: int) -> bool | None:
    """Whether zero lies outside the interval of a difference; not if there is none.

    ``None`` where it does, but the difference is :data:`ROUNDING` of float32.
    """
    interval, values = row.differences[other], (row.values[0], row.values[1 + other])
    if not (interval.low > 0 or interval.high < 0):
        return False
    return True if abs(interval.estimate) > ROUNDING * max(map(abs, values)) else None


def number(value: float, sign: str = "") -> str:
    """Three significant digits; nothing for what does not exist."""
    if math.isnan(value):
        return ""
    return format(value + 0.0, f"{sign if value else ''}.3g")


def interval_text(interval: Interval) -> str:
    """``[-0.01, 0.03]``; nothing if there is none."""
    if math.isnan(interval.low):
        return ""
    return f"[{number(interval.low, '+')}, {number(interval.high, '+')}]"


def metric_header(labels: Sequence[str]) -> list[str]:
    """Of :func:`metric_cells`."""
    first, *others = labels
    columns = [(other, f"{other} - {first}", "95 % interval") for other in others]
    return ["metric", first, *(name for column in columns for name in column)]


def metric_cells(row: MetricRow) -> list[str]:
    """The metric as text: the first run's value, then each other's with its difference."""
    first, *others = row.values
    cells = [row.name, number(first)]
    for value, d in zip(others, row.differences, strict=True):
        cells += [number(value), number(d.estimate, "+"), interval_text(d)]
    return cells


def metric_rows(comparison: RunComparison) -> Iterator[tuple[Any, ...]]:
    """``comparison.csv`` without its header."""
    for row in comparison.rows:
        empty = (None, None, None, None)
        yield row.name, comparison.labels[0], row.values[0], row.counts[0], *empty, row.meaning
        columns = (comparison.others, row.values[1:], row.counts[1:], row.differences)
        for label, value, count, d in zip(*columns, strict=True):
            known = (d.estimate, d.low, d.high, d.undefined)
            yield row.name, label, value, count, *known, row.meaning


def changed(comparison: RunComparison, other: int) -> list[Change]:
    """The vehicles with another decisive sensor in the other run of this number."""
    return [change for change in comparison.changes[other] if change.changed]


def change_rows(comparison: RunComparison) -> Iterator[tuple[Any, ...]]:
    """``changed_vehicles.csv`` without its header."""
    for other, label in enumerate(comparison.others):
        for change in changed(comparison, other):
            yield label, *change_values(change)


def change_values(change: Change) -> tuple[Any, ...]:
    """In the order of :data:`CHANGE_FIELDS`, from the second."""
    before, after = change.before, change.after
    named = (before["sample_token"], before["token"], before["category"], before["distance"])
    verdicts = (change.detection, *change.parts, *change.removal)
    return (*named, *verdicts, before["score"], after["score"])


def alarm_rows(comparison: RunComparison) -> Iterator[tuple[Any, ...]]:
    """``changed_false_alarms.csv`` without its header."""
    for label, changes in zip(comparison.others, comparison.alarms, strict=True):
        for change in changes:
            row = change.row
            known = (row["sample"], *(row[name] for name in ALARM_FIELDS[3:]))
            yield label, "new" if change.new else "gone", *known


def differing_metrics(comparison: RunComparison, other: int) -> tuple[int, int]:
    """How many differences have an interval that excludes zero, and how many have any."""
    known = [row for row in comparison.rows if not math.isnan(row.differences[other].low)]
    return sum(beyond_zero(row, other) is True for row in known), len(known)


def headline(comparison: RunComparison, other: int) -> str:
    """What changed in a run, in a sentence."""
    beyond, known = differing_metrics(comparison, other)
    first, label = comparison.labels[0], comparison.others[other]
    said = (
        *_quality(comparison, other),
        f"{beyond} of {known} differences have an interval without zero",
        *_changed_vehicles(comparison, other),
        *_changed_alarms(comparison, other),
    )
    return f"{label} against {first}: {'; '.join(said)}"


def _quality(comparison: RunComparison, other: int) -> Iterator[str]:
    """How good the predictions are, before and after."""
    for row in comparison.rows:
        before, after = row.values[0], row.values[other + 1]
        if row.name in QUALITY and not (math.isnan(before) or math.isnan(after)):
            yield f"{QUALITY[row.name]} {number(before)}, then {number(after)}"


def _changed_vehicles(comparison: RunComparison, other: int) -> Iterator[str]:
    changes = comparison.changes[other]
    if not changes:
        return
    either = len(changed(comparison, other))
    yield f"of {len(changes)} vehicles {either} have another decisive sensor{by(changes)}"
    won, lost = (sum(c.detection == f"newly {kind}" for c in changes) for kind in _DETECTION)
    counted = comparison.alarms or any(row.name == "false_alarms" for row in comparison.rows)
    uncounted = "" if counted else " (false alarms are not counted without detections)"
    yield f"{won} newly detected, {lost} newly missed{uncounted}"


def by(changes: Sequence[Change]) -> str:
    """By which of the two criteria verdicts differ: `` (2 by parts, 1 by removal)``."""
    parts = sum(c.parts[0] != c.parts[1] for c in changes)
    removal = sum(c.removal[0] != c.removal[1] for c in changes)
    return f" ({parts} by parts, {removal} by removal)" if parts or removal else ""


def _changed_alarms(comparison: RunComparison, other: int) -> Iterator[str]:
    if comparison.alarms:
        new = sum(change.new for change in comparison.alarms[other])
        yield f"false alarms: {new} new, {len(comparison.alarms[other]) - new} gone"


def interval_note(comparison: RunComparison) -> str:
    """What the intervals are."""
    clusters = comparison.clusters
    kind = "paired bootstrap" if comparison.paired else "bootstrap"
    said = f"Intervals: 95 %, {kind} of {clusters.count} whole {clusters.kind}s"
    if clusters.count < 2:
        return f"No intervals: there is one {clusters.kind}, and nothing to resample."
    draws = "the same draws for every run" if comparison.paired else "of all runs together"
    few = " With so few of them they are too narrow." if clusters.count < 20 else ""
    return (
        f"{said}, {draws}.{few} Of differences that are zero, one in twenty "
        "excludes zero by chance."
    )


def markdown(comparison: RunComparison) -> str:
    """The whole comparison, for a pull request."""
    header = metric_header(comparison.labels)
    rows = [header, ["---"] * len(header), *map(metric_cells, comparison.rows)]
    table = "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in rows)
    lines = [headline(comparison, other) + "." for other in range(len(comparison.others))]
    notes = [*lines, interval_note(comparison), *comparison.notes]
    title = f"# {' and '.join(comparison.others)} compared with {comparison.labels[0]}"
    return f"{_cell(title)}\n\n{table}\n" + "".join(f"{_cell(note)}\n\n" for note in notes)


def _cell(text: str) -> str:
    """One line, and nothing that ends a cell or begins a tag."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
