"""Annotated boxes in a network's axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Box3D:
    """An annotated box, in the reference camera's axes (x right, y down, z forward).

    Attributes:
        token: the annotation's token.
        category: e.g. ``vehicle.car``.
        visibility: nuScenes level, 1 (0 to 40 % seen) to 4 (80 to 100 %); 0 where unknown.
        corners: (8, 3) float32, metres; ordered by front and back, within that left and right,
            within that top and bottom.
        center: (3,) float32, metres.
        size: length, width, height, metres.
        yaw: heading on the ground plane, radians, from x (right) towards z (forward).
        num_lidar_pts: LiDAR points inside the box, as annotated.
        num_radar_pts: radar points inside the box, as annotated.
        speed: on the ground, m/s; NaN where it is not known.
    """

    token: str
    category: str
    visibility: int
    corners: NDArray[np.float32]
    center: NDArray[np.float32]
    size: tuple[float, float, float]
    yaw: float
    num_lidar_pts: int
    num_radar_pts: int
    speed: float = math.nan
