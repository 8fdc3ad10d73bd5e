"""The unprojection: the fast way against the dense one, and each published oddity by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmd_cli.geometry import Grid
from lmd_cli.networks.simplebev.unprojection import (
    COUNT_EPS,
    mean_over_cameras,
    mean_over_cameras_steadily,
    project,
    scaled_projection,
    unproject,
)
from tests.support.reference_inputs import SMALL, reference_extrinsics, reference_intrinsics

GRID = Grid((12, 4, 12))
IMAGE = (56, 72)
FEATURE = (7, 9)


def random_rotations(generator: torch.Generator, n: int) -> Tensor:
    """Rotations (n, 3, 3) from all directions."""
    q, r = torch.linalg.qr(torch.randn(n, 3, 3, generator=generator))
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]
    return q * torch.linalg.det(q)[:, None, None]


def random_rig(seed: int, cameras: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Features (1, S, 3, h, w), intrinsics and poses (1, S, 4, 4) of cameras all over the grid."""
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(1, cameras, 3, *FEATURE, generator=g)
    features[torch.rand(features.shape, generator=g) < 0.4] = 0  # channels that do not count
    pix_T_cams = torch.eye(4).repeat(cameras, 1, 1)
    pix_T_cams[:, 0, 0] = pix_T_cams[:, 1, 1] = 15 + 60 * torch.rand(cameras, generator=g)
    pix_T_cams[:, 0, 2] = IMAGE[1] * (0.4 + 0.2 * torch.rand(cameras, generator=g))
    pix_T_cams[:, 1, 2] = IMAGE[0] * (0.4 + 0.2 * torch.rand(cameras, generator=g))
    poses = torch.eye(4).repeat(cameras, 1, 1)
    poses[:, :3, :3] = random_rotations(g, cameras)
    poses[:, :3, 3] = torch.tensor([30.0, 3.0, 30.0]) * torch.randn(cameras, 3, generator=g)
    return features, pix_T_cams[None], poses[None]


