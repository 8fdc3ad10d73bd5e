"""How good a small SimpleBEV is, and how much it owes to each sensor.

IoU: at probability > 0.5 inside ``valid``, intersections and unions summed over the split.
Recall: a vehicle counts as detected if the mean probability over the cells of its footprint exceeds
0.5; vehicles of visibility 1, and those without a cell on the grid, are left out.
"Zeroed": a sensor's encoded features are set to zero before the fusion layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from lmd_cli.data import Box3D, NuScenesSamples, collate
from lmd_cli.data.simplebev.truth import footprint
from lmd_cli.networks import SimpleBEV
from training.conditions import Tally, class_of, conditions, read_evidence

DEFINITIONS = (
    "IoU: at probability > 0.5 inside `valid` (visibility 1 is left out), intersections and "
    "unions summed over the split. Recall by the sensors that can see a vehicle (how many in "
    "brackets): detected if the mean probability over its footprint's cells exceeds 0.5; "
    "visibility 1 left out. Zeroed: the sensor's encoded features are zero. BatchNorm in "
    "evaluation mode."
)


@dataclass
class Score(Tally):
    """Sums over a split under one condition."""

    intersection: float = 0.0
    union: float = 0.0

    @property
    def figure(self) -> float:
        """Intersection over union, 0 to 1."""
        return self.intersection / self.union

    def add(self, probability: Tensor, tensors: dict[str, Tensor]) -> None:
        """Count one map (1, Z, X)."""
        valid, truth = tensors["valid"] > 0, tensors["segmentation"] > 0
        guess = probability > 0.5
        self.intersection += float((guess & truth & valid).sum())
        self.union += float(((guess | truth) & valid).sum())


def evaluate(network: SimpleBEV, data: NuScenesSamples) -> dict[str, Score]:
    """Score ``network`` on a synthetic split under every one of its :func:`conditions`."""
    evidence = read_evidence(data.dataroot)
    scores = {condition: Score() for condition in conditions(network.modalities)}
    network.eval()
    for i in range(len(data)):
        sample, boxes = data[i], data.boxes(i)
        for condition, probability in predict(network, collate([sample])).items():
            scores[condition].add(probability, sample.tensors)
            for box in boxes:
                name = class_of(evidence[box.token], network.modalities)
                _count(scores[condition], box, name, probability[0].numpy(), data)
    return scores


@torch.no_grad()
def predict(network: SimpleBEV, batch: dict[str, Tensor | list[Tensor]]) -> dict[str, Tensor]:
    """Probabilities (1, Z, X) of one sample under every condition."""
    features = network.encode(batch)
    outputs = {}
    for condition in conditions(network.modalities):
        kept = {n: torch.zeros_like(f) if n == condition else f for n, f in features.items()}
        outputs[condition] = network.fuse(kept)["segmentation"][0].sigmoid()
    return outputs


def _count(
    score: Score, box: Box3D, name: str, probability: np.ndarray, data: NuScenesSamples
) -> None:
    mask = np.zeros(probability.shape, dtype=np.uint8)
    cv2.fillPoly(mask, [footprint(box, data.grid)], (1,))
    if box.visibility > 1 and mask.any():
        score.detected[name].append(bool(probability[mask > 0].mean() > 0.5))
