"""Where a map lies on the ground, whatever network it comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lmd_cli.assembly.build import ground_plane
from lmd_cli.config.schema import CRNConfig, CustomModelConfig, RunConfig
from lmd_cli.errors import ContractError
from lmd_cli.geometry import Grid

Array = NDArray[np.floating]
#: nuScenes' car in the front camera's axes: half a width, rear and front end, metres.
CAR = (0.87, -2.4, 1.7)
#: From the middle of its rear axle, the origin of CRN's maps, to that camera, metres.
AXLE_TO_CAMERA = 1.7


@dataclass(frozen=True)
class Plane:
    """Extent of a bird's-eye-view map whose rows run forward and whose columns run to the right.

    Row 0 is the rearmost, column 0 the leftmost. A network with other axes turns its maps first.

    Attributes:
        rows, columns: cells forward and to the right.
        left, right, back, front: edges in metres, from the origin that the boxes are measured from.
        camera: how far ahead of that origin the front camera is, metres.
    """

    rows: int
    columns: int
    left: float
    right: float
    back: float
    front: float
    camera: float = 0.0

    @classmethod
    def of_grid(cls, grid: Grid) -> Plane:
        """The ground plane of SimpleBEV's voxels, whose maps are (Z, X)."""
        depth, _, width = grid.size
        x, _, z = grid.lower
        across, _, along = grid.voxel
        return cls(depth, width, x, x + width * across, z, z + depth * along)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """(left, right, back, front), as matplotlib takes it with ``origin="lower"``."""
        return self.left, self.right, self.back, self.front

    @property
    def ego(self) -> tuple[float, float, float]:
        """Half the width, rear and front end of the vehicle that carries the sensors, metres."""
        half, rear, front = CAR
        return half, rear + self.camera, front + self.camera

    @property
    def cell(self) -> tuple[float, float]:
        """Width and depth of a cell, metres."""
        return (self.right - self.left) / self.columns, (self.front - self.back) / self.rows

    def to_cells(self, points: Array) -> Array:
        """Points (..., 2), metres (right, forward), to (column, row); cell centres are integers."""
        corner = np.array([self.left, self.back])
        return (np.asarray(points) - corner) / np.array(self.cell) - 0.5

    def mask(self, outline: Array) -> NDArray[np.bool_]:
        """Cells (rows, columns) inside a convex outline (n, 2), metres (right, forward).

        Corners are truncated to whole cells as the ground truth's are.
        """
        filled = np.zeros((self.rows, self.columns), dtype=np.uint8)
        cv2.fillPoly(filled, [self.to_cells(outline).astype(np.int32)], (1,))
        return filled.astype(bool)


def plane_of(config: RunConfig) -> Plane:
    """Where the maps of a config's output lie.

    Raises:
        ContractError: the network is not one of ours, and its outputs need not lie anywhere.
    """
    if isinstance(config.model, CustomModelConfig):
        raise ContractError(f"outputs of {config.model.target} are not known to lie on the ground")
    plane = Plane.of_grid(ground_plane(config.model))
    return replace(plane, camera=AXLE_TO_CAMERA if isinstance(config.model, CRNConfig) else 0.0)
