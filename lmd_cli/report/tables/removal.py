"""What a network detects with each subset of its sensors, in words and figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lmd_cli.evaluation.paired import RESAMPLES
from lmd_cli.evaluation.run_metrics import Vehicle
from lmd_cli.evaluation.statistics import Interval
from lmd_cli.report.figures.styles import part_title
from lmd_cli.report.words import HOW, counted
from lmd_cli.results.removal_subsets import Subset, ends
from lmd_cli.results.survey_metrics import SurveyMetrics

#: Columns of :func:`subset_cells`; the last only where the IoU is defined.
HEADER = (
    *("sensors left", "annotations detected", "share of them", "false alarms"),
    *("new false alarms", "new in a sample", "IoU"),
)


def header_of(table: Sequence[Subset]) -> tuple[str, ...]:
    """Of :func:`subset_cells`: a head that marks peaks has no IoU."""
    return HEADER[:-1] if all(math.isnan(one.iou.estimate) for one in table) else HEADER


def subset_cells(table: Sequence[Subset]) -> list[list[str]]:
    """Each subset in words and figures, with 95 % intervals, in the columns of the header."""
    return [_cells(one)[: len(header_of(table))] for one in table]


def _cells(one: Subset) -> list[str]:
    return [
        " and ".join(map(part_title, one.left)) or "none",
        f"{one.detected} of {one.annotations}",
        interval_text(one.share),
        str(one.false_alarms),
        str(one.new_false_alarms),
        interval_text(one.new_by_sample),
        interval_text(one.iou),
    ]


def interval_text(interval: Interval) -> str:
    """``0.25 (0.20 to 0.31)``; without the interval where all resamples agree or none exists."""
    estimate, low, high = ends(interval)
    if math.isnan(estimate):
        return "–"
    known = f" ({_two_digits(low)} to {_two_digits(high)})" if low < high else ""
    return f"{_two_digits(estimate)}{known}"


def _two_digits(value: float) -> str:
    """``0.30``, ``4.0``, ``120``: two significant digits at least, never an exponent."""
    places = max(0, 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{places}f}"


def counted_annotations(vehicles: Sequence[Vehicle]) -> str:
    """``985 annotations of 47 vehicles in 2 scenes``; without the vehicles if nobody knows them."""
    instances = {v["instance"] for v in vehicles}
    scenes = len({v["scene"] for v in vehicles})
    of = "" if "" in instances else f" of {counted(len(instances), 'vehicle')}"
    return f"{counted(len(vehicles), 'annotation')}{of} in {counted(scenes, 'scene')}"


def detected_note(metrics: SurveyMetrics) -> str:
    """What the table's annotations are, and what its intervals resample."""
    drawn, how = metrics.clusters, HOW[metrics.survey.removal]
    return (
        f"{counted_annotations(metrics.vehicles)}; removed sensors' features {how}; "
        "new false alarms: detections without an annotation that share no cell with one of the "
        f"network with all sensors; 95 % intervals: {RESAMPLES} resamples of "
        f"{counted(drawn.count, drawn.kind)}."
    )
