"""The metrics of a run's folder by name, from its rows and its survey."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product

import numpy as np

from lmd_cli.evaluation.comparisons import Comparison, measured_comparisons
from lmd_cli.evaluation.detections.figures import MatchedDetections, matched_metrics
from lmd_cli.evaluation.run_metrics import Metric, ObjectMetric, Vehicle, metric_of
from lmd_cli.results.read_run import RunResults
from lmd_cli.results.survey import Survey
from lmd_cli.results.survey_metrics import SurveyMetrics


@dataclass(eq=False)
class RunMetrics:
    """All metrics of a run.

    Attributes:
        run: its tables.
        survey: of its samples; without it there are no metrics of objects and removal.
        samples: tokens of the samples to take; all if none.
        detections: what was detected in them; without it there are no metrics of detections.
    """

    run: RunResults
    survey: Survey | None = None
    samples: frozenset[str] | None = None
    detections: MatchedDetections | None = None

    @cached_property
    def surveyed(self) -> SurveyMetrics | None:
        """Those of the survey."""
        return None if self.survey is None else SurveyMetrics(self.survey, self.samples)

    @property
    def vehicles(self) -> list[Vehicle]:
        """Annotated vehicles inside the maps, of classes that the output looks for."""
        return [] if self.surveyed is None else self.surveyed.vehicles

    @property
    def of_objects(self) -> dict[str, ObjectMetric]:
        """Metrics over vehicles by name."""
        return {} if self.surveyed is None else self.surveyed.of_objects

    @cached_property
    def of_samples(self) -> dict[str, Callable[[], Metric]]:
        """Metrics over samples and pairs by name, made when asked for.

        ``pcc.radar.camera`` is of the first variant (radar replaced, the camera's part compared),
        ``pcc.radar.camera@VARIANT`` of another.
        """
        made: dict[str, Callable[[], Metric]] = {"iou": self._iou}
        made |= {} if self.detections is None else matched_metrics(self.detections)
        made |= {} if self.surveyed is None else self.surveyed.of_samples
        comparisons = measured_comparisons(self.run.record["config"]["model"]["modalities"])
        for variant, kind, comparison in product(self.variants, ("pcc", "mse"), comparisons):
            name = f"{kind}.{comparison.perturbed_name}.{comparison.target}"
            name += "" if variant == self.variants[0] else f"@{variant}"
            made[name] = partial(self._of_pairs, name, kind, variant, comparison)
        return made | {n: partial(self._largest, n) for n in ("residual", "replay_deviation")}

    @property
    def variants(self) -> list[str]:
        """What the run's table has rows of: variants of LMD, or the methods that were asked for."""
        rows = self.run.record.get("rows")
        if isinstance(rows, list) and rows and all(isinstance(row, str) for row in rows):
            return rows
        return self.run.variants

    @property
    def names(self) -> list[str]:
        """Of every metric that this run has."""
        first, *others = self.of_samples
        return [first, *self.of_objects, *others]

    def metric(self, name: str, keep: Callable[[Vehicle], bool] | None = None) -> Metric:
        """One metric.

        Args:
            keep: of a metric over objects, which vehicles count; all if none.

        Raises:
            KeyError: there is no such metric.
        """
        if self.surveyed is not None and name in self.of_objects:
            return self.surveyed.metric(name, keep)
        return self.of_samples[name]()

    def _taken(self, token: str) -> bool:
        return self.samples is None or token in self.samples

    def _rows(self, *columns: str) -> Iterator[tuple[str, Sequence[str]]]:
        """Token and values of the samples that have them."""
        for row in self.run.samples:
            values = [row[column] for column in columns]
            if row["status"] == "ok" and all(values) and self._taken(row["sample_token"]):
                yield row["sample_token"], values

    def _iou(self) -> Metric:
        rows = self._rows("intersection", "union")
        meaning = "IoU of the unmodified network: intersections over unions, summed over samples"
        return metric_of("iou", meaning, ((t, float(i), float(u)) for t, (i, u) in rows))

    def _largest(self, column: str) -> Metric:
        rows = ((token, float(value), 1.0) for token, (value,) in self._rows(column))
        meaning = f"largest {column.replace('_', ' ')} of the samples"
        return metric_of(column, meaning, rows, largest=True)

    def _of_pairs(self, name: str, kind: str, variant: str, comparison: Comparison) -> Metric:
        perturbed, target = comparison.perturbed_name, comparison.target
        pairs = self.run.pairs
        which = (pairs.perturbed == perturbed) & (pairs.target == target)
        chosen = pairs[(pairs.variant == variant) & which & pairs[kind].notna()]
        values = zip(chosen.sample_token.tolist(), chosen[kind].to_numpy(np.float64), strict=True)
        rows = ((token, float(value), 1.0) for token, value in values if self._taken(token))
        what = {"pcc": "correlation", "mse": "squared error"}[kind]
        meaning = f"mean {what} of the part of {target} before and after {perturbed} was replaced"
        return metric_of(name, f"{meaning}, {variant}", rows)
