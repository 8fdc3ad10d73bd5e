"""Training of the small SimpleBEVs: initial weights, loss, steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.networks import SimpleBEV
from training.frames import Calibration, Frame, Lift, make_batch
from training.loop import Loop, Recipe

OUTPUTS = ("segmentation", "instance_center", "instance_offset")
#: Factor on the fusion layer's first weights. Raw radar fields are tens, camera features tenths:
#: without it, InstanceNorm leaves the camera almost no share of the fused channels at the start.
#: LiDAR voxels are 0 or 1, and few of them lie on vehicles.
FUSION_SCALES = {"camera": 1.0, "radar": 0.1, "lidar": 4.0}


@dataclass(frozen=True)
class MapRecipe(Recipe):
    """How to train a SimpleBEV.

    Attributes:
        pos_weight: weight of vehicle cells in the cross-entropy, as upstream.
        sensor_dropout: probability that a step zeroes one sensor's features, each equally often.
    """

    pos_weight: float = 2.13
    sensor_dropout: float = 0.0


def initialise(network: SimpleBEV, seed: int) -> None:
    """PyTorch's own initialisation, seeded; the fusion layer's by :data:`FUSION_SCALES`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    channels = network.channels()
    scales = torch.cat([torch.full((n,), FUSION_SCALES[name]) for name, n in channels.items()])
    with torch.no_grad():
        network.get_parameter("bev_compressor.0.weight").mul_(scales[:, None, None])


def loss_of(
    network: SimpleBEV, outputs: dict[str, Tensor], batch: dict[str, Any], pos_weight: float
) -> Tensor:
    """Upstream's loss: cross-entropy, centre and offset, weighted by learnt uncertainties."""
    truth, valid = batch["segmentation"], batch["valid"]
    weight = torch.tensor([pos_weight])
    cross = F.binary_cross_entropy_with_logits(
        outputs["segmentation"], truth, pos_weight=weight, reduction="none"
    )
    entropy = (cross * valid).sum() / valid.sum()
    center = _balanced_square(outputs["instance_center"], batch["center"])
    away = (outputs["instance_offset"] - batch["offset"]).abs().sum(dim=1, keepdim=True)
    on = truth * valid
    offset = (away * on).sum() / on.sum().clamp(min=1)
    weights = (network.ce_weight, network.center_weight, network.offset_weight)
    scaled = 10 * entropy * torch.exp(-weights[0])
    scaled = scaled + 0.5 * center * torch.exp(-weights[1])
    scaled = scaled + 0.5 * offset * torch.exp(-weights[2])
    return scaled + 0.5 * (weights[0] + weights[1] + weights[2])


def _balanced_square(prediction: Tensor, truth: Tensor) -> Tensor:
    error, high = (prediction - truth) ** 2, (truth > 0.5).float()
    means = [(error * mask).sum() / mask.sum().clamp(min=1) for mask in (high, 1 - high)]
    return 0.5 * (means[0] + means[1])


class Trainer(Loop[SimpleBEV, Frame, MapRecipe]):
    """Trains a SimpleBEV; the cameras' ``calibration`` is the same in all ``frames``."""

    def __init__(
        self,
        network: SimpleBEV,
        frames: Sequence[Frame],
        calibration: Calibration,
        recipe: MapRecipe,
        checkpoint: Path,
        **options: Any,
    ):
        size = calibration.image_size[0] // 8, calibration.image_size[1] // 8
        self.lifts = [Lift(c, network.grid, size) for c in (calibration, calibration.mirrored())]
        initialise(network, recipe.seed)
        super().__init__(network, frames, recipe, checkpoint, **options)

    def loss(self, chosen: Sequence[Frame], mirror: bool, drop: float) -> Tensor:
        """:func:`loss_of` the network's predictions."""
        batch = make_batch(chosen, mirror)
        features = self._encode(batch, self.lifts[int(mirror)])
        if drop < self.recipe.sensor_dropout:
            lost = list(features)[int(drop / self.recipe.sensor_dropout * len(features))]
            features[lost] = torch.zeros_like(features[lost])
        outputs = self.network.fuse(features, OUTPUTS)
        return loss_of(self.network, outputs, batch, self.recipe.pos_weight)

    def _encode(self, batch: dict[str, Any], lift: Lift) -> dict[str, Tensor]:
        features = {"camera": lift(self.network.image_features(batch["images"]))}
        if "radar" in self.network.modalities:
            features["radar"] = self.network.encode_radar(batch)
        if "lidar" in self.network.modalities:
            features["lidar"] = batch["lidar"]
        return features
