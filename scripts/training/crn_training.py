"""Training of the small CRN: frames in memory, mirrored or not; initial weights; steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmd_cli.data.crn import KeyframeSamples
from lmd_cli.data.crn.images import MEAN, STD
from lmd_cli.networks.crn import CRN, CRNSizes
from lmd_cli.networks.crn.fuser import DeformableAttention
from training.conditions import read_evidence
from training.crn_depth import depth_loss, depth_targets
from training.crn_targets import BRANCHES, BevMap, box_loss, car_targets, focal_loss, mirrored
from training.loop import Loop, Recipe

HEATMAP = "heatmap.car"
OUTPUTS = (HEATMAP, *(f"task0.{name}" for name in BRANCHES))
MATRICES = ("sensor2ego_mats", "intrin_mats", "ida_mats")
_MEAN, _STD = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))


@dataclass(frozen=True)
class CarRecipe(Recipe):
    """How to train a CRN.

    Attributes:
        box_weight: of the boxes' absolute errors, as upstream.
        depth_weight: of the cross-entropy of depth probabilities.
        radar_dropout: probability that a step zeroes the radar's features.
    """

    peak_rate: float = 2e-3
    box_weight: float = 0.25
    depth_weight: float = 0.5
    radar_dropout: float = 0.2


@dataclass(frozen=True)
class KeyFrames:
    """One sample as the training loop needs it, S key frames of six views.

    Attributes:
        images: (S, 6, 3, H, W) uint8.
        tensors: the matrices of :data:`MATRICES` (S, 6, 4, 4) and ``pts_pv`` (S, 6, P, 5).
        targets: for the sample and for its mirror image, see
            :func:`training.crn_targets.car_targets`.
        depth: (6, h, w) of the current frame, see :func:`training.crn_depth.depth_targets`.
    """

    images: Tensor
    tensors: dict[str, Tensor]
    targets: tuple[dict[str, Tensor], dict[str, Tensor]]
    depth: Tensor


def load_key_frames(data: KeyframeSamples, sizes: CRNSizes) -> list[KeyFrames]:
    """All samples of a synthetic root's split, decoded."""
    bev, evidence = BevMap(data.cells, data.extent), read_evidence(data.dataroot)
    frames = []
    for i in range(len(data)):
        tensors = data[i].tensors
        cars = [box for box in data.boxes(i) if box.name == "car"]
        targets = car_targets(cars, bev), car_targets([mirrored(car) for car in cars], bev)
        pixels = (tensors["imgs"] * _STD + _MEAN).round().to(torch.uint8)
        kept = {name: tensors[name] for name in (*MATRICES, "pts_pv")}
        current = {name: tensors[name][0] for name in MATRICES}
        hidden = {box.token for box in data.boxes(i) if not evidence[box.token]["camera"]}
        depth = depth_targets(data.boxes(i), hidden, current, sizes)
        frames.append(KeyFrames(pixels, kept, targets, depth))
    return frames


def make_batch(frames: Sequence[KeyFrames], mirror: bool) -> dict[str, Any]:
    """Collate samples, all of them mirrored or none, with lists of their targets."""
    images = (torch.stack([frame.images for frame in frames]).float() - _MEAN) / _STD
    batch = {n: torch.stack([frame.tensors[n] for frame in frames]) for n in frames[0].tensors}
    if mirror:
        images, batch = images.flip(-1), mirrored_views(batch, images.shape[-1])
    identity = torch.eye(4).expand(len(frames), -1, -1)
    targets = [frame.targets[int(mirror)] for frame in frames]
    listed = {name: [target[name] for target in targets] for name in targets[0]}
    depth = torch.stack([frame.depth for frame in frames])  # (B, 6, h, w)
    depth = depth.flip(-1) if mirror else depth
    return {"imgs": images, "bda_mat": identity, "depth": depth, **batch, **listed}


