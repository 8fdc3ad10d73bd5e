"""How well the small CRN finds cars, and how much it owes to each sensor.

Peaks: cells whose probability is the highest within 3 x 3, at their cells' centres. Average
precision: nuScenes' (devkit), at a distance of 2 m, recall and precision above 0.1. Recall: a car
counts as detected if a peak of probability above :data:`THRESHOLD` is matched to it. Cars of
visibility 1 are left out, and so are peaks within 2 m of one (unless a car that counts is nearer).
"Zeroed": a sensor's encoded features are set to zero before the view transform.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.utils import center_distance
from nuscenes.eval.detection.algo import accumulate, calc_ap
from nuscenes.eval.detection.data_classes import DetectionBox
from torch import Tensor

from lmd_cli.data import collate
from lmd_cli.data.crn import EgoBox, KeyframeSamples
from lmd_cli.networks.crn import CRN
from training.conditions import Tally, class_of, conditions, read_evidence
from training.crn_targets import BevMap

#: A peak may lie this far from its car, metres.
DISTANCE = 2.0
#: Probability above which a peak counts as a find.
THRESHOLD = 0.3
#: Peaks of a sample that are kept, highest first, as the published decoder does.
MOST_PEAKS = 500
DEFINITIONS = (
    "AP: nuScenes' average precision of the heat map's peaks (cells that are highest within 3 x 3, "
    f"at their centres) at a distance of {DISTANCE:g} m. Recall by the sensors that can see a car "
    f"(how many in brackets): detected if a peak of probability > {THRESHOLD} is matched to it "
    f"within {DISTANCE:g} m. Cars of visibility 1, and peaks beside them, are left out. Zeroed: "
    "the sensor's encoded features are zero. BatchNorm in evaluation mode."
)


@dataclass(frozen=True)
class Peak:
    """A local maximum of the heat map: probability, and x and y in metres."""

    score: float
    xy: tuple[float, float]


def peaks(probability: Tensor, bev: BevMap, least: float = 0.01) -> list[Peak]:
    """Peaks of a map (ny, nx), highest first."""
    highest = F.max_pool2d(probability[None], 3, stride=1, padding=1)[0]
    rows, columns = ((probability == highest) & (probability > least)).nonzero(as_tuple=True)
    scores = probability[rows, columns]
    order = scores.argsort(descending=True, stable=True)[:MOST_PEAKS]
    places = bev.centers(rows, columns)[order].tolist()
    return [Peak(s, (x, y)) for s, (x, y) in zip(scores[order].tolist(), places, strict=True)]


@dataclass
class Detections(Tally):
    """Peaks and cars of a split under one condition."""

    peaks: dict[str, list[Peak]] = field(default_factory=dict)
    cars: dict[str, list[EgoBox]] = field(default_factory=dict)

    def add(
        self, token: str, guesses: Sequence[Peak], cars: Sequence[EgoBox], names: Mapping[str, str]
    ) -> None:
        """Count one sample.

        Args:
            token: the sample's.
            guesses: its peaks, highest first.
            cars: its cars on the map.
            names: a car's token -> its class of visibility.
        """
        counted = [car for car in cars if car.visibility > 1]
        self.peaks[token] = [peak for peak in guesses if not _beside(peak, cars)]
        self.cars[token] = counted
        matched = match([peak for peak in self.peaks[token] if peak.score > THRESHOLD], counted)
        for i, car in enumerate(counted):
            self.detected[names[car.token]].append(i in matched)

    @property
    def figure(self) -> float:
        """nuScenes' average precision at 2 m, 0 to 1."""
        truth, guesses = EvalBoxes(), EvalBoxes()
        for token, cars in self.cars.items():
            truth.add_boxes(token, [_box(token, car.center[:2]) for car in cars])
            guesses.add_boxes(token, [_box(token, p.xy, p.score) for p in self.peaks[token]])
        data = accumulate(truth, guesses, "car", center_distance, DISTANCE)
        return float(calc_ap(data, min_recall=0.1, min_precision=0.1))


def match(guesses: Sequence[Peak], cars: Sequence[EgoBox]) -> set[int]:
    """Cars that are matched: each peak, highest first, takes the nearest free one in reach."""
    taken: set[int] = set()
    for peak in guesses:
        distances = _distances(peak, cars)
        distances[list(taken)] = np.inf
        if len(cars) and distances.min() < DISTANCE:
            taken.add(int(distances.argmin()))
    return taken


def _distances(peak: Peak, cars: Sequence[EgoBox]) -> NDArray[np.float64]:
    return np.array([math.dist(car.center[:2], peak.xy) for car in cars], dtype=np.float64)


def _beside(peak: Peak, cars: Sequence[EgoBox]) -> bool:
    """Whether the nearest car is one that is left out, and in reach."""
    distances = _distances(peak, cars)
    if not len(cars) or distances.min() >= DISTANCE:
        return False
    return cars[int(distances.argmin())].visibility == 1


def _box(token: str, xy: tuple[float, ...], score: float = -1.0) -> DetectionBox:
    return DetectionBox(
        sample_token=token,
        translation=(float(xy[0]), float(xy[1]), 0.0),
        size=(1.0, 1.0, 1.0),
        detection_name="car",
        detection_score=score,
    )


def evaluate(network: CRN, data: KeyframeSamples) -> dict[str, Detections]:
    """Score ``network`` on a synthetic split under every one of its conditions."""
    evidence, bev = read_evidence(data.dataroot), BevMap(data.cells, data.extent)
    scores = {condition: Detections() for condition in conditions(network.modalities)}
    network.eval()
    for i in range(len(data)):
        sample = data[i]
        cars = [box for box in data.boxes(i) if box.name == "car" and bev.holds(box)]
        names = {car.token: class_of(evidence[car.token], network.modalities) for car in cars}
        for condition, probability in predict(network, collate([sample])).items():
            scores[condition].add(sample.token, peaks(probability, bev), cars, names)
    return scores


@torch.no_grad()
def predict(network: CRN, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Probabilities of cars (ny, nx) of one sample under every condition."""
    features, constants = network.encode(batch), network.constants(batch)
    maps = {}
    for condition in conditions(network.modalities):
        kept = {
            modality: {
                n: torch.zeros_like(v) if modality == condition else v for n, v in of.items()
            }
            for modality, of in features.items()
        }
        logits = network.fuse(kept, ("heatmap.car",), **constants)["heatmap.car"]
        maps[condition] = logits[0, 0].sigmoid()
    return maps
