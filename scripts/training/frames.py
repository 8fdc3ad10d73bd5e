"""Training frames of the demo: decoded once, kept in memory, optionally mirrored.

Decoding JPEG files in every epoch would take longer than training does. The mirror image of a
frame (left and right swapped) is a second frame: images, points, calibration and truth are
mirrored together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lmd_cli.data import Box3D, NuScenesSamples
from lmd_cli.data.simplebev.truth import vehicle_truth
from lmd_cli.geometry import Grid
from lmd_cli.networks.simplebev.unprojection import Projection, project, scaled_projection
from lmd_cli.networks.simplebev.voxels import occupancy

#: Columns of the radar features (the devkit's fields from the fourth on) that point sideways.
_SIDEWAYS = (4, 6)  # vy, vy_comp
_TRUTH = ("segmentation", "valid", "center", "offset")


@dataclass(frozen=True)
class Frame:
    """One keyframe as the training loop needs it.

    Attributes:
        images: (6, 3, H, W) uint8.
        truth: for the frame and for its mirror image: segmentation, valid, center, offset.
        radar: (n, 3) positions and (n, 16) features; None without the radar.
        lidar: for the frame and for its mirror image: occupied voxels (Y, Z, X), bool, which
            takes less time and room than their points; None without the LiDAR.
    """

    images: Tensor
    truth: tuple[dict[str, Tensor], dict[str, Tensor]]
    radar: tuple[Tensor, Tensor] | None = None
    lidar: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Calibration:
    """The cameras of the synthetic world: the same in every frame.

    Attributes:
        pix_T_cams, cam0_T_camXs: (6, 4, 4).
        image_size: (H, W) that ``pix_T_cams`` refers to.
    """

    pix_T_cams: Tensor  # noqa: N815
    cam0_T_camXs: Tensor  # noqa: N815
    image_size: tuple[int, int]

    def mirrored(self) -> Calibration:
        """The calibration of images flipped left to right, in a world flipped likewise."""
        pix = self.pix_T_cams.clone()
        pix[:, 0, 2] = self.image_size[1] - 1 - pix[:, 0, 2]
        flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
        return Calibration(pix, flip @ self.cam0_T_camXs @ flip, self.image_size)


class Lift:
    """Unprojection with a fixed calibration as one sparse matrix (V, S * h * w).

    The same values as :func:`lmd_cli.networks.simplebev.unprojection.unproject`, many times faster
    for a small network. (A feature of exactly zero counts as seen here; none is, in practice.)

    Args:
        calibration: of the S cameras.
        grid: V = Y * Z * X voxels.
        size: the feature maps' (h, w).
    """

    def __init__(self, calibration: Calibration, grid: Grid, size: tuple[int, int]):
        self.grid, (height, width) = grid, size
        scale = (width / calibration.image_size[1], height / calibration.image_size[0])
        transforms = scaled_projection(calibration.pix_T_cams, calibration.cam0_T_camXs, scale)
        projection = project(transforms, grid, size)
        voxels, pixels, weights = _pairs(projection, size)
        shape = (projection.visible.shape[1], len(transforms) * height * width)
        # A camera counts for a voxel if it sees it and its sample is not all outside the map.
        seen = torch.zeros(shape[0], len(transforms))
        seen[voxels, pixels // (height * width)] = 1.0
        values = weights / (seen.sum(dim=1)[voxels] + 1e-6)
        index = torch.stack([voxels, pixels])
        matrix = torch.sparse_coo_tensor(index, values, shape, check_invariants=True).coalesce()
        self._matrix, self._transposed = matrix.to_sparse_csr(), matrix.t().to_sparse_csr()

    def __call__(self, features: Tensor) -> Tensor:
        """(B, S, C, h, w) to (B, C * Y, Z, X)."""
        batch, _, channels = features.shape[:3]
        z, y, x = self.grid.size
        pixels = features.permute(1, 3, 4, 0, 2).reshape(-1, batch * channels)  # (S * h * w, B * C)
        voxels = _SparseMatmul.apply(pixels, self._matrix, self._transposed)  # (V, B * C)
        lifted = voxels.reshape(y, z, x, batch, channels).permute(3, 4, 0, 1, 2)
        return lifted.reshape(batch, channels * y, z, x)


class _SparseMatmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dense: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:  # type: ignore
        ctx.transposed = transposed
        return matrix @ dense

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore
        return ctx.transposed @ gradient, None, None


def _pairs(projection: Projection, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Voxels, flat pixels (over all cameras) and bilinear weights, one row per pair that meets."""
    rows = []
    for camera, points in enumerate(projection.points):
        voxels = projection.visible[camera].nonzero().squeeze(1)
        for pixel, weight in _bilinear(points[voxels], size):
            meets = weight > 0
            shifted = pixel[meets] + camera * size[0] * size[1]
            rows.append((voxels[meets], shifted, weight[meets]))
    voxels, pixels, weights = (torch.cat(column) for column in zip(*rows, strict=True))
    return voxels, pixels, weights


