"""Where each column of an image lies in the bird's-eye view: calibration only, no features.

The published code computes this in mixed precision and rounds positions to half, and the weights
were trained with that, so the same is done here, whatever the network's own precision is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmd_cli.config.sizes import CRNSizes

#: Frustum points outside this height above the ego origin (metres) are masked.
Z_BOUND = (-5.0, 3.0)


@dataclass(frozen=True)
class Geometry:
    """The operating point's geometry.

    Attributes:
        cells: (B, S, V, D, w) index ``y * cells + x`` of each column's cell; ``cells**2`` where it
            lies outside the map.
        mask: (B, S, V, D, h, w), 1 where a frustum point is within :data:`Z_BOUND`.
    """

    cells: Tensor
    mask: Tensor


def frustum(sizes: CRNSizes) -> Tensor:
    """Points (u, v, depth, 1) of every image feature and depth bin, (D, h, w, 4) float32.

    Pixels reach from corner to corner of the image, not from centre to centre of a feature.
    """
    height, width = sizes.image_size
    h, w = sizes.feature_size
    first, _, step = sizes.depth
    depth = first + step * torch.arange(sizes.depth_bins, dtype=torch.float32)
    u = torch.linspace(0, width - 1, w)
    v = torch.linspace(0, height - 1, h)
    d, v, u = torch.meshgrid(depth, v, u, indexing="ij")  # (D, h, w) each
    return torch.stack([u, v, d, torch.ones_like(d)], dim=-1)


def voxel_buffers(sizes: CRNSizes) -> dict[str, Tensor]:
    """The published state's constants of the map: size and first centre (m), and counts."""
    size = (sizes.voxel, sizes.voxel, Z_BOUND[1] - Z_BOUND[0])
    lower = (-sizes.extent, -sizes.extent, Z_BOUND[0])
    first = [low + step / 2 for low, step in zip(lower, size, strict=True)]
    return {
        "voxel_size": torch.tensor(size),
        "voxel_coord": torch.tensor(first),
        "voxel_num": torch.tensor([sizes.cells, sizes.cells, 1]),
    }


def positions(
    points: Tensor, sensor2ego: Tensor, intrin: Tensor, ida: Tensor, bda: Tensor
) -> Tensor:
    """Ego coordinates (x forward, y left, z up; metres) of frustum points, half precision.

    Args:
        points: (D, h, w, 4) from :func:`frustum`.
        sensor2ego, intrin, ida: (B, S, V, 4, 4): camera to the current frame's ego, intrinsics,
            image transform (original pixel to network pixel).
        bda: (B, 4, 4) transform of the map, the identity at inference.

    Returns:
        (B, S, V, D, h, w, 3).
    """
    pixels = _apply(ida.float().inverse(), points.float())  # (B, S, V, D, h, w, 4)
    pixels = pixels.double()
    u, v, depth, one = pixels.unbind(-1)
    rays = torch.stack([u * depth, v * depth, depth, one], dim=-1)
    ego_T_pixel = (sensor2ego.float() @ intrin.float().inverse()).double()
    ego = _apply(ego_T_pixel, rays).half()
    return _apply(bda.half()[:, None, None], ego)[..., :3]


def _apply(matrix: Tensor, points: Tensor) -> Tensor:
    """(B, S, V, 4, 4) times (..., D, h, w, 4), in the precision they come in."""
    return (matrix[..., None, None, None, :, :] @ points.unsqueeze(-1)).squeeze(-1)


def locate(sizes: CRNSizes, points: Tensor, matrices: tuple[Tensor, ...]) -> Geometry:
    """Cells and height mask of every column.

    Args:
        sizes: extent and cells of the map.
        points: (D, h, w, 4) from :func:`frustum`.
        matrices: the other arguments of :func:`positions`.
    """
    xyz = positions(points, *matrices)
    low, high = Z_BOUND
    mask = (xyz[..., 2] > low) & (xyz[..., 2] < high)
    # A column lies where its top row does; truncation (not floor) takes in one cell below zero.
    xy = xyz[..., 0, :, :2].float()  # (B, S, V, D, w, 2)
    buffers = voxel_buffers(sizes)
    size, first = (buffers[n][:2].to(xy) for n in ("voxel_size", "voxel_coord"))
    cell = ((xy - (first - size / 2)) / size).to(torch.int64)
    inside = ((cell >= 0) & (cell < sizes.cells)).all(-1)
    index = cell[..., 1] * sizes.cells + cell[..., 0]
    return Geometry(torch.where(inside, index, sizes.cells**2), mask)
