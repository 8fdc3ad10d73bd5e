"""Rigid transforms between a sensor, the vehicle (ego) and the world (global)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pyquaternion import Quaternion

Matrix = NDArray[np.floating]


def rigid(translation: Sequence[float], rotation: Sequence[float]) -> NDArray[np.float64]:
    """Transform (4, 4) float64 from a nuScenes translation (m) and quaternion (w, x, y, z)."""
    matrix: NDArray[np.float64] = Quaternion(rotation).transformation_matrix
    matrix[:3, 3] = translation
    return matrix


def invert_rigid(matrix: Matrix) -> Matrix:
    """Inverse of a rigid transform (4, 4), in the precision it comes in."""
    inverse = np.eye(4, dtype=matrix.dtype)
    inverse[:3, :3] = matrix[:3, :3].T
    inverse[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return inverse


def move(matrix: Matrix, xyz: Matrix) -> Matrix:
    """Points (3, n) through a transform (4, 4)."""
    return matrix[:3, :3] @ xyz + matrix[:3, 3:]
