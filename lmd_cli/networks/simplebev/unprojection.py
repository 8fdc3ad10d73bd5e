"""Lifting camera features into voxels: each voxel reads the pixel that it projects to.

Voxels are enumerated in the order (y, z, x), so that the result is already laid out as
SimpleBEV's bird's-eye view, channels (feature, Y) feature-major, without a transposition.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.geometry import Grid

#: Smallest depth that a projection divides by, metres.
MIN_DEPTH = 1e-6
#: Normalised pixel coordinates are clamped to plus and minus this.
MAX_COORDINATE = 2.0
#: Added to the number of cameras that see a voxel, before dividing by it.
COUNT_EPS = 1e-6


@dataclass(frozen=True)
class Projection:
    """Where the voxels of a grid fall on the feature maps of S cameras.

    Attributes:
        points: (S, V, 2) coordinates x, y as ``grid_sample(align_corners=False)`` takes them.
        visible: (S, V) whether the camera sees the voxel.
    """

    points: Tensor
    visible: Tensor


def scaled_projection(pix_T_cam: Tensor, cam0_T_cam: Tensor, scale: tuple[float, float]) -> Tensor:
    """Transforms (S, 4, 4) from the reference camera's axes to pixels of the feature map.

    Args:
        pix_T_cam: (S, 4, 4) intrinsics in image pixels; only focal lengths and centre are used.
        cam0_T_cam: (S, 4, 4) rigid poses in the reference camera's axes.
        scale: feature map's size over the image's, ``(x, y)``.
    """
    intrinsics = torch.zeros_like(pix_T_cam)
    for row, factor in enumerate(scale):
        intrinsics[:, row, row] = pix_T_cam[:, row, row] * factor
        intrinsics[:, row, 2] = pix_T_cam[:, row, 2] * factor
    intrinsics[:, 2, 2] = intrinsics[:, 3, 3] = 1.0
    rotation = cam0_T_cam[:, :3, :3].transpose(1, 2)
    cam_T_cam0 = torch.zeros_like(cam0_T_cam)
    cam_T_cam0[:, :3, :3] = rotation
    cam_T_cam0[:, :3, 3:] = -rotation @ cam0_T_cam[:, :3, 3:]
    cam_T_cam0[:, 3, 3] = 1.0
    return intrinsics @ cam_T_cam0


@functools.lru_cache(maxsize=8)
def voxel_axes(
    grid: Grid, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Voxel centres in metres along x, y and z, shaped to broadcast to (Y, Z, X).

    Kept, because a copy to a GPU cannot be recorded in a CUDA graph.
    """
    # A tensor made in inference mode could never be used with gradients, and these are kept.
    with torch.inference_mode(False):
        like = torch.empty(0, device=device, dtype=dtype)
        ref_T_mem = grid.ref_T_mem().to(like)
        z, y, x = grid.size
        along_x, along_y, along_z = (
            torch.arange(size).to(like) * ref_T_mem[axis, axis] + ref_T_mem[axis, 3]
            for axis, size in enumerate((x, y, z))
        )
    return along_x, along_y[:, None, None], along_z[:, None]


