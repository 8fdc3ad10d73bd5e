"""Voxelisation of radar and LiDAR points."""

from __future__ import annotations

import torch
from torch import Tensor

from lmd_cli.geometry import Grid

#: Points nearer than this to the reference camera are dropped, in voxel units.
MIN_DISTANCE = 0.1


def voxel_indices(xyz: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Which voxel each point falls into, and whether the point counts at all.

    Kept as published: a point counts if it lies within the outer voxels' edges, is not exactly at
    voxel coordinate z = 0, is at least 0.1 voxel units from the reference camera, and does not
    fall into voxel (0, 0, 0). Coordinates are rounded half to even.

    Args:
        xyz: (n, 3) points in the reference camera's axes, metres.
        grid: the voxels.

    Returns:
        (n,) flat indices in the order (y, z, x), and (n,) which of them count.
    """
    with torch.autocast(xyz.device.type, enabled=False):  # whatever the encoder's precision
        mem, reference = grid.to_mem(xyz), grid.to_mem(torch.zeros_like(xyz[:1]))
    z_size, y_size, x_size = grid.size
    sizes = torch.tensor([x_size, y_size, z_size]).to(mem)
    inside = ((mem > -0.5) & (mem < sizes - 0.5)).all(dim=1) & (mem[:, 2] != 0)
    far = (mem - reference).norm(dim=1) >= MIN_DISTANCE
    rounded = mem.nan_to_num().round().clamp(min=0).minimum(sizes - 1).long()
    x, y, z = rounded.unbind(dim=1)
    counts = inside & far & ((x + y + z) > 0)
    return (y * z_size + z) * x_size + x, counts


def occupancy(xyz: Tensor, grid: Grid) -> Tensor:
    """1 in voxels that hold a point, else 0: ``(Y, Z, X)`` from points (n, 3)."""
    indices, counts = voxel_indices(xyz, grid)
    z, y, x = grid.size
    voxels = xyz.new_zeros(y * z * x)
    voxels[indices[counts]] = 1.0
    return voxels.reshape(y, z, x)


def last_of_each(indices: Tensor, size: int) -> Tensor:
    """Positions (m,) of the last occurrence of every value in ``indices`` (n,)."""
    positions = torch.arange(len(indices), device=indices.device)
    last = positions.new_full((size,), -1)
    last.scatter_reduce_(0, indices, positions, reduce="amax")
    return last[last >= 0]


def point_features(xyz: Tensor, features: Tensor, grid: Grid) -> Tensor:
    """Features of the point in each voxel, zero where there is none.

    Radar points that fall into one voxel overwrite each other in a random order upstream; ours
    keeps the last in the order given.

    Args:
        xyz: (n, 3) points in the reference camera's axes, metres.
        features: (n, F).
        grid: the voxels.

    Returns:
        (F, Y, Z, X).
    """
    indices, counts = voxel_indices(xyz, grid)
    indices, features = indices[counts], features[counts]
    z, y, x = grid.size
    winners = last_of_each(indices, y * z * x)
    voxels = features.new_zeros(features.shape[1], y * z * x)
    voxels[:, indices[winners]] = features[winners].T
    return voxels.reshape(-1, y, z, x)
