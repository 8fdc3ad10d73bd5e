"""Inputs that CRN's preprocessing golden was computed from, by formula.

See ``tests/goldens/crn/README.md``.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.nuscenes.database import SensorFrame

MOUNTING = ([1.700791, 0.015946, 1.510958], [0.499802, -0.503032, 0.499780, -0.497371])
#: The vehicle's pose at the key frame and at an earlier one: translation (m), quaternion.
POSES = (
    ([411.42, 1180.89, 0.5], [0.572063, -0.001637, 0.011712, -0.820125]),
    ([413.91, 1173.76, 0.48], [0.580110, -0.002100, 0.010900, -0.814460]),
)


def rng(name: str) -> np.random.Generator:
    """The generator that belongs to a name."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def radar_rows(case: str) -> NDArray[np.float32]:
    """What one camera of 900 x 1600 pixels sees, (n, 7): u, v, depth, rcs, vx, vy, sweep.

    In the case ``empty`` every point is above the part of the image that the network takes.
    """
    count, height = {"normal": (400, 898), "empty": (60, 300)}[case]
    generator = rng(f"pre/radar/{case}")
    uniform = generator.random((count, 4), dtype=np.float32)
    normal = generator.standard_normal((count, 3), dtype=np.float32)
    sweep = generator.integers(0, 8, count)
    scale = np.array([1598, height, 99], np.float32)
    position = uniform[:, :3] * scale + np.array([1, 1, 0.1], np.float32)
    features = normal * np.array([8, 3, 2], np.float32) + np.array([8, 0, 0], np.float32)
    return np.concatenate([position, features, sweep[:, None]], axis=1).astype(np.float32)


def image() -> NDArray[np.uint8]:
    """Blocks, a ramp in red, and noise, (900, 1600, 3)."""
    generator = rng("pre/image")
    blocks = generator.integers(0, 160, (45, 80, 3)).repeat(20, axis=0).repeat(20, axis=1)
    noise = generator.integers(0, 16, (900, 1600, 3))
    ramp = np.zeros((1, 1600, 3), dtype=np.int64)
    ramp[0, :, 0] = np.arange(1600) // 20
    return (blocks + ramp + noise).astype(np.uint8)


def camera(
    pose: tuple[Sequence[float], Sequence[float]] = POSES[0], size: tuple[int, int] = (900, 1600)
) -> SensorFrame:
    """The camera's record with the vehicle at ``pose``, its images of ``size`` (H, W)."""
    intrinsic = [[1266.4, 0.0, 816.3], [0.0, 1266.4, 491.5], [0.0, 0.0, 1.0]]
    return SensorFrame("image.png", 0, *pose, *MOUNTING, intrinsic, size[1], size[0])