def views(rig: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Number of cameras that see each voxel."""
    _, pix_T_cams, poses = rig
    scale = (FEATURE[1] / IMAGE[1], FEATURE[0] / IMAGE[0])
    matrices = scaled_projection(pix_T_cams[0], poses[0], scale)
    return project(matrices, GRID, FEATURE).visible.sum(dim=0)


def level_camera(yaw: float) -> Tensor:
    """Pose (4, 4) at the origin, turned about the vertical (y) axis; yaw in radians."""
    c, s = torch.cos(torch.tensor(yaw)).item(), torch.sin(torch.tensor(yaw)).item()
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    return pose


def intrinsics(focal: float, size: tuple[int, int]) -> Tensor:
    """Pinhole (4, 4) with the centre in the middle of ``size`` (H, W)."""
    matrix = torch.eye(4)
    matrix[0, 0] = matrix[1, 1] = focal
    matrix[0, 2], matrix[1, 2] = (size[1] - 1) / 2, (size[0] - 1) / 2
    return matrix


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_visible_pairs_give_what_all_pairs_give(seed: int) -> None:
    rig = random_rig(seed)
    fast, dense = (unproject(*rig, GRID, IMAGE, dense=d) for d in (False, True))
    torch.testing.assert_close(fast, dense, rtol=0, atol=1e-5)


def test_random_rigs_cover_voxels_seen_by_none_to_many() -> None:
    seen = torch.cat([views(random_rig(seed)) for seed in range(20)])
    assert {0, 1, 2, 3} <= set(seen.tolist())


def test_the_published_rig_gives_what_all_pairs_give() -> None:
    features = torch.randn(1, 6, 8, 8, 14, generator=torch.Generator().manual_seed(0))
    rig = (features, reference_intrinsics(SMALL.image), reference_extrinsics())
    fast, dense = (unproject(*rig, SMALL.grid, SMALL.image, dense=d) for d in (False, True))
    assert (fast != 0).any(dim=1).float().mean() > 0.5
    torch.testing.assert_close(fast, dense, rtol=0, atol=1e-5)


def test_gradients_equal_those_of_the_dense_way() -> None:
    features, *cameras = random_rig(3)
    features = (features + 10).double()  # no sample is zero, where the mean has a step
    gradients = []
    for dense in (False, True):
        leaf = features.clone().requires_grad_()
        lifted = unproject(leaf, *(c.double() for c in cameras), GRID, IMAGE, dense=dense)
        (lifted * torch.arange(lifted.numel()).reshape(lifted.shape).sin()).sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    rigs = [random_rig(seed) for seed in (1, 2, 3)]
    together = unproject(*(torch.cat(tensors) for tensors in zip(*rigs, strict=True)), GRID, IMAGE)
    alone = torch.cat([unproject(*rig, GRID, IMAGE) for rig in rigs])
    assert torch.equal(together, alone)


def test_channels_are_feature_major_and_planes_are_z_by_x() -> None:
    grid = Grid((4, 2, 3), bounds=(-3, 3, -2, 2, 4, 12), centroid=(0, 0, 0))
    features = torch.tensor([2.0, 5.0]).reshape(1, 1, 2, 1, 1).expand(1, 1, 2, 40, 40)
    cameras = (intrinsics(8.0, (40, 40))[None, None], torch.eye(4)[None, None])
    lifted = unproject(features, *cameras, grid, (40, 40))
    assert lifted.shape == (1, 2 * 2, 4, 3)
    expected = torch.tensor([2.0, 2.0, 5.0, 5.0]).reshape(1, 4, 1, 1) / (1 + COUNT_EPS)
    torch.testing.assert_close(lifted, expected.expand_as(lifted), rtol=1e-6, atol=0)


def test_cameras_that_do_not_see_a_voxel_leave_it_zero() -> None:
    behind = torch.eye(4)
    behind[2, 3] = 1000.0  # the whole grid is behind the camera
    cameras = (intrinsics(20.0, IMAGE)[None, None], behind[None, None])
    lifted = unproject(torch.ones(1, 1, 3, *FEATURE), *cameras, GRID, IMAGE)
    assert not lifted.any()


def one_voxel(x: float, y: float, z: float) -> Grid:
    """A grid whose only voxel is centred at a point, metres."""
    return Grid((1, 1, 1), bounds=(x - 1, x + 1, y - 1, y + 1, z - 1, z + 1), centroid=(0, 0, 0))


def look_up(feature: Tensor, u: float, v: float, depth: float = 10.0) -> float:
    """What a voxel gets that projects to pixel (u, v) of a feature map (H, W)."""
    grid = one_voxel(u * depth, v * depth, depth)  # a camera with K = identity
    eye = torch.eye(4)[None, None]
    lifted = unproject(feature[None, None, None], eye, eye, grid, tuple(feature.shape))
    return lifted.item() * (1 + COUNT_EPS)


def test_pixels_are_normalised_by_the_last_index_but_sampled_without_aligned_corners() -> None:
    height, width = 5, 9
    columns = torch.arange(width, dtype=torch.float32).expand(height, width)
    rows = torch.arange(height, dtype=torch.float32)[:, None].expand(height, width)
    for u, v in [(4.0, 2.0), (2.3, 1.4), (6.5, 3.1)]:
        assert look_up(columns, u, v) == pytest.approx(u * width / (width - 1) - 0.5, abs=1e-5)
        assert look_up(rows, u, v) == pytest.approx(v * height / (height - 1) - 0.5, abs=1e-5)


@pytest.mark.parametrize(
    ("u", "v", "seen"),
    [
        (-0.49, 2.0, True),
        (-0.51, 2.0, False),
        (8.49, 2.0, True),
        (8.51, 2.0, False),
        (4.0, -0.49, True),
        (4.0, -0.51, False),
        (4.0, 4.49, True),
        (4.0, 4.51, False),
    ],
)
def test_a_voxel_is_seen_within_half_a_pixel_of_the_map(u: float, v: float, seen: bool) -> None:
    grid = one_voxel(u * 10, v * 10, 10.0)
    assert project(torch.eye(4)[None], grid, (5, 9)).visible.item() is seen


@pytest.mark.parametrize(("depth", "seen"), [(0.5, True), (0.0, False), (-10.0, False)])
def test_a_voxel_is_seen_at_positive_depth_only(depth: float, seen: bool) -> None:
    grid = one_voxel(0.0, 0.0, depth)
    assert project(torch.eye(4)[None], grid, (5, 9)).visible.item() is seen


def test_depth_is_clamped_and_coordinates_stay_within_two() -> None:
    points = project(torch.eye(4)[None], one_voxel(3.0, -3.0, 0.0), (5, 9)).points
    assert points.flatten().tolist() == [2.0, -2.0]


def test_depths_above_the_clamp_are_divided_by_as_they_are() -> None:
    near = Grid((1, 1, 1), bounds=(3e-4, 5e-4, 1e-4, 3e-4, 0, 2e-4), centroid=(0, 0, 0))
    points = project(torch.eye(4)[None], near, (5, 9)).points  # depth 1e-4, pixel (4, 2)
    torch.testing.assert_close(points.flatten(), torch.zeros(2), rtol=0, atol=1e-5)


def average_of_two(first: Tensor, second: Tensor) -> Tensor:
    """Mean (C,) in the voxel that two cameras of the same pose see, features constant (C,)."""
    features = torch.stack([first, second])[:, :, None, None].expand(2, -1, *FEATURE)
    matrix = scaled_projection(intrinsics(4.0, FEATURE)[None], torch.eye(4)[None], (1.0, 1.0))
    projection = project(matrix.expand(2, 4, 4), one_voxel(0.0, 0.0, 10.0), FEATURE)
    return mean_over_cameras(features, projection).squeeze(1)


def test_cameras_are_averaged_where_their_feature_is_not_zero_channel_by_channel() -> None:
    mean = average_of_two(torch.tensor([2.0, 3.0, 0.0]), torch.tensor([4.0, 0.0, 0.0]))
    expected = torch.tensor([6 / (2 + COUNT_EPS), 3 / (1 + COUNT_EPS), 0.0])
    torch.testing.assert_close(mean, expected, rtol=1e-7, atol=0)


def test_a_camera_sees_only_what_is_before_it() -> None:
    poses = torch.stack([level_camera(0.0), level_camera(torch.pi)])
    features = torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1, 1).expand(1, 2, 1, *FEATURE)
    cameras = (intrinsics(4.0, IMAGE).repeat(1, 2, 1, 1), poses[None])
    grid = Grid((2, 1, 1), bounds=(-1, 1, -1, 1, -20, 20), centroid=(0, 0, 0))
    back, front = unproject(features, *cameras, grid, IMAGE).flatten().tolist()
    assert (back, front) == pytest.approx((2.0, 1.0), rel=2e-6)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_the_way_of_a_gpu_gives_the_same(seed: int) -> None:
    features, pix_T_cams, poses = random_rig(seed)
    matrices = scaled_projection(pix_T_cams[0], poses[0], (FEATURE[1] / IMAGE[1],) * 2)
    projection = project(matrices, GRID, FEATURE)
    actual = mean_over_cameras_steadily(features[0], projection)
    torch.testing.assert_close(
        actual, mean_over_cameras(features[0], projection), rtol=0, atol=1e-6
    )
