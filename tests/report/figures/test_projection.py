"""Boxes and points in the images, and the places that one sensor decides."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lmd_cli.data.boxes import Box3D
from lmd_cli.evaluation.ground.decisive import SMALLEST, Decisive, decisive_places
from lmd_cli.evaluation.ground.plane import Plane
from lmd_cli.report.figures.projection import EDGES, NEAR, overlay, sample_overlays

PIX_T_CAM = np.array([[100.0, 0, 80, 0], [0, 100.0, 60, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
SIZE = (120, 160)
PLANE = Plane(20, 20, -10.0, 10.0, -10.0, 10.0)


def cube(center: tuple[float, float, float], edge: float = 2.0) -> Box3D:
    signs = np.array(list(itertools.product((0.5, -0.5), repeat=3)))
    middle = np.array(center)
    corners = (middle + edge * signs).astype(np.float32)
    return Box3D("b", "vehicle.car", 4, corners, middle, (edge,) * 3, 0.0, 1, 1)


def test_a_box_has_twelve_edges_each_as_long_as_the_box():
    assert len(EDGES) == 12
    corners = cube((0, 0, 0)).corners
    lengths = [np.linalg.norm(corners[i] - corners[j]) for i, j in EDGES]
    np.testing.assert_allclose(lengths, 2.0)


def test_points_fall_where_a_pinhole_puts_them():
    points = np.array([[1.0, 0.5, 10.0], [0, 0, -5.0], [50.0, 0, 10.0]])
    over = overlay([], points, PIX_T_CAM, np.eye(4), SIZE)
    np.testing.assert_allclose(over.points, [[90.0, 65.0]])  # behind and beside are left out
    np.testing.assert_allclose(over.depth, [10.0])


def test_another_camera_sees_from_where_it_stands():
    cam0_T_cam = np.eye(4)
    cam0_T_cam[:3, :3] = [[-1, 0, 0], [0, 1, 0], [0, 0, -1]]  # looks backwards
    cam0_T_cam[:3, 3] = [0.0, 0.0, -1.0]
    over = overlay([], np.array([[1.0, 0.0, -11.0]]), PIX_T_CAM, cam0_T_cam, SIZE)
    np.testing.assert_allclose(over.points, [[70.0, 60.0]])


def test_edges_are_cut_in_front_of_the_camera():
    ahead = overlay([cube((0, 0, 10))], np.zeros((0, 3)), PIX_T_CAM, np.eye(4), SIZE)
    assert ahead.segments.shape == (12, 2, 2)
    around = overlay([cube((0, 0, NEAR))], np.zeros((0, 3)), PIX_T_CAM, np.eye(4), SIZE)
    assert around.segments.shape == (8, 2, 2)  # the rear face is behind, four edges are cut
    behind = overlay([cube((0, 0, -10))], np.zeros((0, 3)), PIX_T_CAM, np.eye(4), SIZE)
    assert behind.segments.shape == (0, 2, 2)


def test_points_known_in_pixels_take_the_place_of_those_in_space():
    views = np.stack([PIX_T_CAM] * 6), np.stack([np.eye(4)] * 6)
    space = np.array([[1.0, 0.5, 10.0], [0.0, 0.0, 0.0]])  # the last is padding
    tensors = {"images": np.zeros((6, 3, *SIZE)), "radar_xyz": space}
    tensors |= dict(zip(("pix_T_cams", "cam0_T_camXs"), views, strict=True))
    pixels = {"CAM_BACK": np.array([[3.0, 4.0, 20.0]])}
    actual = sample_overlays([], tensors, pixels)
    np.testing.assert_allclose(actual["CAM_FRONT"].points, [[90.0, 65.0]])
    np.testing.assert_allclose(actual["CAM_BACK"].points, [[3.0, 4.0]])
    np.testing.assert_allclose(actual["CAM_BACK"].depth, [20.0])
    lidar = {**tensors, "lidar_xyz": tensors["radar_xyz"]}
    lidar.pop("radar_xyz")
    assert {over.sensor for over in sample_overlays([], lidar).values()} == {"lidar"}


def square(column: int, row: int) -> np.ndarray:
    """Outline of a vehicle on four by four cells."""
    corner = np.array([column - 9.5, row - 9.5])
    return corner + np.array([[0, 0], [3, 0], [3, 3], [0, 3]])


def maps(**values: float) -> dict[str, np.ndarray]:
    """Parts that are constant on the vehicle at (4, 5), and -1 together elsewhere."""
    inside = PLANE.mask(square(4, 5))
    rest = {name: -1.0 / len(values) for name in values}
    return {name: np.where(inside, value, rest[name]) for name, value in values.items()}


@pytest.mark.parametrize(
    ("values", "sensor"),
    [
        ({"camera": 2.0, "radar": 0.5, "bias": -1.0}, "camera"),
        ({"camera": 0.5, "radar": 2.0, "bias": -1.0}, "radar"),
        ({"camera": 2.0, "radar": 2.0, "bias": -1.0}, None),
        ({"camera": 0.8, "radar": 0.8, "bias": -1.0}, None),
        ({"camera": 2.0, "radar": -3.0, "bias": -0.5}, None),
    ],
)
def test_one_sensor_decides_where_it_alone_would_do(values: dict[str, float], sensor: str | None):
    actual = decisive_places(maps(**values), ["camera", "radar"], PLANE, [square(4, 5)])
    expected = [] if sensor is None else [Decisive(sensor, -4.0, -3.0, True)]
    assert actual == expected


def test_detections_without_a_vehicle_are_marked_as_wrong():
    parts = maps(camera=2.0, radar=0.5, bias=-1.0)
    assert decisive_places(parts, ["camera", "radar"], PLANE, []) == [
        Decisive("camera", -4.0, -3.0, False)
    ]
    small = {name: np.full((20, 20), -1.0) for name in parts}
    small["radar"][3, 3 : 3 + SMALLEST - 1] = 5.0
    assert decisive_places(small, ["camera", "radar"], PLANE, []) == []
    small["radar"][3, 3 : 3 + SMALLEST] = 5.0
    assert [place.sensor for place in decisive_places(small, ["camera", "radar"], PLANE, [])] == [
        "radar"
    ]
