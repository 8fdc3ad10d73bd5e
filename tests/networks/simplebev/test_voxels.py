"""Voxelisation: each published rule by itself, and determinism."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmd_cli.geometry import Grid
from lmd_cli.networks.simplebev.voxels import occupancy, point_features

#: One-metre voxels; voxel coordinate = metres + (2.5, 1.5, 3.5), the camera at (2.5, 1.5, 3.5).
GRID = Grid((8, 4, 6), bounds=(-3, 3, -2, 2, -4, 4), centroid=(0, 0, 0))
ORIGIN = torch.tensor([2.5, 1.5, 3.5])


def metres(*mem: tuple[float, float, float]) -> Tensor:
    """Points (n, 3) in metres at voxel coordinates (x, y, z)."""
    return torch.tensor(mem) - ORIGIN


def occupied(*mem: tuple[float, float, float]) -> list[list[int]]:
    """Occupied voxels (x, y, z) after voxelising points at voxel coordinates."""
    return [[x, y, z] for y, z, x in occupancy(metres(*mem), GRID).nonzero().tolist()]


def test_the_grid_of_these_tests_is_what_it_says() -> None:
    torch.testing.assert_close(GRID.to_mem(torch.zeros(1, 3)), ORIGIN[None])


def test_occupancy_is_one_where_points_are_and_laid_out_y_z_x() -> None:
    voxels = occupancy(metres((4.0, 1.0, 6.0), (4.2, 1.1, 5.9), (1.0, 3.0, 2.0)), GRID)
    assert voxels.shape == (4, 8, 6)
    assert voxels.sum() == 2
    assert voxels[1, 6, 4] == voxels[3, 2, 1] == 1


@pytest.mark.parametrize(
    ("mem", "voxel"),
    [
        ((-0.49, 1.0, 5.0), [0, 1, 5]),
        ((-0.51, 1.0, 5.0), None),
        ((5.49, 1.0, 5.0), [5, 1, 5]),
        ((5.51, 1.0, 5.0), None),
        ((1.0, -0.49, 5.0), [1, 0, 5]),
        ((1.0, -0.51, 5.0), None),
        ((1.0, 3.49, 5.0), [1, 3, 5]),
        ((1.0, 3.51, 5.0), None),
        ((1.0, 1.0, -0.49), [1, 1, 0]),
        ((1.0, 1.0, -0.51), None),
        ((1.0, 1.0, 7.49), [1, 1, 7]),
        ((1.0, 1.0, 7.51), None),
    ],
)
def test_points_count_within_the_outer_voxels_edges(
    mem: tuple[float, float, float], voxel: list[int] | None
) -> None:
    assert occupied(mem) == ([] if voxel is None else [voxel])


def test_points_on_the_edge_itself_do_not_count() -> None:
    assert occupied((-0.5, 1.0, 5.0), (5.5, 1.0, 5.0), (1.0, 3.5, 5.0), (1.0, 1.0, 7.5)) == []


def test_a_point_at_voxel_coordinate_z_zero_exactly_is_dropped() -> None:
    assert occupied((1.0, 1.0, 0.0)) == []
    assert occupied((1.0, 1.0, 0.25)) == [[1, 1, 0]]
    assert occupied((0.0, 1.0, 5.0), (1.0, 0.0, 5.0)) == [[1, 0, 5], [0, 1, 5]]


@pytest.mark.parametrize(("shift", "kept"), [(0.0, False), (0.09, False), (0.11, True)])
def test_points_within_a_tenth_of_a_voxel_of_the_camera_are_dropped(
    shift: float, kept: bool
) -> None:
    assert bool(occupied((2.5 + shift, 1.5, 3.5))) is kept


def test_the_distance_to_the_camera_is_in_voxel_units() -> None:
    coarse = Grid((8, 4, 6), bounds=(-30, 30, -20, 20, -40, 40), centroid=(0, 0, 0))
    assert occupancy(torch.tensor([[0.9, 0.0, 0.0]]), coarse).sum() == 0
    assert occupancy(torch.tensor([[1.1, 0.0, 0.0]]), coarse).sum() == 1


def test_voxel_zero_is_always_empty() -> None:
    corner = (0.2, -0.3, 0.1)
    assert occupied(corner) == []
    assert not point_features(metres(corner), torch.ones(1, 3), GRID).any()
    assert occupied((1.0, 0.0, 0.1), (0.0, 1.0, 0.1), (0.0, 0.0, 1.0)) == [
        [1, 0, 0],
        [0, 0, 1],
        [0, 1, 0],
    ]


def test_halves_are_rounded_to_even() -> None:
    assert occupied((1.5, 1.0, 5.0), (2.5, 2.0, 5.0), (3.5, 3.0, 5.0)) == [
        [2, 1, 5],
        [2, 2, 5],
        [4, 3, 5],
    ]


def test_points_that_are_not_numbers_are_dropped() -> None:
    nan, inf = float("nan"), float("inf")
    assert occupied((nan, 1.0, 5.0), (1.0, inf, 5.0), (1.0, 1.0, -inf)) == []


def test_no_points_make_empty_voxels() -> None:
    assert not occupancy(torch.zeros(0, 3), GRID).any()
    assert point_features(torch.zeros(0, 3), torch.zeros(0, 16), GRID).shape == (16, 4, 8, 6)


def test_features_go_to_their_points_voxel() -> None:
    xyz, features = metres((4.0, 1.0, 6.0), (1.0, 3.0, 2.0)), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    voxels = point_features(xyz, features, GRID)  # (F, Y, Z, X)
    assert voxels[:, 1, 6, 4].tolist() == [1.0, 2.0]
    assert voxels[:, 3, 2, 1].tolist() == [3.0, 4.0]
    assert voxels.count_nonzero() == 4


def test_of_several_points_in_a_voxel_the_last_in_the_order_given_stays() -> None:
    g = torch.Generator().manual_seed(0)
    mem = torch.rand(4000, 3, generator=g) * torch.tensor([6.0, 4.0, 8.0]) - 0.5
    features = torch.randn(4000, 16, generator=g)
    expected = torch.zeros(16, 4, 8, 6)
    for (x, y, z), feature in zip(mem.round().long().tolist(), features, strict=True):
        if (x, y, z) != (0, 0, 0):
            expected[:, y, z, x] = feature
    assert torch.equal(point_features(mem - ORIGIN, features, GRID), expected)


def test_a_dropped_point_does_not_overwrite_an_earlier_one() -> None:
    xyz = metres((3.0, 2.0, 5.0), (3.0, 2.0, 55.0), (2.5, 1.5, 3.5))
    voxels = point_features(xyz, torch.tensor([[1.0], [2.0], [3.0]]), GRID)
    assert voxels[0, 2, 5, 3] == 1
    assert voxels.count_nonzero() == 1