def _bilinear(points: Tensor, size: tuple[int, int]) -> Iterator[tuple[Tensor, Tensor]]:
    """The four neighbours of normalised points (n, 2): flat pixel and weight, 0 if outside."""
    height, width = size
    x = ((points[:, 0] + 1) * width - 1) / 2
    y = ((points[:, 1] + 1) * height - 1) / 2
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = x.floor() + dx, y.floor() + dy
            weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            yield (row * width + column).long(), weight * inside


def load_frames(data: Iterable[NuScenesSamples]) -> tuple[list[Frame], Calibration]:
    """All frames of splits of synthetic roots, decoded, and their common calibration."""
    frames, calibration = [], None
    for split in data:
        for i in range(len(split)):
            tensors = split[i].tensors
            calibration = calibration or Calibration(
                tensors["pix_T_cams"], tensors["cam0_T_camXs"], split.image_size
            )
            frames.append(_frame(tensors, split.boxes(i), split.grid))
    assert calibration is not None
    return frames, calibration


def _frame(tensors: dict[str, Tensor], boxes: list[Box3D], grid: Grid) -> Frame:
    sideways = np.array([-1, 1, 1], dtype=np.float32)
    mirrored = [
        replace(box, corners=box.corners * sideways, center=box.center * sideways) for box in boxes
    ]
    radar = lidar = None
    if "radar_xyz" in tensors:
        radar = tensors["radar_xyz"], tensors["radar_features"]
    if "lidar_xyz" in tensors:
        xyz = tensors["lidar_xyz"]
        lidar = occupancy(xyz, grid).bool(), occupancy(_mirrored(xyz), grid).bool()
    return Frame(
        images=((tensors["images"] + 0.5) * 255).round().to(torch.uint8),
        truth=({n: tensors[n] for n in _TRUTH}, vehicle_truth(mirrored, grid)),
        radar=radar,
        lidar=lidar,
    )


def make_batch(frames: Sequence[Frame], mirror: bool) -> dict[str, Tensor | list[Tensor]]:
    """Collate frames, all of them mirrored or none.

    As :func:`lmd_cli.data.collate` does it, but the LiDAR comes as ``lidar``, (B, Y, Z, X) voxels.
    """
    images = torch.stack([frame.images for frame in frames]).float() / 255 - 0.5
    truth = {n: torch.stack([frame.truth[int(mirror)][n] for frame in frames]) for n in _TRUTH}
    batch: dict[str, Tensor | list[Tensor]] = {"images": images.flip(-1) if mirror else images}
    radar = [frame.radar for frame in frames if frame.radar is not None]
    if radar:
        batch["radar_xyz"] = [_mirrored(xyz) if mirror else xyz for xyz, _ in radar]
        batch["radar_features"] = [_turned(values) if mirror else values for _, values in radar]
    lidar = [frame.lidar[int(mirror)] for frame in frames if frame.lidar is not None]
    if lidar:
        batch["lidar"] = torch.stack(lidar).float()
    return {**batch, **truth}


def _mirrored(xyz: Tensor) -> Tensor:
    return xyz * torch.tensor([-1.0, 1.0, 1.0])


def _turned(features: Tensor) -> Tensor:
    signs = torch.ones(features.shape[1])
    signs[list(_SIDEWAYS)] = -1.0
    return features * signs
