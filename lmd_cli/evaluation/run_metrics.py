"""The metrics of an evaluation by name: ratios of sums over rows, so that all resample alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmd_cli.decomposition.layout import BIAS
from lmd_cli.evaluation.ground.decisive import MISSED, SEVERAL, TOGETHER
from lmd_cli.evaluation.ground.removal import Removed, lost_without, removals, suffix
from lmd_cli.evaluation.ground.vehicles import part_field, sensors_of
from lmd_cli.evaluation.metrics import bias_share, evidence_shares
from lmd_cli.evaluation.statistics import Interval, Resampling, percentile_interval

Array = NDArray[np.float64]
#: One vehicle: the columns of ``objects.csv`` by name.
Vehicle = Mapping[str, Any]
#: Columns of ``objects.csv``: detected or not, and which sensor is enough, by parts and by removal.
DETECTED, BY_PARTS, BY_REMOVAL = "detected", "enough_by_parts", "enough_by_removal"
#: Of a metric, what the order of a sum in float64 may change.
ROUNDING = 1e-12
#: The verdicts of ``objects.csv`` that are no sensor, as metrics are named.
VERDICTS = {SEVERAL: "several", TOGETHER: "together"}


@dataclass(frozen=True, eq=False)
class Metric:
    """One number of a run, and the rows that it is made of.

    Attributes:
        name: such as ``objects.share.radar``.
        meaning: a sentence.
        samples: for each of n rows the token of its sample.
        above, below: (n,); the metric is the sum of ``above`` over the sum of ``below``.
        largest: the metric is the largest of ``above`` instead, and has no interval; as has a
            figure of all samples together, which stands in every row.
    """

    name: str
    meaning: str
    samples: Sequence[str]
    above: Array
    below: Array
    largest: bool = False

    @property
    def value(self) -> float:
        """NaN where it does not exist."""
        if self.largest:
            return float(self.above.max()) if self.above.size else math.nan
        total = float(self.below.sum())
        return float(self.above.sum()) / total if total else math.nan

    def resampled(self, draws: Resampling, clusters: Mapping[str, str]) -> Array:
        """The metric in every resample; none of the largest value, which has no such interval."""
        if self.largest:
            return np.zeros(0)
        return draws.ratios([clusters[token] for token in self.samples], self.above, self.below)

    def interval(self, draws: Resampling, clusters: Mapping[str, str]) -> Interval:
        """The value with its interval.

        Args:
            draws: of the clusters.
            clusters: each sample's.
        """
        return percentile_interval(self.value, self.resampled(draws, clusters))


def difference(
    first: Metric, second: Metric, draws: Resampling, clusters: Mapping[str, str]
) -> Interval:
    """``second`` minus ``first``, both from the same draws of clusters.

    What is below :data:`ROUNDING` of the metric is the order of a sum, and zero.
    """
    noise = ROUNDING * max(abs(first.value), abs(second.value))
    resampled = second.resampled(draws, clusters) - first.resampled(draws, clusters)
    resampled[np.abs(resampled) <= noise] = 0.0
    change = second.value - first.value
    return percentile_interval(0.0 if abs(change) <= noise else change, resampled)


def metric_of(
    name: str, meaning: str, rows: Iterable[tuple[str, float, float]], *, largest: bool = False
) -> Metric:
    """A metric from (sample, above, below) of each row."""
    listed = list(rows)
    samples = [row[0] for row in listed]
    above, below = (np.array([row[i] for row in listed], dtype=np.float64) for i in (1, 2))
    return Metric(name, meaning, samples, above, below, largest)


@dataclass(frozen=True)
class ObjectMetric:
    """A mean over vehicles.

    Attributes:
        meaning: a sentence.
        value: of one vehicle; none if it does not count.
    """

    meaning: str
    value: Callable[[Vehicle], float | None]

    def over(self, name: str, vehicles: Iterable[Vehicle]) -> Metric:
        """The metric over some vehicles."""
        valued = ((str(v["sample_token"]), self.value(v)) for v in vehicles)
        rows = ((token, float(value), 1.0) for token, value in valued if value is not None)
        return metric_of(name, self.meaning, rows)


def object_metrics(parts: Sequence[str]) -> dict[str, ObjectMetric]:
    """Every metric over vehicles by its name, for whatever parts there are.

    Args:
        parts: names, in the order of ``objects.csv``.
    """
    sensors = sensors_of(parts)
    metrics = {
        "objects.detected": ObjectMetric("share of vehicles that are detected", _detected),
        **{f"objects.share.{name}": _share(name, parts) for name in parts},
        **{f"objects.logit.{name}": _logit(name) for name in ("total", *parts)},
        **{
            f"objects.detected_without.{'+'.join(removed)}": _kept(removed)
            for removed in removals(sensors)
        },
        **{f"objects.lost_without.{name}": _lost(name, sensors) for name in sensors},
        "objects.lost_without.any": ObjectMetric(
            "of the detected, share that is lost when at least one of the sensors is removed",
            lambda v: float(bool(lost_without(v, sensors))) if v[DETECTED] else None,
        ),
    }
    if BIAS in parts:
        metrics["objects.bias_share"] = ObjectMetric(
            "mean of |bias| over the sum of |part|",
            lambda v: bias_share({name: v[part_field(name)] for name in parts}),
        )
    verdicts = {VERDICTS.get(name, name): name for name in (*sensors, SEVERAL, TOGETHER)}
    return {
        **metrics,
        **{f"objects.decisive.{n}": _verdict(BY_PARTS, v, "parts") for n, v in verdicts.items()},
        **{
            f"objects.decisive_removal.{n}": _verdict(BY_REMOVAL, v, "removal")
            for n, v in verdicts.items()
        },
    }


def _detected(vehicle: Vehicle) -> float:
    return float(vehicle[DETECTED])


def _share(name: str, parts: Sequence[str]) -> ObjectMetric:
    def value(vehicle: Vehicle) -> float | None:
        shares = evidence_shares([vehicle[part_field(part)] for part in parts])
        return None if shares is None else shares[parts.index(name)]

    return ObjectMetric(
        f"mean share of {name} in what speaks for a vehicle (a negative part counts as 0)", value
    )


def _logit(name: str) -> ObjectMetric:
    column = name if name == "total" else part_field(name)
    return ObjectMetric(
        f"mean of {name} over a vehicle's footprint", lambda vehicle: float(vehicle[column])
    )


def _kept(removed: Removed) -> ObjectMetric:
    def value(vehicle: Vehicle) -> float | None:
        known = vehicle[f"detected_{suffix(removed)}"]
        return None if known is None else float(known)

    listed = " and ".join(removed)
    return ObjectMetric(f"share of vehicles that are detected with {listed} removed", value)


def _lost(name: str, sensors: Sequence[str]) -> ObjectMetric:
    return ObjectMetric(
        f"of the detected, share that is lost when {name} is removed",
        lambda v: float(name in lost_without(v, sensors)) if v[DETECTED] else None,
    )


def _verdict(column: str, verdict: str, source: str) -> ObjectMetric:
    return ObjectMetric(
        f"of the detected, share where enough alone, by {source}, is: {verdict}",
        lambda v: None if v[column] == MISSED else float(v[column] == verdict),
    )
