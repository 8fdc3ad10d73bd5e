"""What became of detections as metrics that resample, and which false alarms are new."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lmd_cli.evaluation.detections.matching import DUPLICATE, FALSE_ALARM, HIT, MISS, NEAR
from lmd_cli.evaluation.run_metrics import Metric, metric_of

Row = Mapping[str, Any]
#: nuScenes' errors of true positives, and how tables call them.
ERRORS = {
    "trans_err": "ATE",
    "scale_err": "ASE",
    "orient_err": "AOE",
    "vel_err": "AVE",
    "attr_err": "AAE",
}


@dataclass(frozen=True, eq=False)
class MatchedDetections:
    """What ``lmd detect`` found in samples, and what of it is right.

    Attributes:
        rows: of ``detections.csv``, with outcomes.
        figures: ``detection_metrics.json``; empty if there is none.
        samples: tokens of those that the rows are of.
        evaluated: tokens of those that ``figures`` are of.
    """

    rows: Sequence[Row]
    figures: Mapping[str, Any]
    samples: frozenset[str]
    evaluated: frozenset[str]

    def within(self, samples: Collection[str]) -> MatchedDetections:
        """The rows of some samples; ``figures`` are of all together, and stay."""
        rows = [row for row in self.rows if row["sample"] in samples]
        return MatchedDetections(rows, self.figures, self.samples & set(samples), self.evaluated)

    @property
    def false_alarms(self) -> list[Row]:
        """Their boxes."""
        return [r for r in self.rows if r["kind"] == "box" and r["outcome"] == FALSE_ALARM]


def matched_metrics(detected: MatchedDetections) -> dict[str, Callable[[], Metric]]:
    """Every metric of detections by its name, made when asked for."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    overlaps: Counter[str] = Counter()
    for row in detected.rows:
        if row["kind"] == "box" or row["outcome"] == MISS:
            counts[row["sample"]][row["outcome"]] += 1
        if row["kind"] == "box" and row["outcome"] == HIT:
            overlaps[row["sample"]] += row["closeness"]

    def ratio(name: str, meaning: str, above: Any, below: Any) -> Metric:
        pairs = ((t, float(above(counts[t])), float(below(counts[t]))) for t in ordered)
        return metric_of(name, meaning, pairs)

    ordered = sorted(detected.samples)
    made: dict[str, Callable[[], Metric]]
    made = {name: partial(ratio, name, *described) for name, described in _RATIOS.items()}
    if "panoptic_quality" in detected.figures:
        name, wrong = "detections.panoptic_quality", _wrong
        rows = ((t, overlaps[t], counts[t][HIT] + wrong(counts[t]) / 2) for t in ordered)
        meaning = "panoptic quality of the instances (Kirillov et al., 2019)"
        made[name] = partial(metric_of, name, meaning, list(rows))
    for name, meaning, value in _of_all(detected.figures):
        made[name] = partial(_whole, name, meaning, value, sorted(detected.evaluated))
    return made


def _wrong(counts: Counter[str]) -> int:
    return counts[FALSE_ALARM] + counts[DUPLICATE] + counts[MISS]


_RATIOS: dict[str, tuple[str, Any, Any]] = {
    "detections.recall": (
        "share of the annotations that are detected",
        lambda c: c[HIT],
        lambda c: c[HIT] + c[MISS],
    ),
    "detections.precision": (
        "share of the boxes above the threshold that are an annotation",
        lambda c: c[HIT],
        lambda c: c[HIT] + c[FALSE_ALARM] + c[DUPLICATE],
    ),
    "detections.false_alarms": (
        "boxes of a sample that are no annotation",
        lambda c: c[FALSE_ALARM],
        lambda c: 1,
    ),
}


def _of_all(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """nuscenes-devkit's figures: name, meaning, value."""
    if "mean_ap" not in figures:
        return
    yield "detections.mAP", "mean average precision, by nuscenes-devkit", figures["mean_ap"]
    yield "detections.NDS", "nuScenes detection score, by nuscenes-devkit", figures["nd_score"]
    for key, title in ERRORS.items():
        value, what = figures["tp_errors"][key], key.removesuffix("_err")
        if value is not None:
            yield (
                f"detections.m{title}",
                f"mean {what} error of the hits, by nuscenes-devkit",
                value,
            )
    for name, value in figures["mean_dist_aps"].items():
        if figures["annotations"][name]:
            meaning = f"average precision of class {name}, by nuscenes-devkit"
            yield f"detections.AP.{name}", meaning, value


def _whole(name: str, meaning: str, value: float, samples: Sequence[str]) -> Metric:
    """A figure of all samples together, which cannot be resampled."""
    ones = np.ones(len(samples))
    return Metric(name, meaning, samples, value * ones, ones, largest=True)


@dataclass(frozen=True)
class AlarmChange:
    """A false alarm that only one of two runs has.

    Attributes:
        row: its box in ``detections.csv`` of that run.
        new: it is the other run's; else it is gone.
    """

    row: Row
    new: bool


def alarm_changes(first: MatchedDetections, other: MatchedDetections) -> list[AlarmChange]:
    """False alarms with none of their class and sample nearer than :data:`~.matching.NEAR` in the
    other run: the new ones, then those that are gone, the nearest to the vehicle first."""
    before, after = first.false_alarms, other.false_alarms
    changes = [AlarmChange(row, True) for row in _without_like(after, before)]
    changes += [AlarmChange(row, False) for row in _without_like(before, after)]
    return sorted(changes, key=lambda change: (not change.new, change.row["distance"]))


def _without_like(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    places: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in others:
        places[row["sample"], row["class"]].append(row)
    return [r for r in rows if all(_apart(r, o) >= NEAR for o in places[r["sample"], r["class"]])]


def _apart(a: Row, b: Row) -> float:
    return math.hypot(a["x"] - b["x"], a["y"] - b["y"])
