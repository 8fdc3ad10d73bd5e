"""How good a demo network is, and how much it owes to each sensor.

IoU: at probability > 0.5 inside ``valid``, intersections and unions summed over the split.
Recall: a vehicle counts as found if the mean probability over the cells of its footprint exceeds
0.5; vehicles of visibility 1, and those without a cell on the grid, are left out.
"Zeroed": a sensor's encoded features are set to zero before the fusion layer.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from lmd_cli.data import Box3D, NuScenesSamples, collate
from lmd_cli.data.nuscenes import MODALITIES
from lmd_cli.data.synthetic import EVIDENCE_FILE
from lmd_cli.data.truth import footprint
from lmd_cli.networks import SimpleBEV

_COUNTS = {2: "both", 3: "all"}


def conditions(modalities: Sequence[str]) -> dict[str, str]:
    """What is zeroed ("" for nothing) -> the name of the condition."""
    everything = f"{_COUNTS[len(modalities)]} sensors"
    return {"": everything, **{name: f"{_title(name)} zeroed" for name in modalities}}


def classes(modalities: Sequence[str]) -> list[str]:
    """Names of the classes of visibility, in the order of the card."""
    several = {2: ["both"], 3: ["several"]}[len(modalities)]
    return several + [f"{_title(name)} only" for name in modalities] + [_beyond(modalities)]


def class_of(seen: dict[str, bool], modalities: Sequence[str]) -> str:
    """The class of a vehicle, by which of the network's sensors can see it."""
    names = [name for name in modalities if seen[name]]
    if not names:
        return _beyond(modalities)
    return f"{_title(names[0])} only" if len(names) == 1 else classes(modalities)[0]


def _beyond(modalities: Sequence[str]) -> str:
    others = [_title(name) for name in MODALITIES if name not in modalities]
    return f"neither ({' or '.join(others)} only)" if others else "none"


def _title(modality: str) -> str:
    return {"lidar": "LiDAR"}.get(modality, modality)


@dataclass
class Score:
    """Sums over a split under one condition."""

    intersection: float = 0.0
    union: float = 0.0
    found: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))

    @property
    def iou(self) -> float:
        """Intersection over union, 0 to 1."""
        return self.intersection / self.union

    def recall(self, name: str) -> float:
        """Share of a class's vehicles that were found."""
        return float(np.mean(self.found[name])) if self.found[name] else float("nan")

    def add(self, probability: Tensor, tensors: dict[str, Tensor]) -> None:
        """Count one map (1, Z, X)."""
        valid, truth = tensors["valid"] > 0, tensors["segmentation"] > 0
        guess = probability > 0.5
        self.intersection += float((guess & truth & valid).sum())
        self.union += float(((guess | truth) & valid).sum())


def evaluate(network: SimpleBEV, data: NuScenesSamples) -> dict[str, Score]:
    """Score ``network`` on a synthetic split under every one of its :func:`conditions`."""
    table = data.dataroot / "v1.0-mini" / EVIDENCE_FILE
    evidence = json.loads(Path(table).read_text())
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
    found = {}
    for condition in conditions(network.modalities):
        kept = {n: torch.zeros_like(f) if n == condition else f for n, f in features.items()}
        found[condition] = network.fuse(kept)["segmentation"][0].sigmoid()
    return found


def _count(
    score: Score, box: Box3D, name: str, probability: np.ndarray, data: NuScenesSamples
) -> None:
    mask = np.zeros(probability.shape, dtype=np.uint8)
    cv2.fillPoly(mask, [footprint(box, data.grid)], (1,))
    if box.visibility > 1 and mask.any():
        score.found[name].append(bool(probability[mask > 0].mean() > 0.5))
