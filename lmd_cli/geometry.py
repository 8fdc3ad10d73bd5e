"""The bird's-eye-view voxel grid that networks and data agree on."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

#: Extent of SimpleBEV's grid in the reference camera's axes, metres: x, y, z (min, max) each.
PUBLISHED_BOUNDS = (-50.0, 50.0, -5.0, 5.0, -50.0, 50.0)
#: Offset that SimpleBEV adds to the bounds (x, y, z), metres.
PUBLISHED_CENTROID = (0.0, 1.0, 0.0)


@functools.lru_cache(maxsize=8)
def _mem_T_ref(grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Kept, because a GPU waits for every copy."""
    with torch.inference_mode(False):
        return grid.mem_T_ref().to(device, dtype)


@dataclass(frozen=True)
class Grid:
    """A voxel grid in the reference camera's axes (x right, y down, z forward).

    Attributes:
        size: number of voxels ``(Z, Y, X)``.
        bounds: ``(xmin, xmax, ymin, ymax, zmin, zmax)`` in metres, before the centroid is added.
        centroid: ``(x, y, z)`` in metres, added to the bounds.
    """

    size: tuple[int, int, int]
    bounds: tuple[float, float, float, float, float, float] = PUBLISHED_BOUNDS
    centroid: tuple[float, float, float] = PUBLISHED_CENTROID

    @property
    def lower(self) -> tuple[float, float, float]:
        """Lower edge of the grid ``(x, y, z)``, metres."""
        return tuple(self.bounds[2 * i] + self.centroid[i] for i in range(3))  # type: ignore[return-value]

    @property
    def voxel(self) -> tuple[float, float, float]:
        """Edge lengths of one voxel ``(x, y, z)``, metres."""
        z, y, x = self.size
        return tuple(  # type: ignore[return-value]
            (self.bounds[2 * i + 1] - self.bounds[2 * i]) / n for i, n in enumerate((x, y, z))
        )

    def mem_T_ref(self) -> Tensor:
        """Transform from metres to voxel units, (4, 4) float32; voxel centres are integers."""
        scale, shift = torch.eye(4), torch.eye(4)
        for i in range(3):
            scale[i, i] = 1.0 / self.voxel[i]
            shift[i, 3] = -self.lower[i] - self.voxel[i] / 2.0
        return scale @ shift

    def ref_T_mem(self) -> Tensor:
        """Inverse of :meth:`mem_T_ref`, (4, 4) float32."""
        return self.mem_T_ref().inverse()

    def to_mem(self, xyz: Tensor) -> Tensor:
        """Points ``(..., 3)`` in metres to continuous voxel coordinates ``(..., 3)``."""
        transform = _mem_T_ref(self, xyz.device, xyz.dtype)
        return xyz @ transform[:3, :3].T + transform[:3, 3]
