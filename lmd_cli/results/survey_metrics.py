"""The metrics of a survey by name: of its vehicles, and of its samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

from lmd_cli.evaluation.ground.removal import Removed, removals, suffix
from lmd_cli.evaluation.paired import Clusters, clusters_of
from lmd_cli.evaluation.run_metrics import Metric, ObjectMetric, Vehicle, metric_of, object_metrics
from lmd_cli.results.survey import Survey, sample_fields


@dataclass(eq=False)
class SurveyMetrics:
    """All metrics of a survey.

    Attributes:
        survey: what was surveyed.
        samples: tokens of the samples to take; all if none.
    """

    survey: Survey
    samples: frozenset[str] | None = None

    @cached_property
    def vehicles(self) -> list[Vehicle]:
        """Annotated vehicles inside the maps, of classes that the output looks for."""
        if not self.survey.ground:
            return []
        inside = [v for v in self.survey.vehicles if v["sought"] and v["inside"]]
        return [v for v in inside if self._taken(str(v["sample_token"]))]

    @cached_property
    def clusters(self) -> Clusters:
        """What an interval resamples: all the samples, or the scenes that they are of."""
        scenes = scenes_of(self.survey)
        return clusters_of([token for token in scenes if self._taken(token)], scenes)

    @cached_property
    def of_objects(self) -> dict[str, ObjectMetric]:
        """Metrics over vehicles by name."""
        return object_metrics(self.survey.parts) if self.survey.ground else {}

    @cached_property
    def of_samples(self) -> dict[str, Callable[[], Metric]]:
        """Metrics over samples by name, made when asked for."""
        means = {"conflict": ("conflict", "mean conflict of the sensors")}
        if self.survey.ground:
            means["false_alarms"] = ("false", "detections without an annotation, in a sample")
        made: dict[str, Callable[[], Metric]] = {}
        for removed in removals(self.survey.sensors):
            listed, end = "+".join(removed), suffix(removed)
            meaning = f"mean relative change of the output without {listed}"
            means[f"change.{listed}"] = (f"change_{end}", meaning)
            if self.survey.ground:
                named = f"detections without an annotation, in a sample, with {listed} removed"
                means[f"false_alarms_without.{listed}"] = (f"false_{end}", named)
                means[f"new_false_alarms_without.{listed}"] = (
                    f"new_false_{end}",
                    f"{named}, that share no cell with one that the network makes with all sensors",
                )
            if self._known(f"union_{end}"):
                made[f"iou_without.{listed}"] = partial(self.iou, removed)
        return {name: partial(self._mean, name, *what) for name, what in means.items()} | made

    def metric(self, name: str, keep: Callable[[Vehicle], bool] | None = None) -> Metric:
        """One metric.

        Args:
            keep: of a metric over objects, which vehicles count; all if none.

        Raises:
            KeyError: there is no such metric.
        """
        if name in self.of_objects:
            vehicles = self.vehicles if keep is None else filter(keep, self.vehicles)
            return self.of_objects[name].over(name, vehicles)
        return self.of_samples[name]()

    def _taken(self, token: str) -> bool:
        return self.samples is None or token in self.samples

    def _column(self, name: str) -> list[tuple[str, float | None]]:
        at = sample_fields(self.survey.parts).index(name)
        return [(str(row[0]), row[at]) for row in self.survey.samples if self._taken(str(row[0]))]

    def _known(self, column: str) -> bool:
        return any(value is not None for _, value in self._column(column))

    def _mean(self, name: str, column: str, meaning: str) -> Metric:
        known = ((t, float(v), 1.0) for t, v in self._column(column) if v is not None)
        return metric_of(name, meaning, known)

    def iou(self, removed: Removed) -> Metric:
        """Of the network with sensors removed; without a value where it is not defined."""
        end = f"_{suffix(removed)}" if removed else ""
        both = zip(self._column(f"intersection{end}"), self._column(f"union{end}"), strict=True)
        known = ((t, float(i), float(u)) for (t, i), (_, u) in both if i is not None and u)
        listed = "+".join(removed)
        return metric_of(f"iou_without.{listed}", f"IoU with {listed} removed", known)


def scenes_of(survey: Survey | None) -> dict[str, str]:
    """Each sample's scene, by its token."""
    return {} if survey is None else {str(row[0]): str(row[1]) for row in survey.samples}
