"""The training loop of the demo networks: seeded, resumable after every epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from demo_frames import Calibration, Frame, Lift, make_batch
from torch import Tensor

from lmd_cli.networks import SimpleBEV

OUTPUTS = ("segmentation", "instance_center", "instance_offset")
#: Factor on the fusion layer's first weights. Raw radar fields are tens, camera features tenths:
#: without it, InstanceNorm leaves the camera almost no share of the fused channels at the start.
#: LiDAR voxels are 0 or 1, and few of them lie on vehicles.
FUSION_SCALES = {"camera": 1.0, "radar": 0.1, "lidar": 4.0}
Log = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs, batch: passes over the frames, frames per step.
        peak_rate: highest learning rate of the one-cycle schedule (AdamW).
        weight_decay: of AdamW.
        pos_weight: weight of vehicle cells in the cross-entropy, as upstream.
        sensor_dropout: probability that a step zeroes one sensor's features, each equally often.
        seed: seeds weights, order, mirroring and dropout.
    """

    epochs: int = 12
    batch: int = 2
    peak_rate: float = 3e-3
    weight_decay: float = 1e-4
    pos_weight: float = 2.13
    sensor_dropout: float = 0.0
    seed: int = 0


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


class Trainer:
    """Trains ``network`` on ``frames``; state is kept in ``checkpoint`` after every epoch.

    What is random in an epoch is drawn from a generator seeded by (seed, epoch), so that a run
    that was interrupted ends with the same weights as one that was not.
    """

    def __init__(
        self,
        network: SimpleBEV,
        frames: Sequence[Frame],
        calibration: Calibration,
        recipe: Recipe,
        checkpoint: Path,
        log: Log = print,
    ):
        self.network, self.frames, self.recipe = network, frames, recipe
        self.checkpoint, self.log = checkpoint, log
        size = calibration.image_size[0] // 8, calibration.image_size[1] // 8
        self.lifts = [Lift(c, network.grid, size) for c in (calibration, calibration.mirrored())]
        initialise(network, recipe.seed)
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=recipe.peak_rate, weight_decay=recipe.weight_decay
        )
        self.steps = math.ceil(len(frames) / recipe.batch)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, recipe.peak_rate, recipe.epochs * self.steps + 1, pct_start=0.15
        )
        self.epoch, self.seconds = 0, 0.0

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one.

        Raises:
            ValueError: it was written by a run with another recipe or number of frames.
        """
        if not self.checkpoint.is_file():
            return
        state = torch.load(self.checkpoint, weights_only=True)
        if state["run"] != self._run():
            raise ValueError(f"{self.checkpoint} is of another run: {state['run']}")
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]

    def train(
        self, until: int | None = None, after_epoch: Callable[[], None] | None = None
    ) -> None:
        """Train up to epoch ``until`` (the recipe's last if None)."""
        last = self.recipe.epochs if until is None else until
        while self.epoch < last:
            start = time.perf_counter()
            loss = self._run_epoch()
            self.epoch += 1
            self.seconds += time.perf_counter() - start
            self._save()
            self.log(f"epoch {self.epoch}: loss {loss:.4f}, {self.seconds:.0f} s of training")
            if after_epoch is not None:
                after_epoch()

    def _run(self) -> dict[str, Any]:
        return {**asdict(self.recipe), "frames": len(self.frames)}

    def _run_epoch(self) -> float:
        generator = torch.Generator().manual_seed(self.recipe.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.frames), generator=generator).tolist()
        self.network.train()
        total = 0.0
        for step in range(self.steps):
            mirror, drop = torch.rand(2, generator=generator).tolist()
            chosen = order[step * self.recipe.batch : (step + 1) * self.recipe.batch]
            batch = make_batch([self.frames[i] for i in chosen], mirror < 0.5)
            total += self._step(batch, self.lifts[int(mirror < 0.5)], drop)
        return total / self.steps

    def _step(self, batch: dict[str, Any], lift: Lift, drop: float) -> float:
        features = self._encode(batch, lift)
        if drop < self.recipe.sensor_dropout:
            lost = list(features)[int(drop / self.recipe.sensor_dropout * len(features))]
            features[lost] = torch.zeros_like(features[lost])
        outputs = self.network.fuse(features, OUTPUTS)
        loss = loss_of(self.network, outputs, batch, self.recipe.pos_weight)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.schedule.step()
        return loss.item()

    def _encode(self, batch: dict[str, Any], lift: Lift) -> dict[str, Tensor]:
        features = {"camera": lift(self.network.image_features(batch["images"]))}
        if "radar" in self.network.modalities:
            features["radar"] = self.network.encode_radar(batch)
        if "lidar" in self.network.modalities:
            features["lidar"] = batch["lidar"]
        return features

    def _save(self) -> None:
        state = {
            "run": self._run(),
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epoch": self.epoch,
            "seconds": self.seconds,
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        draft = self.checkpoint.with_suffix(".draft")
        torch.save(state, draft)
        draft.replace(self.checkpoint)