def project(feat_T_cam0: Tensor, grid: Grid, size: tuple[int, int]) -> Projection:
    """Project every voxel of ``grid`` into S cameras.

    A voxel is seen if -0.5 < x < W - 0.5, -0.5 < y < H - 0.5 and depth > 0. Coordinates are
    normalised with W - 1 and H - 1 although sampling does not align corners: an inconsistency of
    the published code that its weights were trained with.

    Args:
        feat_T_cam0: (S, 4, 4) from :func:`scaled_projection`.
        grid: the voxels, V = Z * Y * X of them.
        size: the feature map's ``(H, W)``.
    """
    axes = voxel_axes(grid, feat_T_cam0.device, feat_T_cam0.dtype)
    height, width = size
    points, visible = [], []
    for matrix in feat_T_cam0:
        u, v, depth = (
            (row[0] * axes[0] + row[1] * axes[1] + (row[2] * axes[2] + row[3])).flatten()
            for row in matrix[:3]
        )  # (V,) each, in the order (y, z, x)
        clamped = depth.clamp(min=MIN_DEPTH)
        u, v = u / clamped, v / clamped
        inside = (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
        visible.append(inside & (depth > 0))
        points.append(torch.stack([normalised(u, width), normalised(v, height)], dim=-1))
    return Projection(torch.stack(points), torch.stack(visible))


def normalised(pixel: Tensor, extent: int) -> Tensor:
    """Pixel coordinates to [-1, 1] over ``extent - 1``, clamped to twice that."""
    return (2.0 * (pixel / (extent - 1)) - 1.0).clamp(-MAX_COORDINATE, MAX_COORDINATE)


def mean_over_cameras(features: Tensor, projection: Projection) -> Tensor:
    """Sample visible (voxel, camera) pairs only, and average them.

    A camera counts for a voxel, channel by channel, where the sampled feature is not zero. A
    voxel seen by a single camera needs no count: zero stays zero whatever it is divided by.

    Args:
        features: (S, C, H, W).
        projection: where the V voxels fall.

    Returns:
        (C, V), zero where no camera sees the voxel.
    """
    channels, voxels = features.shape[1], projection.visible.shape[1]
    views = projection.visible.sum(dim=0)  # (V,)
    shared = positions(views > 1)  # (M,)
    slot = torch.zeros_like(views).index_copy_(0, shared, torch.arange(len(shared)).to(shared))
    single = [positions(seen & (views == 1)) for seen in projection.visible]
    several = [positions(seen & (views > 1)) for seen in projection.visible]
    means = features.new_zeros(channels, voxels)
    total, count = (features.new_zeros(channels, len(shared)) for _ in range(2))
    seen = [torch.cat(pair) for pair in zip(single, several, strict=True)]
    for sampled, alone, together in zip(
        sample_all(features, projection.points, seen), single, several, strict=True
    ):  # (C, N)
        once, again = sampled.split([len(alone), len(together)], dim=1)
        means.index_add_(1, alone, once / (1.0 + COUNT_EPS))
        total.index_add_(1, slot[together], again)
        count.index_add_(1, slot[together], (again.detach() != 0).to(count))
    return means.index_add_(1, shared, total / (count + COUNT_EPS))


def positions(mask: Tensor) -> Tensor:
    """Where a mask (n,) is true."""
    return mask.nonzero().squeeze(1)


def sample_all(features: Tensor, points: Tensor, seen: list[Tensor]) -> list[Tensor]:
    """Sample each camera's features at the voxels that it sees.

    All cameras go through one call, because that is what ``grid_sample`` spreads over threads;
    shorter lists are padded with points outside.

    Args:
        features: (S, C, H, W).
        points: (S, V, 2) normalised coordinates.
        seen: S lists of voxel indices, (N,) each.

    Returns:
        S tensors (C, N).
    """
    longest = max([1, *map(len, seen)])  # a camera may see nothing
    padded = points.new_full((len(seen), 1, longest, 2), MAX_COORDINATE)
    for row, point, indices in zip(padded, points, seen, strict=True):
        row[0, : len(indices)] = point[indices]
    sampled = F.grid_sample(features, padded.to(features), align_corners=False)  # (S, C, 1, N)
    return [row[:, 0, : len(indices)] for row, indices in zip(sampled, seen, strict=True)]


def mean_over_cameras_steadily(features: Tensor, projection: Projection) -> Tensor:
    """The same as :func:`mean_over_cameras` by sampling all pairs, unseen ones outside the image.

    What is done does not depend on the values, so that a GPU need not wait and a CUDA graph can
    record it; there, memory moves fast enough for the pairs that are sampled in vain. Holds
    (S, C, V), a gigabyte at the published size.
    """
    points = torch.where(projection.visible[..., None], projection.points, MAX_COORDINATE)
    at = points[:, None].to(features)  # (S, 1, V, 2)
    sampled = F.grid_sample(features, at, align_corners=False)[:, :, 0]  # (S, C, V)
    count = torch.linalg.vector_norm(sampled, 0, dim=0)  # of what is not zero, in one pass
    return sampled.sum(0) / (count + COUNT_EPS)


def mean_over_cameras_dense(features: Tensor, projection: Projection) -> Tensor:
    """The same as :func:`mean_over_cameras`, by sampling every pair: the reference to test by.

    Makes tensors of (S, C, V), a gigabyte each at the published size.
    """
    points = projection.points[:, None].to(features)  # (S, 1, V, 2)
    sampled = F.grid_sample(features, points, align_corners=False)[:, :, 0]  # (S, C, V)
    sampled = sampled * projection.visible[:, None]
    counted = (sampled != 0).to(sampled)
    return (sampled * counted).sum(dim=0) / (counted.sum(dim=0) + COUNT_EPS)


def unproject(
    features: Tensor,
    pix_T_cams: Tensor,
    cam0_T_cams: Tensor,
    grid: Grid,
    image_size: tuple[int, int],
    *,
    dense: bool = False,
) -> Tensor:
    """Lift camera features into the bird's-eye view, each sample by itself.

    Args:
        features: (B, S, C, h, w) features of S cameras.
        pix_T_cams: (B, S, 4, 4) intrinsics in pixels of the image.
        cam0_T_cams: (B, S, 4, 4) poses in the reference camera's axes, metres.
        grid: the voxels in the reference camera's axes.
        image_size: ``(H, W)`` that the intrinsics refer to.
        dense: take the slow reference way; else visible pairs only, on a GPU all pairs.

    Returns:
        (B, C * Y, Z, X), channel ``c * Y + y``.
    """
    quick = mean_over_cameras_steadily if features.is_cuda else mean_over_cameras
    reduce = mean_over_cameras_dense if dense else quick
    height, width = features.shape[-2:]
    scale = (width / image_size[1], height / image_size[0])
    z, _, x = grid.size
    maps = []
    for feature, pix_T_cam, cam0_T_cam in zip(features, pix_T_cams, cam0_T_cams, strict=True):
        projection = project(scaled_projection(pix_T_cam, cam0_T_cam, scale), grid, (height, width))
        lifted = reduce(feature, projection)  # (C, Y * Z * X)
        maps.append(lifted.reshape(-1, z, x))  # (C * Y, Z, X)
    return torch.stack(maps) if len(maps) > 1 else maps[0][None]