def mirrored_views(batch: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """Matrices and radar points of images flipped left to right, in a world flipped likewise.

    Pixel u becomes ``width - 1 - u``. The camera keeps its image transform, and its principal
    point moves instead.
    """
    ego = torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0]))
    camera = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    intrinsics, points = batch["intrin_mats"].clone(), batch["pts_pv"].clone()
    scale, shift = batch["ida_mats"][..., 0, 0], batch["ida_mats"][..., 0, 3]
    intrinsics[..., 0, 2] = (width - 1 - 2 * shift) / scale - intrinsics[..., 0, 2]
    real = points[..., 2] == 1  # neither padding nor the row of an empty view
    points[..., 0] = torch.where(real, width - 1 - points[..., 0], points[..., 0])
    moved = ego @ batch["sensor2ego_mats"] @ camera
    return {**batch, "sensor2ego_mats": moved, "intrin_mats": intrinsics, "pts_pv": points}


def initialise(network: CRN, seed: int) -> None:
    """The network's own initialisation, seeded; attention starts as in Deformable DETR.

    Every head looks along a direction of its own, point p at p + 1 cells; all points weigh the
    same.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.load_state_dict(CRN(network.sizes).state_dict())
    heads, points = network.sizes.heads, network.sizes.points
    angles = torch.arange(heads) * (2 * math.pi / heads)
    ways = torch.stack([angles.cos(), angles.sin()], dim=-1)  # (heads, xy)
    ways = ways / ways.abs().amax(dim=-1, keepdim=True)
    steps = torch.arange(1, points + 1).float()
    offsets = ways[:, None, None, :] * steps[None, None, :, None]  # (heads, 1, points, xy)
    for layer in network.fuser.attn_layers:
        assert isinstance(layer, DeformableAttention)
        torch.nn.init.zeros_(layer.sampling_offsets.weight)
        torch.nn.init.zeros_(layer.attention_weights.weight)
        torch.nn.init.zeros_(layer.attention_weights.bias)
        with torch.no_grad():
            layer.sampling_offsets.bias.copy_(offsets.expand(-1, 2, -1, -1).flatten())


class CarTrainer(Loop[CRN, KeyFrames, CarRecipe]):
    """Trains a CRN to find cars; past key frames are encoded without gradient, as upstream."""

    def __init__(
        self,
        network: CRN,
        frames: Sequence[KeyFrames],
        recipe: CarRecipe,
        checkpoint: Path,
        **options: Any,
    ):
        initialise(network, recipe.seed)
        super().__init__(network, frames, recipe, checkpoint, **options)

    def loss(self, chosen: Sequence[KeyFrames], mirror: bool, drop: float) -> Tensor:
        """Focal loss of the heat map, absolute errors of the boxes, cross-entropy of depth."""
        batch = make_batch(chosen, mirror)
        features = encode(self.network, batch)
        current = features["camera"]["depth"][:, 0].flatten(0, 1)  # (B * 6, D, h, w)
        depth = depth_loss(current, batch["depth"].flatten(0, 1))
        if drop < self.recipe.radar_dropout:
            features["radar"] = {n: torch.zeros_like(v) for n, v in features["radar"].items()}
        outputs = self.network.fuse(features, OUTPUTS, **self.network.constants(batch))
        heat, valid = torch.stack(batch["heat"]), torch.stack(batch["valid"])
        boxes = {name: outputs[f"task0.{name}"] for name in BRANCHES}
        loss = focal_loss(outputs[HEATMAP][:, 0], heat, valid)
        loss = loss + self.recipe.box_weight * box_loss(boxes, batch["cells"], batch["boxes"])
        return loss + self.recipe.depth_weight * depth


def encode(network: CRN, batch: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Features as :meth:`CRN.encode` gives them; gradients reach the current key frame only."""
    names = ("imgs", "pts_pv")
    current = network.encode({name: batch[name][:, :1] for name in names})
    with torch.no_grad():
        past = network.encode({name: batch[name][:, 1:] for name in names})
    return {
        modality: {n: torch.cat([value, past[modality][n]], dim=1) for n, value in of.items()}
        for modality, of in current.items()
    }
