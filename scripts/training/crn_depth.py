"""Depth of what the images show, from the synthetic world's truth: helps the small CRN to start.

Without it, the camera learns its depth probabilities from the heat map alone, long after the radar
has explained most cars.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from lmd_cli.config.sizes import STRIDE
from lmd_cli.data.crn import EgoBox
from lmd_cli.networks.crn import CRNSizes

#: A pixel without a target: sky, out of range, or a vehicle that the camera cannot see.
UNKNOWN = -1
#: Places of rays within an image feature's pixels, along either axis.
_WITHIN = torch.tensor([1.5, 5.5, 9.5, 13.5])


def depth_targets(
    boxes: Sequence[EgoBox],
    hidden: Collection[str],
    matrices: Mapping[str, Tensor],
    sizes: CRNSizes,
) -> Tensor:
    """Depth bin of the nearest vehicle, or else of the ground, in each image feature.

    Args:
        boxes: all vehicles of the sample.
        hidden: tokens of those that the camera cannot see.
        matrices: ``sensor2ego_mats``, ``intrin_mats`` and ``ida_mats`` (V, 4, 4) of one frame.
        sizes: image size and depth bins.

    Returns:
        (V, h, w) int64, :data:`UNKNOWN` where there is none.
    """
    origin, direction = rays(matrices, sizes)  # (V, 1, 1, 1, 3), (V, h, w, n, 3)
    down = direction[..., 2]
    ground = torch.where(down < 0, -origin[..., 2] / down.clamp(max=-1e-6), math.inf).mean(-1)
    nearest = torch.full_like(ground, math.inf)  # (V, h, w)
    known = torch.ones_like(ground, dtype=torch.bool)
    for box in boxes:
        depth = _hit(box, origin, direction).amin(-1)
        closer = depth < nearest
        nearest = torch.where(closer, depth, nearest)
        known = torch.where(closer, torch.tensor(box.token not in hidden), known)
    nearest = torch.where(nearest.isfinite(), nearest, ground)
    first, last, step = sizes.depth
    known &= (nearest >= first) & (nearest < last)
    bins = ((nearest.clamp(first, last) - first) / step).long()
    return torch.where(known, bins, UNKNOWN)


def rays(matrices: Mapping[str, Tensor], sizes: CRNSizes) -> tuple[Tensor, Tensor]:
    """Rays through the pixels of each image feature: origin + depth * direction, ego frame.

    Returns:
        origin (V, 1, 1, 1, 3), direction (V, h, w, n, 3).
    """
    h, w = sizes.feature_size
    v, u = torch.meshgrid(torch.arange(h) * STRIDE, torch.arange(w) * STRIDE, indexing="ij")
    across, along = torch.meshgrid(_WITHIN, _WITHIN, indexing="ij")
    v, u = v[..., None] + across.flatten(), u[..., None] + along.flatten()  # (h, w, n)
    pixels = torch.stack([u, v, torch.zeros_like(u), torch.ones_like(u)], dim=-1)
    unscaled = pixels @ matrices["ida_mats"].inverse().mT[:, None, None]  # (V, h, w, n, 4)
    image = torch.cat([unscaled[..., :2], torch.ones_like(unscaled[..., :1])], dim=-1)
    pose = matrices["sensor2ego_mats"]
    ego_T_image = pose[:, :3, :3] @ matrices["intrin_mats"][:, :3, :3].inverse()
    return pose[:, None, None, None, :3, 3], image @ ego_T_image.mT[:, None, None]


def _hit(box: EgoBox, origin: Tensor, direction: Tensor) -> Tensor:
    """Depth (V, h, w, n) at which rays enter a box; infinite for those that miss it."""
    c, s = math.cos(box.yaw), math.sin(box.yaw)
    turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])  # ego to box, from the right
    start = (origin - torch.tensor(box.center)) @ turn
    way = direction @ turn
    way = torch.where(way.abs() < 1e-9, 1e-9, way)
    half = torch.tensor(box.size) / 2
    one, other = (-half - start) / way, (half - start) / way
    enter, leave = torch.minimum(one, other).amax(-1), torch.maximum(one, other).amin(-1)
    return torch.where((leave > enter) & (enter > 0), enter, math.inf)


def depth_loss(depth: Tensor, bins: Tensor) -> Tensor:
    """Cross-entropy of depth probabilities (N, D, h, w), mean over the known ones of (N, h, w)."""
    known = bins != UNKNOWN
    right = depth.gather(1, bins.clamp(min=0)[:, None])[:, 0]
    return -(right.clamp(min=1e-6).log() * known).sum() / known.sum().clamp(min=1)
