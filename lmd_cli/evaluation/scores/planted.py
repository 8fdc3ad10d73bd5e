"""False alarms whose sensor is known: planted ones of the synthetic world.

A planted false alarm is what one sensor alone gets where nothing is: a picture of a vehicle, or
echoes like those of one. Where the network falls for it, the sensor behind the false alarm is
known, and a method's parts can be asked for it: AUROC of d_m = part of m - mean of the others'
parts, over the planted ones of that sensor against the rest. Intervals resample whole objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lmd_cli.data.synthetic.planted import as_annotation
from lmd_cli.evaluation.ground.detection import Criterion
from lmd_cli.evaluation.ground.footprints import FootprintMeans, detected, footprints
from lmd_cli.evaluation.scores.against_ground_truth import ObjectDraws, Score, Vehicle, separated
from lmd_cli.evaluation.scores.ground_truth import GroundTruthObject, Means

#: Over the planted ones that the network falls for, and over all.
FALSE_ALARMS, ALL = "false_alarm_auroc", "planted_auroc"


@dataclass(frozen=True)
class PlantedGroundTruth:
    """The planted false alarms of a synthetic root, by sample, as ``read_planted`` gives them."""

    dataset: Any
    output: str
    criterion: Criterion
    planted: Mapping[str, Sequence[Mapping[str, Any]]]
    modalities: Sequence[str]

    def at(self, index: int, total: Tensor) -> tuple[list[GroundTruthObject], Means]:
        """Those on the map that a sensor of the network gets anything of; see
        :class:`~lmd_cli.evaluation.scores.ground_truth.GroundTruth`."""
        listed = self.planted.get(self.dataset.tokens[index], ())
        rows = {r["token"]: r for r in listed if r["amount"] and r["sensor"] in self.modalities}
        boxes = self.dataset.boxes(index, [as_annotation(row) for row in rows.values()])
        there = footprints(self.dataset, index, self.output, boxes)
        objects = [
            GroundTruthObject(
                one.token,
                one.token,
                self._evidence(rows[one.token]),
                detected(total[0, 0], one, self.criterion),
            )
            for one in there
        ]
        return objects, FootprintMeans.over(there, total)

    def _evidence(self, row: Mapping[str, Any]) -> dict[str, float]:
        return {name: float(row["amount"]) * (name == row["sensor"]) for name in self.modalities}


def planted_scores(
    planted: Sequence[Vehicle], modalities: Sequence[str], *, seed: int, resamples: int
) -> list[Score]:
    """How well a method's parts name the sensor behind planted false alarms."""
    draws = ObjectDraws(seed, resamples)
    false_alarms = [one for one in planted if one.detected]
    which = {FALSE_ALARMS: false_alarms, ALL: planted}
    return [
        score
        for name, chosen in which.items()
        for score in separated(name, chosen, modalities, draws)
    ]
