"""What a network detects with each subset of its sensors, over a survey: counts and intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lmd_cli.evaluation.ground.removal import Removed, removals
from lmd_cli.evaluation.run_metrics import Metric
from lmd_cli.evaluation.statistics import Interval
from lmd_cli.results.survey_metrics import SurveyMetrics


@dataclass(frozen=True)
class Subset:
    """The network with some sensors removed.

    Attributes:
        left, removed: names of the sensors.
        annotations, detected: how many annotations there are, and are detected.
        share: of the annotations that is detected.
        false_alarms, new_false_alarms: detections without an annotation, and those of them that the
            network does not make with all sensors.
        new_by_sample: the latter, mean over samples.
        iou: NaN where it is not defined.
    """

    left: Removed
    removed: Removed
    annotations: int
    detected: int
    share: Interval
    false_alarms: int
    new_false_alarms: int
    new_by_sample: Interval
    iou: Interval

    def values(self) -> dict[str, Any]:
        """By names, for a JSON document; what does not exist is NaN."""
        named = {"detected_share": self.share, "new_by_sample": self.new_by_sample, "iou": self.iou}
        intervals = {
            name + end: value
            for name, interval in named.items()
            for end, value in zip(("", "_low", "_high"), ends(interval), strict=True)
        }
        counts = ("annotations", "detected", "false_alarms", "new_false_alarms")
        sensors = {"sensors": list(self.left), "removed": list(self.removed)}
        return {**sensors, **{name: getattr(self, name) for name in counts}, **intervals}


def ends(interval: Interval) -> tuple[float, float, float]:
    """Estimate and ends of an interval."""
    return interval.estimate, interval.low, interval.high


def subsets(metrics: SurveyMetrics) -> list[Subset]:
    """All sensors, then each removal; none without annotations that the output looks for."""
    if not metrics.vehicles:
        return []
    return [_subset(metrics, removed) for removed in [(), *removals(metrics.survey.sensors)]]


def _subset(metrics: SurveyMetrics, removed: Removed) -> Subset:
    def interval(metric: Metric) -> Interval:
        return metric.interval(metrics.clusters.draws, metrics.clusters.of)

    listed, nothing = "+".join(removed), Interval(0.0, math.nan, math.nan)
    name = f"objects.detected_without.{listed}" if removed else "objects.detected"
    detected = metrics.metric(name)
    false = metrics.metric(f"false_alarms_without.{listed}" if removed else "false_alarms")
    new = metrics.metric(f"new_false_alarms_without.{listed}") if removed else None
    return Subset(
        tuple(sensor for sensor in metrics.survey.sensors if sensor not in removed),
        removed,
        len(metrics.vehicles),
        int(detected.above.sum()),
        interval(detected),
        int(false.above.sum()),
        0 if new is None else int(new.above.sum()),
        nothing if new is None else interval(new),
        interval(metrics.iou(removed)),
    )
