"""Deterministic weights and inputs that the golden arrays were computed with.

Everything is seeded by the crc32 of a name, so that nothing has to be stored; see
``tests/goldens/simplebev/README.md``.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lmd_cli.geometry import Grid

GOLDENS = Path(__file__).parents[1] / "goldens"

YAWS = (0.0, 55.0, -55.0, 110.0, 180.0, -110.0)  # degrees, counter-clockwise from forward
POSITIONS = (
    (1.70, 0.016, 1.51),
    (1.525, 0.495, 1.51),
    (1.55, -0.493, 1.496),
    (1.035, 0.485, 1.591),
    (0.028, 0.003, 1.57),
    (1.015, -0.481, 1.562),
)  # metres, in the ego frame
BACK = 4
NATIVE_WIDTH, NATIVE_HEIGHT = 1600, 900
POINTS = {"radar": 1500, "lidar": 20000}


@dataclass(frozen=True)
class Size:
    """An image size ``(H, W)`` with the grid that goes with it."""

    image: tuple[int, int]
    grid: Grid


SMALL = Size((64, 112), Grid((40, 8, 40)))
FULL = Size((224, 400), Grid((200, 8, 200)))


def rng(name: str) -> np.random.Generator:
    """The generator that belongs to a name."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def reference_value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Value of the ``state_dict`` entry ``name``."""
    n = rng(name).standard_normal(shape, dtype=np.float32)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    if len(shape) >= 2:
        return n * np.float32(np.sqrt(1 / np.prod(shape[1:])))
    if name.endswith("running_var"):
        return 1 + np.float32(0.1) * np.abs(n)
    if len(shape) == 1 and name.endswith(".weight"):
        return 1 + np.float32(0.1) * n
    return np.float32(0.1) * n


def reference_state(module: nn.Module) -> dict[str, Tensor]:
    """The deterministic weights in the layout of ``module.state_dict()``."""
    return {
        name: torch.as_tensor(reference_value(name, tuple(value.shape))).to(value.dtype)
        for name, value in module.state_dict().items()
    }


def fill_reference(module: nn.Module) -> nn.Module:
    """Give ``module`` the deterministic weights, in evaluation mode; returns it."""
    module.load_state_dict(reference_state(module), strict=True)
    return module.eval()


def reference_images(size: tuple[int, int], suffix: str = "") -> Tensor:
    """Images (1, 6, 3, H, W) in [-0.5, 0.5]."""
    height, width = size
    pixels = rng(f"images/{height}x{width}{suffix}").integers(
        0, 256, (1, 6, 3, height, width), dtype=np.uint8
    )
    return torch.from_numpy(pixels.astype(np.float32) / 255 - np.float32(0.5))


def ego_T_cam(yaw: float, position: tuple[float, float, float]) -> np.ndarray:
    """Pose (4, 4) of a level camera whose axes are right, down, forward."""
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    forward, right, down = (c, s, 0.0), (s, -c, 0.0), (0.0, 0.0, -1.0)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, down, forward], axis=1)
    pose[:3, 3] = position
    return pose


def reference_intrinsics(size: tuple[int, int]) -> Tensor:
    """``pix_T_cams`` (1, 6, 4, 4) for images of ``size``."""
    sy, sx = size[0] / NATIVE_HEIGHT, size[1] / NATIVE_WIDTH
    matrices = np.tile(np.eye(4), (6, 1, 1))
    for i, matrix in enumerate(matrices):
        focal = 809.2 if i == BACK else 1266.4
        matrix[0, 0], matrix[1, 1] = focal * sx, focal * sy
        matrix[0, 2], matrix[1, 2] = 816.3 * sx, 491.5 * sy
    return torch.from_numpy(matrices.astype(np.float32))[None]


def reference_extrinsics() -> Tensor:
    """``cam0_T_camXs`` (1, 6, 4, 4)."""
    poses = np.stack([ego_T_cam(y, p) for y, p in zip(YAWS, POSITIONS, strict=True)])
    relative = np.linalg.inv(poses[0]) @ poses
    return torch.from_numpy(relative.astype(np.float32))[None]


def reference_points(kind: str, grid: Grid, suffix: str = "") -> tuple[Tensor, Tensor]:
    """Points (n, 3) and features (n, 16), one per voxel, the first of each."""
    g, n = rng(f"points/{kind}{suffix}"), POINTS[kind]
    x, y, z = g.uniform(-49, 49, n), g.uniform(-3, 3, n), g.uniform(-49, 49, n)
    xyz = torch.from_numpy(np.stack([x, y, z], axis=1).astype(np.float32))
    features = torch.from_numpy(g.standard_normal((n, 16)).astype(np.float32))
    voxels = grid.to_mem(xyz).round().numpy()
    first = np.sort(np.unique(voxels, axis=0, return_index=True)[1])
    return xyz[first], features[first]


def reference_batch(size: Size, suffix: str = "") -> dict[str, Tensor | list[Tensor]]:
    """A batch of one with every sensor's tensors, as the network's ``encode`` takes it."""
    radar, radar_features = reference_points("radar", size.grid, suffix)
    lidar, _ = reference_points("lidar", size.grid, suffix)
    return {
        "images": reference_images(size.image, suffix),
        "pix_T_cams": reference_intrinsics(size.image),
        "cam0_T_camXs": reference_extrinsics(),
        "radar_xyz": [radar],
        "radar_features": [radar_features],
        "lidar_xyz": [lidar],
    }
