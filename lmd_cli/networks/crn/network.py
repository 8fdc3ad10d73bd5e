"""CRN, split where its sensors first meet.

Source: Kim et al., "CRN: Camera Radar Net for Accurate, Robust, Efficient 3D Perception", 2023,
detection networks. Parameters are named, shaped and ordered as in the published checkpoints; what
looks odd in the published computation is kept, because the weights were trained with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lmd_cli.config.sizes import CRNSizes
from lmd_cli.errors import ConfigError
from lmd_cli.networks.crn.camera import ImageBranch
from lmd_cli.networks.crn.decoding import decode
from lmd_cli.networks.crn.fuser import Fuser
from lmd_cli.networks.crn.geometry import locate
from lmd_cli.networks.crn.head import BOX_VALUES, BRANCHES, HEATMAP, DetectionHead
from lmd_cli.networks.crn.radar import RadarBranch
from lmd_cli.networks.crn.view import lift_by_depth, lift_by_radar, pool
from lmd_cli.networks.detections import Detections, Place

Batch = Mapping[str, Any]
Features = Mapping[str, Any]
Boundary = Literal["product", "fuser"]

#: Where the sensors' features end: before the product of occupancy and image features, or as the
#: two halves of the bird's-eye view, the image half counting as camera.
BOUNDARIES = ("product", "fuser")
MATRICES = ("sensor2ego_mats", "intrin_mats", "ida_mats", "bda_mat")


class CRN(nn.Module):
    """``forward(batch) = fuse(encode(batch), **constants(batch))``.

    A batch holds float tensors: ``imgs`` (B, S, V, 3, H, W), ``sensor2ego_mats``, ``intrin_mats``
    and ``ida_mats`` (B, S, V, 4, 4), ``bda_mat`` (B, 4, 4), and ``pts_pv`` (B, S, V, P, 5); S
    frames, the current one first, and V views.

    Args:
        sizes: all sizes.
        boundary: where features end and the decomposition begins, one of :data:`BOUNDARIES`.

    Raises:
        ConfigError: a boundary that does not exist.
    """

    modalities: tuple[str, ...] = ("camera", "radar")

    def __init__(self, sizes: CRNSizes | None = None, *, boundary: Boundary = "product"):
        super().__init__()
        if boundary not in BOUNDARIES:
            raise ConfigError(f"CRN has no boundary {boundary!r}: choose {' or '.join(BOUNDARIES)}")
        self.sizes, self.boundary = sizes or CRNSizes(), boundary
        self.backbone_img = ImageBranch(self.sizes)
        self.backbone_pts = RadarBranch(self.sizes)
        self.fuser = Fuser(self.sizes)
        self.head = DetectionHead(self.sizes)

    def forward(self, batch: Batch, outputs: Sequence[str] = ()) -> dict[str, Tensor]:
        """Predict ``outputs`` (the first class's logits if none are named); see :meth:`fuse`."""
        return self.fuse(self.encode(batch), outputs, **self.constants(batch))

    # -- features -------------------------------------------------------------------------

    def encode(self, batch: Batch) -> dict[str, Any]:
        """Features of each sensor.

        Returns:
            with the boundary ``product``: ``camera`` {``context`` (B, S, V, C, h, w), ``depth``
            (B, S, V, D, h, w) probabilities} and ``radar`` {``context`` (B, S, V, C, D, w),
            ``occupancy`` (B, S, V, 1, D, w)}; with ``fuser`` the halves of the bird's-eye view,
            (B, S, ny * nx, C) each.
        """
        features = {"camera": self.encode_camera(batch), "radar": self.encode_radar(batch)}
        if self.boundary == "product":
            return features
        image, radar = self.view_transform(features, **self.geometry(batch))
        return {"camera": image, "radar": radar}

    def encode_from(self, batch: Batch, modality: str) -> dict[str, Any]:
        """The features that depend on one sensor's data: its own, or with ``fuser`` both."""
        if self.boundary == "fuser":
            return self.encode(batch)
        encoder = self.encode_camera if modality == "camera" else self.encode_radar
        return {modality: encoder(batch)}

    def encode_camera(self, batch: Batch) -> dict[str, Tensor]:
        """Context and depth probabilities of the images."""
        images = batch["imgs"]
        context, depth = self.backbone_img(images.flatten(0, 2))
        views = images.shape[:3]
        return {"context": context.unflatten(0, views), "depth": depth.unflatten(0, views)}

    def encode_radar(self, batch: Batch) -> dict[str, Tensor]:
        """Context and occupancy of the radar points."""
        points = batch["pts_pv"]
        context, occupancy = self.backbone_pts(points.flatten(0, 2))
        views = points.shape[:3]
        return {"context": context.unflatten(0, views), "occupancy": occupancy.unflatten(0, views)}

    def encoders(self) -> list[nn.Module]:
        """The modules that run on one sensor alone."""
        return [self.backbone_img, self.backbone_pts]

    def constants(self, batch: Batch) -> dict[str, Tensor]:
        """What :meth:`fuse` needs besides the features, and that belongs to no sensor."""
        return self.geometry(batch) if self.boundary == "product" else {}

    def geometry(self, batch: Batch) -> dict[str, Tensor]:
        """``cells`` and ``mask`` of :class:`~lmd_cli.networks.crn.geometry.Geometry`."""
        matrices = tuple(batch[name] for name in MATRICES)
        with torch.autocast(batch["imgs"].device.type, enabled=False):
            geometry = locate(self.sizes, self.backbone_img.frustum, matrices)
        return {"cells": geometry.cells, "mask": geometry.mask.to(batch["imgs"].dtype)}

    # -- fusion ---------------------------------------------------------------------------

    def view_transform(
        self, features: Features, cells: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The image half and the radar half of the bird's-eye view, (B, S, ny * nx, C) each."""
        camera, radar = features["camera"], features["radar"]
        frames = camera["context"].shape[:2]
        context, depth, occupancy, returns, mask = (
            x.flatten(0, 2)
            for x in (
                camera["context"],
                camera["depth"],
                radar["occupancy"],
                radar["context"],
                mask,
            )
        )
        lifted = [lift_by_depth(context, depth, mask), lift_by_radar(context, occupancy, mask)]
        image = self.backbone_img.view_aggregation_net(torch.cat(lifted, dim=1))  # (V, C, w, D)
        columns = [image.transpose(2, 3), returns]  # (V, C, D, w) each
        halves = []
        for x in columns:
            x = x.permute(0, 2, 3, 1).reshape(frames[0] * frames[1], -1, x.shape[1])
            pooled = pool(x, cells.reshape(len(x), -1), self.sizes.cells**2)
            halves.append(pooled.unflatten(0, frames))
        return halves[0], halves[1]

    def fuse(
        self, features: Features, outputs: Sequence[str] = (), **constants: Tensor
    ) -> dict[str, Tensor]:
        """Predictions from the sensors' features.

        Args:
            features: from :meth:`encode`.
            outputs: names out of :meth:`output_names`; the first if none are given.
            constants: from :meth:`constants`.

        Returns:
            by name (B, n, ny, nx); rows are y (to the left), columns x (forward).

        Raises:
            ConfigError: an output that the network does not have.
        """
        names = list(outputs) if outputs else self.output_names()[:1]
        requested = [self._branch(name) for name in names]
        if self.boundary == "product":
            image, radar = self.view_transform(features, **constants)
        else:
            image, radar = features["camera"], features["radar"]
        fused = self.fuser(image, radar)
        branches = list(dict.fromkeys((task, branch) for task, branch, _ in requested))
        made = dict(zip(branches, self.head(fused, branches), strict=True))
        predictions = {}
        for name, (task, branch, index) in zip(names, requested, strict=True):
            value = made[task, branch]
            value = value if index is None else value[:, index : index + 1]
            predictions[name] = torch.sigmoid(value) if name.startswith("probability.") else value
        return predictions

    def forward_up(self, values: Tensor) -> Tensor:
        """Maps (..., y to the left, x forward) as (..., forward, right)."""
        return values.transpose(-1, -2).flip(-1)

    def output_names(self) -> list[str]:
        """``heatmap.CLASS`` (logits) and ``probability.CLASS``, and the branches of every task."""
        kinds = ("heatmap", "probability")
        maps = [f"{kind}.{name}" for kind in kinds for name in self.detection_classes]
        return [*maps, *self.detection_outputs]

    @property
    def detection_classes(self) -> tuple[str, ...]:
        """The classes of the task heads, in order."""
        return tuple(name for task in self.sizes.tasks for name in task)

    @property
    def detection_outputs(self) -> list[str]:
        """The outputs that :meth:`decode` reads: every branch of every task."""
        tasks = range(len(self.sizes.tasks))
        return [f"task{k}.{branch}" for k in tasks for branch in (*BRANCHES, HEATMAP)]

    def decode(self, outputs: Mapping[str, Tensor]) -> list[Detections]:
        """Boxes of each sample, see :func:`~lmd_cli.networks.crn.decoding.decode`."""
        return decode(outputs, self.sizes)

    def place_at(self, name: str, x: float, y: float) -> Place | None:
        """Where a class's box centred at (x, y) metres is decided; none outside the map."""
        column, row = (math.floor((at + self.sizes.extent) / self.sizes.voxel) for at in (x, y))
        inside = 0 <= row < self.sizes.cells and 0 <= column < self.sizes.cells
        if name not in self.detection_classes or not inside:
            return None
        task, branch, channel = self._branch(f"heatmap.{name}")
        return Place.cell(f"task{task}.{branch}", channel or 0, row, column)

    def values_at(self, place: Place) -> dict[str, Place]:
        """Where the heads say offset, height, size, heading and velocity of a box."""
        task = place.output.partition(".")[0]
        return {
            name: replace(place, output=f"{task}.{branch}", channel=channel)
            for branch, names in BOX_VALUES.items()
            for channel, name in enumerate(names)
        }

    def require_output(self, output: str) -> None:
        """Refuse an output that is not there.

        Raises:
            ConfigError: names those that are.
        """
        if output not in self.output_names():
            known = ", ".join(self.output_names())
            raise ConfigError(f"CRN has no output {output!r}: choose one of {known}")

    def _branch(self, output: str) -> tuple[int, str, int | None]:
        """Task, branch and (for one class's map) channel of an output."""
        self.require_output(output)
        kind, _, name = output.partition(".")
        if kind.startswith("task"):
            return int(kind.removeprefix("task")), name, None
        task = next(k for k, names in enumerate(self.sizes.tasks) if name in names)
        return task, HEATMAP, self.sizes.tasks[task].index(name)

    # -- weights --------------------------------------------------------------------------

    def explain_mismatch(self, state: Mapping[str, Tensor]) -> str | None:
        """Says that a checkpoint is of another backbone depth or number of key frames."""
        backbone = backbone_of(state)
        if backbone is not None and backbone != self.sizes.backbone:
            return (
                f"these are weights of a CRN with a ResNet-{backbone} image backbone, the config "
                f"says {self.sizes.backbone} (model.backbone)"
            )
        weight = state.get("fuser.reduce_conv.0.weight")
        if weight is None or weight.dim() != 4 or weight.shape[1] % weight.shape[0]:
            return None
        frames = weight.shape[1] // weight.shape[0]
        if frames != self.sizes.key_frames:
            return (
                f"these are weights of a CRN that fuses {frames} key frames, the config says "
                f"{self.sizes.key_frames} (model.key_frames)"
            )
        return None


def backbone_of(state: Mapping[str, Tensor]) -> int | None:
    """Depth of the image backbone that a state dict belongs to, by its blocks."""
    blocks = [n for n in state if re.match(r"backbone_img\.img_backbone\.layer1\.0\.conv\d", n)]
    if not blocks:
        return None
    if not any(".conv3." in name for name in blocks):
        return 18
    deep = any(name.startswith("backbone_img.img_backbone.layer3.6.") for name in state)
    return 101 if deep else 50
